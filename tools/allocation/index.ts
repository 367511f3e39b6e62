/** Which bytes of a disk are in use: partition table, volumes and file systems, read by our own bounded parsers. */
import type { ByteRange } from '../../core/disk-source.ts';
import type { ByteSource } from '../image-format/reader.ts';
import { singleKind, wholeOnDoubt, wholePart } from './content.ts';
import { FreeSpace, usedRanges } from './free-space.ts';
import { volumeContent } from './lvm.ts';
import { readPartitions } from './partitions.ts';
import { limitedSource, windowOf } from './reading.ts';
import { readSignatures } from './signatures.ts';
import type { AllocationMap, AllocationPart, DiskState, Found } from './types.ts';

export type { AllocationMap, DiskState } from './types.ts';

/** Options of a map. */
export interface AllocationOptions {
  signal?: AbortSignal | undefined;
  /** What is known about writers; default `offline`. */
  state?: DiskState;
}

/** Partitions by start, with those that overlap another or the end of the disk marked. */
function sorted(
  partitions: readonly ByteRange[],
  sizeBytes: number,
): { startBytes: number; endBytes: number; clash: boolean }[] {
  const parts = partitions
    .filter((p) => p.startBytes >= 0 && p.startBytes < sizeBytes && p.lengthBytes > 0)
    .map((p) => ({ startBytes: p.startBytes, endBytes: p.startBytes + p.lengthBytes, clash: false }))
    .sort((a, b) => a.startBytes - b.startBytes);
  let widest = parts[0];
  for (const part of parts) {
    if (part.endBytes > sizeBytes) {
      part.endBytes = sizeBytes;
      part.clash = true;
    }
    if (widest !== undefined && widest !== part && part.startBytes < widest.endBytes) {
      part.clash = true;
      widest.clash = true;
    }
    if (widest === undefined || part.endBytes > widest.endBytes) widest = part;
  }
  return parts;
}

function unpartitioned(startBytes: number, endBytes: number): AllocationPart {
  const sizeBytes = endBytes - startBytes;
  return { startBytes, sizeBytes, kind: 'unpartitioned', allocatedBytes: sizeBytes, how: 'whole' };
}

async function partitionedDisk(
  disk: ByteSource,
  partitions: readonly ByteRange[],
  state: DiskState,
): Promise<Found> {
  const places = sorted(partitions, disk.sizeBytes);
  const lastEnd = places.reduce((end, p) => Math.max(end, p.endBytes), 0);
  const around = await readSignatures(disk, {
    beforeBytes: places[0]?.startBytes ?? 0,
    afterBytes: lastEnd,
  });
  const claimed = [...around.parsed, ...around.foreign];
  if (claimed.length > 0) {
    return wholePart(
      disk.sizeBytes,
      'unknown',
      `it has partitions and also looks like one ${claimed.join(', ')}`,
    );
  }
  const found: Found = { parts: [], free: new FreeSpace() };
  let at = 0;
  for (const place of places) {
    if (place.startBytes > at) found.parts.push(unpartitioned(at, place.startBytes));
    // what two partitions share is told once
    const startBytes = Math.max(at, place.startBytes);
    const sizeBytes = place.endBytes - startBytes;
    if (sizeBytes <= 0) continue;
    const inner = place.clash
      ? wholePart(sizeBytes, 'unknown', 'it overlaps another partition or the end of the disk')
      : await volumeContent(windowOf(disk, startBytes, sizeBytes), state);
    for (const part of inner.parts) found.parts.push({ ...part, startBytes: part.startBytes + startBytes });
    found.free.addAll(inner.free, startBytes);
    at = place.endBytes;
  }
  if (at < disk.sizeBytes) found.parts.push(unpartitioned(at, disk.sizeBytes));
  return found;
}

async function diskContent(disk: ByteSource, state: DiskState): Promise<Found> {
  const table = await readPartitions(disk);
  if (table.kind === 'broken') return wholePart(disk.sizeBytes, 'unknown', table.why);
  if (table.kind === 'none') return await volumeContent(disk, state);
  // an empty ISO or a boot sector that only looks like a table: what stands at the start decides
  if (table.partitions.length === 0) {
    const { kind, known } = singleKind(await readSignatures(disk));
    if (known !== undefined)
      return wholePart(disk.sizeBytes, 'unknown', `a table without partitions, and ${kind}`);
  }
  return await partitionedDisk(disk, table.partitions, state);
}

/**
 * Works out which bytes of a disk have to be read. What is not fully understood, contradicts itself or cannot be read counts
 * as in use; a part's `note` tells why. Reads metadata only, several reads in flight; memory stays below 64 MiB beside the result.
 * Throws SOURCE_REMOTE and INTERRUPTED, nothing for the disk's content.
 */
export async function allocationMap(
  disk: ByteSource,
  options: AllocationOptions = {},
): Promise<AllocationMap> {
  const source = limitedSource(disk, options.signal);
  const found = await wholeOnDoubt(
    disk.sizeBytes,
    'unknown',
    async () => await diskContent(source, options.state ?? 'offline'),
  );
  const ranges = usedRanges(found.free, disk.sizeBytes);
  return {
    ranges,
    allocatedBytes: ranges.reduce((sum, range) => sum + range.lengthBytes, 0),
    parts: found.parts,
  };
}
