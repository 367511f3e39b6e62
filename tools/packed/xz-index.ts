/** The size an xz file declares: the sum over the indexes at the end of its streams (The .xz File Format 1.2, sections 2 to 4). */
import { type ByteSource, damaged, truncated } from '../image-format/reader.ts';

const FOOTER_BYTES = 12;
const HEADER_BYTES = 12;
/** Largest index read; a block for each 24 MiB of a disk of 64 TiB takes 32 MiB, and is not written by anybody. */
const MAX_INDEX_BYTES = 32 * 1024 * 1024;
const MAX_STREAMS = 10_000;

/** A number of 7 bits a byte, least first; at most nine bytes. */
function multibyte(data: Buffer, at: number): [value: number, next: number] {
  let value = 0;
  for (let i = 0; i < 9 && at + i < data.length; i++) {
    const byte = data[at + i] ?? 0;
    value += (byte & 0x7f) * 2 ** (7 * i);
    if (byte < 0x80) return [value, at + i + 1];
  }
  return [Number.POSITIVE_INFINITY, data.length];
}

/** Content bytes of all streams. Throws DAMAGED when the end of the file is no end of an xz file. */
export async function xzDeclaredBytes(source: ByteSource): Promise<number> {
  let end = source.sizeBytes;
  let total = 0;
  const footerBefore = (at: number) => source.read(Math.max(0, at - FOOTER_BYTES), FOOTER_BYTES);
  for (let streams = 0; end > 0; streams++) {
    if (streams > MAX_STREAMS) throw damaged(source, `it has more than ${MAX_STREAMS} xz streams`);
    let footer = await footerBefore(end);
    // stream padding: zeros, a multiple of four bytes
    for (
      let padding = 0;
      footer.length === FOOTER_BYTES && footer.subarray(8).every((b) => b === 0);
      padding++
    ) {
      if (padding > 64 * 1024) throw damaged(source, 'too many zeros stand behind its end');
      end -= 4;
      footer = await footerBefore(end);
    }
    if (end < HEADER_BYTES + FOOTER_BYTES || footer.toString('latin1', 10) !== 'YZ') {
      throw truncated(source, 'the end of the xz stream');
    }
    const indexBytes = (footer.readUInt32LE(4) + 1) * 4;
    if (indexBytes > MAX_INDEX_BYTES) throw damaged(source, 'its xz index is too large');
    if (indexBytes > end - HEADER_BYTES - FOOTER_BYTES) throw truncated(source, 'the xz index');
    const index = await source.read(end - FOOTER_BYTES - indexBytes, indexBytes);
    if (index[0] !== 0) throw damaged(source, 'its xz index is not where it should be');
    let [records, at] = multibyte(index, 1);
    let storedBytes = 0;
    for (; records > 0; records--) {
      if (at >= index.length) throw damaged(source, 'its xz index is cut');
      const [unpadded, next] = multibyte(index, at);
      const [content, after] = multibyte(index, next);
      storedBytes += Math.ceil(unpadded / 4) * 4;
      total += content;
      at = after;
    }
    end -= FOOTER_BYTES + indexBytes + storedBytes + HEADER_BYTES;
    if (!(end >= 0)) throw damaged(source, 'its xz index and its length differ');
  }
  return total;
}
