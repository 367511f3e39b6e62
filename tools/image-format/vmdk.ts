/** VMDK in one file: monolithicSparse and streamOptimized (the hosted sparse extent of VMware's format 5.0 paper). */
import { PortError } from '../../core/errors.ts';
import type { HeaderFacts } from './facts.ts';
import {
  type ByteSource,
  damaged,
  eachEntry,
  MAX_TABLES,
  readExact,
  requireInside,
  requireSaneSize,
  truncated,
  u64le,
  unsafe,
} from './reader.ts';
import { checkDescriptor } from './vmdk-descriptor.ts';

const SECTOR = 512;
const MAX_DESCRIPTOR_BYTES = 64 * 1024;
const FLAG_COMPRESSED = 1 << 16;
const FLAG_MARKERS = 1 << 17;
const MARKER_FOOTER = 3;

interface Sparse {
  flags: number;
  capacity: number;
  grain: number;
  perTable: number;
  directory: number;
}

/** Checks header, footer, descriptor and grain tables. Throws what the gate refuses. */
export async function inspectVmdk(source: ByteSource): Promise<HeaderFacts> {
  const header = await source.read(0, SECTOR);
  if (header.toString('latin1', 0, 4) !== 'KDMV') {
    const text = (await source.read(0, MAX_DESCRIPTOR_BYTES)).toString('latin1');
    checkDescriptor(source, text, false);
    throw damaged(source, 'its VMDK descriptor has no data');
  }
  if (header.length < SECTOR) throw truncated(source, 'the VMDK header');
  const version = header.readUInt32LE(4);
  if (version < 1 || version > 3) throw unsafe(source, `VMDK version ${version} does not exist`);
  if (!header.subarray(73, 77).equals(Buffer.from('\n \r\n', 'latin1'))) {
    throw damaged(source, 'its header was changed by a text-mode transfer');
  }
  await checkEmbedded(source, header);
  const sparse = parse(source, await finalHeader(source, header));
  requireSaneSize(source, sparse.capacity * SECTOR);
  await checkGrains(source, sparse);
  return { virtualBytes: sparse.capacity * SECTOR };
}

async function checkEmbedded(source: ByteSource, header: Buffer): Promise<void> {
  const offset = u64le(header, 28) * SECTOR;
  const length = u64le(header, 36) * SECTOR;
  if (offset === 0 || length === 0) {
    throw new PortError('UNSUPPORTED_FORMAT', `${source.name} is one piece of a split VMDK`, {
      hint: 'make one file first: vmkfstools -i, ovftool, or qemu-img convert of the descriptor',
    });
  }
  if (length > MAX_DESCRIPTOR_BYTES) throw unsafe(source, `its VMDK descriptor claims ${length} bytes`);
  const text = await readExact(source, offset, length, 'the VMDK descriptor');
  checkDescriptor(source, text.toString('latin1'), true);
}

/** A stream has its grain directory at the end, and there a second header that must say the same. */
async function finalHeader(source: ByteSource, header: Buffer): Promise<Buffer> {
  const atEnd = header.readUInt32LE(56) === 0xffff_ffff && header.readUInt32LE(60) === 0xffff_ffff;
  if (!atEnd) return header;
  if (source.sizeBytes < 4 * SECTOR) throw truncated(source, 'the VMDK footer');
  const tail = await readExact(source, source.sizeBytes - 3 * SECTOR, 3 * SECTOR, 'the VMDK footer');
  const footer = tail.subarray(SECTOR, 2 * SECTOR);
  const endMarker = tail.subarray(2 * SECTOR);
  if (
    tail.readUInt32LE(8) !== 0 ||
    tail.readUInt32LE(12) !== MARKER_FOOTER ||
    footer.toString('latin1', 0, 4) !== 'KDMV' ||
    endMarker.readUInt32LE(8) !== 0 ||
    endMarker.readUInt32LE(12) !== 0
  ) {
    throw truncated(source, 'the VMDK footer');
  }
  // all but the two directory offsets
  if (
    !footer.subarray(0, 48).equals(header.subarray(0, 48)) ||
    !footer.subarray(64, 79).equals(header.subarray(64, 79))
  ) {
    throw unsafe(source, 'its VMDK header and footer differ');
  }
  return footer;
}

function parse(source: ByteSource, header: Buffer): Sparse {
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
  if ((sparse.flags & FLAG_COMPRESSED) !== 0 && algorithm !== 1) {
    throw unsafe(source, `its compression algorithm ${algorithm} does not exist`);
  }
  return sparse;
}

async function checkGrains(source: ByteSource, sparse: Sparse): Promise<void> {
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
  const compressed = (sparse.flags & FLAG_COMPRESSED) !== 0;
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
