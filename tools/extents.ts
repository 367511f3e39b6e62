/** Where the bytes of files lie: `filefrag` output (FIEMAP), and the way from a device to the disks of the job. */
import type { DeviceExtent } from '../core/facts.ts';

/** Data of a file on a device, in bytes. */
export interface FileExtent {
  logicalBytes: number;
  lengthBytes: number;
  deviceBytes: number;
}

/** What filefrag tells about one file. */
export interface FileMap {
  /** Data in order; unwritten extents are left out, they read as zeros like holes. */
  extents: FileExtent[];
  /** False when the bytes on the device are not the content (inline, compressed, encrypted, not yet placed, …). */
  direct: boolean;
}

// Only these leave content and place untouched; every flag not known here means: do not read the device.
const HARMLESS = new Set(['last', 'eof', 'merged', 'shared', 'unwritten']);
const ROW = /^\s*(\d+):\s*(\d+)\.\.\s*(\d+):\s*(\d+)\.\.\s*(\d+):\s*(\d+):\s*(?:(\d+):)?\s*([a-z_,0-9]*)\s*$/;
const HEAD = /^File size of ([\s\S]*) is (\d+) \(\d+ blocks? of (\d+) bytes\)$/;

/**
 * Reads `filefrag -v -b1` for files whose names hold no newline. Names are latin1 strings (one char per byte).
 * Files it failed for, or did not finish, are missing.
 */
export function parseFilefrag(lines: Iterable<string>): Map<string, FileMap> {
  const files = new Map<string, FileMap>();
  let name = '';
  let current: FileMap | undefined;
  let block = 1;
  // An answer that ends early would turn data into a hole, so a file counts only when its end was seen.
  let complete = false;
  let rows = 0;
  const finish = () => {
    if (current !== undefined && complete) files.set(name, current);
    current = undefined;
    complete = false;
  };
  for (const line of lines) {
    const head = HEAD.exec(line);
    if (head !== null) {
      finish();
      name = head[1] ?? '';
      current = { extents: [], direct: true };
      block = Number(head[3]);
      rows = 0;
      continue;
    }
    if (line === `${name}: 0 extents found`) complete = true;
    const row = ROW.exec(line);
    if (row === null || current === undefined) continue;
    const [, number, logical, , physical, , length, , flags = ''] = row;
    // A row out of turn belongs to a file whose head was not understood: then nothing is known about this one.
    if (complete || Number(number) !== rows++) {
      current = undefined;
      continue;
    }
    const set = flags.split(',').filter((f) => f !== '');
    if (set.includes('last')) complete = true;
    if (set.some((f) => !HARMLESS.has(f))) current.direct = false;
    if (set.includes('unwritten')) continue;
    current.extents.push({
      logicalBytes: Number(logical) * block,
      lengthBytes: Number(length) * block,
      deviceBytes: Number(physical) * block,
    });
  }
  finish();
  return files;
}

/** Offset and length of data in a file. */
export type DataRange = [offsetBytes: number, lengthBytes: number];

/** Data ranges below `size`, sorted, neighbours joined. */
export function dataRanges(extents: readonly FileExtent[], size: number): DataRange[] {
  const ranges: DataRange[] = [];
  for (const extent of [...extents].sort((a, b) => a.logicalBytes - b.logicalBytes)) {
    const start = extent.logicalBytes;
    const end = Math.min(start + extent.lengthBytes, size);
    if (end <= start) continue;
    const last = ranges.at(-1);
    if (last !== undefined && last[0] + last[1] >= start) last[1] = Math.max(last[1], end - last[0]);
    else ranges.push([start, end - start]);
  }
  return ranges;
}

/** A run of bytes on a disk of the job. */
export interface DiskRun {
  disk: number;
  offsetBytes: number;
  lengthBytes: number;
}

/** Follows a run of a device to the disks; undefined when a part of it is not mapped. `map` is sorted by start. */
export function toDisk(
  map: readonly DeviceExtent[],
  deviceBytes: number,
  lengthBytes: number,
): DiskRun[] | undefined {
  const runs: DiskRun[] = [];
  let at = deviceBytes;
  const end = deviceBytes + lengthBytes;
  while (at < end) {
    const part = map.find((m) => m.startBytes <= at && at < m.startBytes + m.lengthBytes);
    if (part === undefined) return undefined;
    const take = Math.min(end, part.startBytes + part.lengthBytes) - at;
    runs.push({
      disk: part.disk,
      offsetBytes: part.diskOffsetBytes + (at - part.startBytes),
      lengthBytes: take,
    });
    at += take;
  }
  return runs;
}

/** Runs on the disks that hold `[offset, offset + length)` of a file, which must lie inside its data ranges. */
export function fileRuns(
  extents: readonly FileExtent[],
  map: readonly DeviceExtent[],
  offset: number,
  length: number,
): DiskRun[] | undefined {
  const runs: DiskRun[] = [];
  let at = offset;
  const end = offset + length;
  while (at < end) {
    const extent = extents.find((e) => e.logicalBytes <= at && at < e.logicalBytes + e.lengthBytes);
    if (extent === undefined) return undefined;
    const take = Math.min(end, extent.logicalBytes + extent.lengthBytes) - at;
    const disk = toDisk(map, extent.deviceBytes + (at - extent.logicalBytes), take);
    if (disk === undefined) return undefined;
    runs.push(...disk);
    at += take;
  }
  return runs;
}
