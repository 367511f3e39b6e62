/** Partition tables: GPT (UEFI specification 5.3) and MBR with its chain of extended boot records. */
import { crc32 } from 'node:zlib';
import type { ByteRange } from '../../core/disk-source.ts';
import { MIB } from '../../core/sizes.ts';
import { type ByteSource, readExact, u64le } from '../image-format/reader.ts';

/** A partition, not checked against others. */
type Partition = ByteRange;

/** What a disk is divided into. */
export type PartitionTable =
  /** No table: one thing may fill the disk. */
  | { kind: 'none' }
  /** There is one, and it makes no sense. */
  | { kind: 'broken'; why: string }
  | { kind: 'gpt' | 'mbr'; partitions: Partition[] };

/** Most entries of a GPT; 128 is usual. */
const MAX_GPT_ENTRIES = 4096;
/** Most partitions in an extended one; Linux stops at 60 on most devices. */
const MAX_LOGICAL = 256;
const SECTOR = 512;
const EXTENDED = [0x05, 0x0f, 0x85];
const PROTECTIVE = 0xee;

interface MbrEntry {
  type: number;
  first: number;
  count: number;
}

/** The four entries; undefined when the sector is no boot record. */
function parseMbr(sector: Buffer): MbrEntry[] | undefined {
  if (sector.readUInt16LE(510) !== 0xaa55) return undefined;
  const entries = [446, 462, 478, 494].map((at) => ({
    flag: sector.readUInt8(at),
    type: sector.readUInt8(at + 4),
    first: sector.readUInt32LE(at + 8),
    count: sector.readUInt32LE(at + 12),
  }));
  // a boot sector of a file system ends the same way, with code where the entries are
  return entries.some((entry) => (entry.flag & 0x7f) !== 0) ? undefined : entries;
}

/** Partitions of a GPT whose header stands at `offset`; undefined when it is not there or not whole. */
async function readGpt(
  disk: ByteSource,
  sectorBytes: number,
  lba: number,
): Promise<{ partitions: Partition[]; otherLba: number } | undefined> {
  const offset = lba * sectorBytes;
  if (lba < 1 || offset + sectorBytes > disk.sizeBytes) return undefined;
  const header = await readExact(disk, offset, sectorBytes, 'GPT header');
  if (header.toString('latin1', 0, 8) !== 'EFI PART') return undefined;
  const headerBytes = header.readUInt32LE(12);
  if (headerBytes < 92 || headerBytes > sectorBytes) return undefined;
  const summed = Buffer.from(header.subarray(0, headerBytes));
  summed.fill(0, 16, 20);
  if (crc32(summed) !== header.readUInt32LE(16) || u64le(header, 24) !== lba) return undefined;
  const tableAt = u64le(header, 72) * sectorBytes;
  const count = header.readUInt32LE(80);
  const entryBytes = header.readUInt32LE(84);
  if (count > MAX_GPT_ENTRIES || entryBytes < 128 || entryBytes > 4096 || entryBytes % 128 !== 0)
    return undefined;
  if (count * entryBytes > MIB || !(tableAt + count * entryBytes <= disk.sizeBytes)) return undefined;
  const table = await readExact(disk, tableAt, count * entryBytes, 'partition table');
  if (crc32(table) !== header.readUInt32LE(88)) return undefined;
  const partitions: Partition[] = [];
  for (let at = 0; at < table.length; at += entryBytes) {
    if (table.subarray(at, at + 16).every((byte) => byte === 0)) continue;
    const startBytes = u64le(table, at + 32) * sectorBytes;
    partitions.push({ startBytes, lengthBytes: (u64le(table, at + 40) + 1) * sectorBytes - startBytes });
  }
  return { partitions, otherLba: u64le(header, 32) };
}

/** Logical partitions. Each record names its partition relative to itself and the next relative to the extended one. */
async function readLogical(disk: ByteSource, extended: MbrEntry): Promise<Partition[]> {
  const partitions: Partition[] = [];
  const seen = new Set<number>();
  let at = extended.first;
  while (!seen.has(at) && seen.size < MAX_LOGICAL) {
    seen.add(at);
    if ((at + 1) * SECTOR > disk.sizeBytes) break;
    const entries = parseMbr(await readExact(disk, at * SECTOR, SECTOR, 'extended boot record'));
    if (entries === undefined) break;
    let next: number | undefined;
    for (const entry of entries) {
      if (entry.type === 0 || entry.count === 0) continue;
      if (EXTENDED.includes(entry.type)) next ??= extended.first + entry.first;
      else partitions.push({ startBytes: (at + entry.first) * SECTOR, lengthBytes: entry.count * SECTOR });
    }
    if (next === undefined) break;
    at = next;
  }
  return partitions;
}

/** Reads the partition table. Throws only what reading throws. */
export async function readPartitions(disk: ByteSource): Promise<PartitionTable> {
  if (disk.sizeBytes < 2 * SECTOR) return { kind: 'none' };
  const mbr = parseMbr(await readExact(disk, 0, SECTOR, 'boot record'));
  const used = mbr?.filter((entry) => entry.type !== 0 && entry.count !== 0) ?? [];
  if (used.length === 0) {
    const lost = (await readGpt(disk, SECTOR, 1)) ?? (await readGpt(disk, 4096, 1));
    return lost === undefined
      ? { kind: 'none' }
      : { kind: 'broken', why: 'a GPT without its protective MBR' };
  }
  if (!used.some((entry) => entry.type === PROTECTIVE)) {
    const partitions: Partition[] = [];
    for (const entry of used) {
      if (EXTENDED.includes(entry.type)) partitions.push(...(await readLogical(disk, entry)));
      else partitions.push({ startBytes: entry.first * SECTOR, lengthBytes: entry.count * SECTOR });
    }
    return { kind: 'mbr', partitions };
  }
  for (const sectorBytes of [SECTOR, 4096]) {
    const backup = Math.floor(disk.sizeBytes / sectorBytes) - 1;
    const gpt = (await readGpt(disk, sectorBytes, 1)) ?? (await readGpt(disk, sectorBytes, backup));
    if (gpt) return { kind: 'gpt', partitions: gpt.partitions };
  }
  return { kind: 'broken', why: 'neither copy of its GPT is valid' };
}
