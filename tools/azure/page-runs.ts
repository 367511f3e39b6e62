/** Which pages of an image file are worth sending: neither holes of the file nor zeros in its extents. */
import type * as fs from 'node:fs/promises';
import type { ByteRange } from '../../core/disk-source.ts';
import { PortError } from '../../core/errors.ts';
import { KIB, MIB } from '../../core/sizes.ts';
import type { MapExtent } from '../qemu-img.ts';

/** Size of a page: Microsoft Learn, "Put Page": ranges are multiples of 512. */
export const PAGE_BYTES = 512;
/** Most of one Put Page, as there. */
export const PUT_BYTES = 4 * MIB;
/** The grain in which zeros are looked for. */
const GRAIN_BYTES = 4 * KIB;
/** Fewer zeros between data cost less than one more request does. */
const GAP_BYTES = 64 * KIB;

const ZEROS = Buffer.alloc(GRAIN_BYTES);

/** Runs that hold something, offsets from the start of `data`; zeros of 64 KiB and more are left out. */
export function dataRuns(data: Buffer): ByteRange[] {
  const runs: ByteRange[] = [];
  for (let at = 0; at < data.length; at += GRAIN_BYTES) {
    const piece = data.subarray(at, at + GRAIN_BYTES);
    if (piece.equals(ZEROS.subarray(0, piece.length))) continue;
    const last = runs.at(-1);
    const end = last === undefined ? 0 : last.startBytes + last.lengthBytes;
    if (last !== undefined && at - end < GAP_BYTES) last.lengthBytes = at + piece.length - last.startBytes;
    else runs.push({ startBytes: at, lengthBytes: piece.length });
  }
  return runs;
}

/** Blocks of 4 MiB an extent with data touches, in order, each once, with the part of them that is in extents. */
export function blocksOf(extents: readonly MapExtent[], endBytes: number): Map<number, ByteRange[]> {
  const blocks = new Map<number, ByteRange[]>();
  for (const extent of extents) {
    if (!extent.data) continue;
    // Extents of a file end where its file system likes; pages are multiples of 512.
    const start = extent.startBytes - (extent.startBytes % PAGE_BYTES);
    const end = Math.min(
      endBytes,
      Math.ceil((extent.startBytes + extent.lengthBytes) / PAGE_BYTES) * PAGE_BYTES,
    );
    for (let at = start; at < end; ) {
      const index = Math.floor(at / PUT_BYTES);
      const stop = Math.min(end, (index + 1) * PUT_BYTES);
      const parts = blocks.get(index) ?? [];
      parts.push({ startBytes: at, lengthBytes: stop - at });
      blocks.set(index, parts);
      at = stop;
    }
  }
  return blocks;
}

/** Reads exactly so much. Throws DAMAGED when the file is shorter. */
export async function readExactly(handle: fs.FileHandle, range: ByteRange): Promise<Buffer> {
  const buffer = Buffer.allocUnsafe(range.lengthBytes);
  for (let done = 0; done < buffer.length; ) {
    const { bytesRead } = await handle.read(buffer, done, buffer.length - done, range.startBytes + done);
    if (bytesRead === 0)
      throw new PortError('DAMAGED', `the image ends before ${range.startBytes + buffer.length} bytes`);
    done += bytesRead;
  }
  return buffer;
}
