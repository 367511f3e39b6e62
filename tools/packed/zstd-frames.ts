/**
 * Frames of a zstd file (RFC 8878), found by their headers. Node's decoder stops after the first frame of a chunk without
 * a word (measured: the second frame was lost), so each frame gets a decoder of its own, and the borders come from here.
 */
import { type ByteSource, damaged, truncated, u64le } from '../image-format/reader.ts';
import { partOf } from './byte-stream.ts';

const MAGIC = 0xfd2fb528;
/** Skippable frames have sixteen magic numbers. */
const SKIPPABLE = 0x184d2a50;
const BLOCK_COMPRESSED_LIMIT = 128 * 1024;

/** The header of a frame. */
export interface ZstdFrame {
  /** Bytes of the header; blocks follow. */
  headerBytes: number;
  /** Bytes of content as the frame says; undefined when it does not. */
  contentBytes: number | undefined;
  hasChecksum: boolean;
  /** Whole length of a frame that holds no content. */
  skipBytes: number | undefined;
}

/** Reads the header of the frame at `offset`. Throws DAMAGED when there is none. */
export async function zstdFrame(source: ByteSource, offset: number): Promise<ZstdFrame> {
  const data = await source.read(offset, 18);
  if (data.length < 6) throw truncated(source, 'a zstd frame');
  const magic = data.readUInt32LE(0);
  if ((magic & 0xfffffff0) >>> 0 === SKIPPABLE) {
    const skipBytes = 8 + (data.length < 8 ? 0 : data.readUInt32LE(4));
    if (offset + skipBytes > source.sizeBytes) throw truncated(source, 'a zstd frame');
    return { headerBytes: 8, contentBytes: 0, hasChecksum: false, skipBytes };
  }
  if (magic !== MAGIC) throw damaged(source, 'something that is no zstd stands in it, or behind its end');
  const descriptor = data.readUInt8(4);
  const single = (descriptor & 0x20) !== 0;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3] ?? 0;
  if (dictionaryBytes > 0) throw damaged(source, 'it was compressed with a dictionary');
  const sizeBytes = [single ? 1 : 0, 2, 4, 8][descriptor >> 6] ?? 0;
  const at = 5 + (single ? 0 : 1);
  if (data.length < at + sizeBytes) throw truncated(source, 'a zstd frame');
  const contentBytes =
    sizeBytes === 0
      ? undefined
      : sizeBytes === 1
        ? data.readUInt8(at)
        : sizeBytes === 2
          ? data.readUInt16LE(at) + 256
          : sizeBytes === 4
            ? data.readUInt32LE(at)
            : u64le(data, at);
  return {
    headerBytes: at + sizeBytes,
    contentBytes,
    hasChecksum: (descriptor & 4) !== 0,
    skipBytes: undefined,
  };
}

/** The bytes of one frame, from `offset` on, as they come; ends at its border. Returns where the next one starts. */
export async function* zstdFrameBytes(
  source: ByteSource,
  offset: number,
  frame: ZstdFrame,
): AsyncGenerator<Buffer, number> {
  const window = buffered(source);
  const take = async (at: number, length: number): Promise<Buffer> => {
    const data = await window.read(at, length);
    if (data.length < length) throw truncated(source, 'the end of a zstd frame');
    return data;
  };
  yield await take(offset, frame.headerBytes);
  let at = offset + frame.headerBytes;
  for (let last = false; !last; ) {
    const header = await take(at, 3);
    const word = header.readUIntLE(0, 3);
    last = (word & 1) !== 0;
    const type = (word >> 1) & 3;
    const stated = word >>> 3;
    if (type === 3) throw damaged(source, 'a zstd block of an unknown type');
    if (stated > BLOCK_COMPRESSED_LIMIT) throw damaged(source, 'a zstd block is too large');
    const length = type === 1 ? 1 : stated; // one byte, repeated
    yield await take(at, 3 + length);
    at += 3 + length;
  }
  if (frame.hasChecksum) yield await take(at, 4);
  return at + (frame.hasChecksum ? 4 : 0);
}

/** Reads through one buffer of 1 MiB: blocks are small, and a call for each would take most of the time. */
function buffered(source: ByteSource): Pick<ByteSource, 'read'> {
  let start = 0;
  let data: Buffer = Buffer.alloc(0);
  return {
    async read(offset, length) {
      if (offset < start || offset + length > start + data.length) {
        start = offset;
        data = await partOf(source, source.name, 0, source.sizeBytes).read(offset, 1024 * 1024);
      }
      return data.subarray(offset - start, offset - start + length);
    },
  };
}
