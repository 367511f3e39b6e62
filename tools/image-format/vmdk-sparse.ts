/** The hosted sparse extent of VMware's format 5.0 paper: header, grain directory and grain tables. */
import {
  type ByteSource,
  damaged,
  eachEntry,
  MAX_TABLES,
  readExact,
  requireInside,
  truncated,
  u64le,
  unsafe,
} from './reader.ts';

const SECTOR = 512;
const FLAG_COMPRESSED = 1 << 16;
const FLAG_MARKERS = 1 << 17;

/** Numbers of a sparse header; lengths and places in sectors of 512 bytes. */
export interface Sparse {
  flags: number;
  /** Sectors of the disk, or of this piece of it. */
  capacity: number;
  /** Sectors of a grain. */
  grain: number;
  /** Entries of a grain table. */
  perTable: number;
  /** Where the grain directory starts. */
  directory: number;
}

/** Throws when the sector is no whole header of a known version. */
export function requireSparseHeader(source: ByteSource, header: Buffer): void {
  if (header.length < SECTOR) throw truncated(source, 'the VMDK header');
  const version = header.readUInt32LE(4);
  if (version < 1 || version > 3) throw unsafe(source, `VMDK version ${version} does not exist`);
  if (!header.subarray(73, 77).equals(Buffer.from('\n \r\n', 'latin1'))) {
    throw damaged(source, 'its header was changed by a text-mode transfer');
  }
}

/** True when the grains are compressed, as in a stream. */
export function isCompressed(sparse: Sparse): boolean {
  return (sparse.flags & FLAG_COMPRESSED) !== 0;
}

/** Numbers of a header. Throws UNSAFE_IMAGE for what no honest image has. */
export function parseSparse(source: ByteSource, header: Buffer): Sparse {
  const sparse = {
    flags: header.readUInt32LE(8),
    capacity: u64le(header, 12),
    grain: u64le(header, 20),
    perTable: header.readUInt32LE(44),
    directory: u64le(header, 56),
  };
  // QEMU's limits: 512 entries per table, grains up to 2 Mi sectors
  if (sparse.perTable === 0 || sparse.perTable > 512) {
    throw unsafe(source, `its grain tables claim ${sparse.perTable} entries`);
  }
  if (sparse.grain < 1 || sparse.grain > 0x20_0000 || (sparse.grain & (sparse.grain - 1)) !== 0) {
    throw unsafe(source, `its grains are ${sparse.grain} sectors`);
  }
  const algorithm = header.readUInt16LE(77);
  if (isCompressed(sparse) && algorithm !== 1) {
    throw unsafe(source, `its compression algorithm ${algorithm} does not exist`);
  }
  return sparse;
}

/** Checks that every table and grain lies in the file. Throws DAMAGED, UNSAFE_IMAGE. */
export async function checkGrains(source: ByteSource, sparse: Sparse): Promise<void> {
  const { perTable, grain, capacity } = sparse;
  const coverage = perTable * grain;
  const entries = Math.ceil(capacity / coverage);
  const tables: number[] = [];
  const numbers: number[] = [];
  const directory = {
    offset: sparse.directory * SECTOR,
    entries,
    entryBytes: 4,
    what: 'the grain directory',
  };
  // bound by the file's own size, so that a wild capacity costs nothing
  await eachEntry(source, directory, (data, at, index) => {
    const sector = data.readUInt32LE(at);
    if (sector === 0) return;
    requireInside(source, sector * SECTOR, perTable * 4, 'a grain table');
    tables.push(sector * SECTOR);
    numbers.push(index);
    if (tables.length * perTable * 4 > source.sizeBytes) throw damaged(source, 'its grain tables overlap');
    if (tables.length > MAX_TABLES) throw unsafe(source, `it has more than ${MAX_TABLES} grain tables`);
  });
  const compressed = isCompressed(sparse);
  let lastGrain = 0;
  for (const [i, offset] of tables.entries()) {
    const index = numbers[i] ?? 0;
    const table = { offset, entries: perTable, entryBytes: 4, what: 'a grain table' };
    await eachEntry(source, table, (data, at, entry) => {
      const sector = data.readUInt32LE(at);
      const guest = index * coverage + entry * grain;
      if (sector <= 1 || guest >= capacity) return; // 0 is a hole, 1 a grain of zeros
      const bytes = compressed ? 12 : Math.min(grain, capacity - guest) * SECTOR;
      if (sector * SECTOR + bytes > source.sizeBytes)
        throw truncated(source, `the grain at ${guest * SECTOR}`);
      lastGrain = Math.max(lastGrain, sector * SECTOR);
    });
  }
  if (compressed && lastGrain > 0) await checkLastGrain(source, sparse, lastGrain);
}

/** Compressed grains say their length themselves; the one farthest back proves that the file is whole. */
async function checkLastGrain(source: ByteSource, sparse: Sparse, offset: number): Promise<void> {
  const marker = await readExact(source, offset, 12, 'the last grain');
  const hasMarker = (sparse.flags & FLAG_MARKERS) !== 0;
  const bytes = hasMarker ? marker.readUInt32LE(8) : marker.readUInt32LE(0);
  // deflate grows incompressible data by a few bytes only
  if (bytes > 2 * sparse.grain * SECTOR) throw unsafe(source, `a compressed grain claims ${bytes} bytes`);
  requireInside(source, offset + (hasMarker ? 12 : 4), bytes, 'the last grain');
}
