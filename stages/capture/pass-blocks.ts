/** Which blocks of a disk hold bytes worth reading, from runs that are in use. */
import { BLOCK_BYTES, type ByteRange } from '../../core/disk-source.ts';

/** What disks are read in. */
const SECTOR_BYTES = 512;

/** Runs within the disk, whole sectors, ascending, touching ones joined. */
export function tidyRanges(ranges: readonly ByteRange[], sizeBytes: number): ByteRange[] {
  const tidy: ByteRange[] = [];
  const sorted = ranges
    .filter((r) => r.lengthBytes > 0)
    .map(({ startBytes, lengthBytes }) => ({
      start: Math.max(0, Math.floor(startBytes / SECTOR_BYTES) * SECTOR_BYTES),
      end: Math.min(sizeBytes, Math.ceil((startBytes + lengthBytes) / SECTOR_BYTES) * SECTOR_BYTES),
    }))
    .filter(({ start, end }) => start < end)
    .sort((a, b) => a.start - b.start);
  for (const { start, end } of sorted) {
    const last = tidy.at(-1);
    if (last !== undefined && start <= last.startBytes + last.lengthBytes) {
      last.lengthBytes = Math.max(last.lengthBytes, end - last.startBytes);
    } else tidy.push({ startBytes: start, lengthBytes: end - start });
  }
  return tidy;
}

/** What lies in both; both tidy. */
export function intersection(a: readonly ByteRange[], b: readonly ByteRange[]): ByteRange[] {
  const both: ByteRange[] = [];
  for (let i = 0, k = 0; i < a.length && k < b.length; ) {
    const [left, right] = [a[i], b[k]];
    if (left === undefined || right === undefined) break;
    const leftEnd = left.startBytes + left.lengthBytes;
    const rightEnd = right.startBytes + right.lengthBytes;
    const startBytes = Math.max(left.startBytes, right.startBytes);
    const lengthBytes = Math.min(leftEnd, rightEnd) - startBytes;
    if (lengthBytes > 0) both.push({ startBytes, lengthBytes });
    if (leftEnd < rightEnd) i++;
    else k++;
  }
  return both;
}

/** Bytes of all runs. */
export function sumBytes(ranges: readonly ByteRange[]): number {
  return ranges.reduce((sum, r) => sum + r.lengthBytes, 0);
}

/** A block that holds bytes in use. */
export interface UsedBlock {
  index: number;
  /** Runs in use, offsets from the start of the block. */
  parts: ByteRange[];
}

/** The blocks tidy runs touch, ascending. */
export function* usedBlocks(ranges: readonly ByteRange[]): Generator<UsedBlock> {
  let block: UsedBlock | undefined;
  for (const range of ranges) {
    const end = range.startBytes + range.lengthBytes;
    for (let at = range.startBytes; at < end; ) {
      const index = Math.floor(at / BLOCK_BYTES);
      const stop = Math.min(end, (index + 1) * BLOCK_BYTES);
      if (block?.index !== index) {
        if (block !== undefined) yield block;
        block = { index, parts: [] };
      }
      block.parts.push({ startBytes: at - index * BLOCK_BYTES, lengthBytes: stop - at });
      at = stop;
    }
  }
  if (block !== undefined) yield block;
}
