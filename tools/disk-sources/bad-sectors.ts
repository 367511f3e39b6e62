/** Reading a disk that has unreadable sectors: smaller and smaller, until only they are left. */
import type { ByteRange } from '../../core/disk-source.ts';

/** Smallest piece a disk is asked for. */
const SECTOR_BYTES = 512;

/** How to read one piece. */
export interface SectorReader {
  /** Fills `target` from `offset` or throws. */
  read(offset: number, target: Buffer): Promise<void>;
  /** True for the error of a disk that cannot read these sectors; any other ends the reading. */
  isUnreadable(error: unknown): boolean;
}

/** Fills `target`; what cannot be read is zeros there, and returned as offsets in `target`, ascending, joined. */
export async function readAround(reader: SectorReader, offset: number, target: Buffer): Promise<ByteRange[]> {
  try {
    await reader.read(offset, target);
    return [];
  } catch (error) {
    if (!reader.isUnreadable(error)) throw error;
  }
  if (target.length <= SECTOR_BYTES) {
    target.fill(0);
    return [{ startBytes: 0, lengthBytes: target.length }];
  }
  const half = Math.ceil(target.length / 2 / SECTOR_BYTES) * SECTOR_BYTES;
  const bad = await readAround(reader, offset, target.subarray(0, half));
  for (const { startBytes, lengthBytes } of await readAround(reader, offset + half, target.subarray(half))) {
    const last = bad.at(-1);
    if (last !== undefined && last.startBytes + last.lengthBytes === startBytes + half) {
      last.lengthBytes += lengthBytes;
    } else bad.push({ startBytes: startBytes + half, lengthBytes });
  }
  return bad;
}
