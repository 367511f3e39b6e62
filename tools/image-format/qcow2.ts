/** qcow2 versions 2 and 3, after docs/interop/qcow2.txt of QEMU. */
import { PortError } from '../../core/errors.ts';
import { printableBytes } from '../../core/text.ts';
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
  u64be,
  unsafe,
} from './reader.ts';

/** QEMU's own limits: QCOW_MAX_L1_SIZE, QCOW_MAX_REFTABLE_SIZE, QCOW_MAX_SNAPSHOTS. */
const MAX_L1_BYTES = 32 * 1024 * 1024;
const MAX_REFTABLE_BYTES = 8 * 1024 * 1024;
const MAX_SNAPSHOTS = 65_536;

const DIRTY = 1;
const CORRUPT = 2;
const DATA_FILE = 4;
const EXTENDED_L2 = 16;
/** Dirty, corrupt, data file, compression type, extended L2. */
const KNOWN_INCOMPATIBLE = 31;

const EXTENSION_DATA_FILE = 0x44415441;
const EXTENSION_LUKS = 0x0537be77;

interface Header {
  version: number;
  clusterBytes: number;
  clusterBits: number;
  virtualBytes: number;
  incompatible: number;
  l1Entries: number;
  l1Offset: number;
  headerBytes: number;
}

/** Checks header, tables and every cluster's place. Throws what the gate refuses. */
export async function inspectQcow2(source: ByteSource): Promise<HeaderFacts> {
  const data = await readExact(source, 0, 104, 'the header').catch(async () =>
    Buffer.concat([await readExact(source, 0, 72, 'the header'), Buffer.alloc(32)]),
  );
  const header = parseHeader(source, data);
  await refuseReferences(source, data, header);
  checkTables(source, data, header);
  await checkRefcountBlocks(source, data, header);
  await checkClusters(source, header);
  return { virtualBytes: Math.ceil(header.virtualBytes / 512) * 512 };
}

function parseHeader(source: ByteSource, data: Buffer): Header {
  const version = data.readUInt32BE(4);
  if (version !== 2 && version !== 3) throw unsafe(source, `qcow2 version ${version} does not exist`);
  const clusterBits = data.readUInt32BE(20);
  if (clusterBits < 9 || clusterBits > 21) throw unsafe(source, `its clusters are 2^${clusterBits} bytes`);
  const virtualBytes = u64be(data, 24);
  requireSaneSize(source, virtualBytes);
  const incompatible = version === 3 ? data.readUInt32BE(76) : 0;
  if (version === 3 && (data.readUInt32BE(72) !== 0 || (incompatible & ~KNOWN_INCOMPATIBLE) !== 0)) {
    throw unsafe(source, 'it needs qcow2 features nobody knows (unknown incompatible bits)');
  }
  const headerBytes = version === 3 ? data.readUInt32BE(100) : 72;
  if (headerBytes < 72 || headerBytes > 2 ** clusterBits) {
    throw unsafe(source, `its header claims ${headerBytes} bytes`);
  }
  return {
    version,
    clusterBytes: 2 ** clusterBits,
    clusterBits,
    virtualBytes,
    incompatible,
    l1Entries: data.readUInt32BE(36),
    l1Offset: u64be(data, 40),
    headerBytes,
  };
}

async function refuseReferences(source: ByteSource, data: Buffer, header: Header): Promise<void> {
  const backingOffset = u64be(data, 8);
  if (backingOffset !== 0) {
    const length = Math.min(data.readUInt32BE(16), 1023);
    const reference = Number.isFinite(backingOffset)
      ? await source.read(backingOffset, length)
      : Buffer.alloc(0);
    throw outside(source, 'backing file', reference);
  }
  const extensions = await readExtensions(source, header);
  if ((header.incompatible & DATA_FILE) !== 0 || extensions.dataFile) {
    throw outside(source, 'external data file', extensions.dataFile ?? Buffer.alloc(0));
  }
  if (data.readUInt32BE(32) !== 0 || extensions.luks) {
    throw new PortError('ENCRYPTED', `${source.name} is an encrypted qcow2 image`, {
      hint: 'decrypt it first: qemu-img convert with --object secret and --image-opts',
    });
  }
}

function outside(source: ByteSource, kind: string, reference: Buffer): PortError {
  const named = reference.length > 0 ? `: ${printableBytes(reference)}` : '';
  return new PortError('OUTSIDE_REFERENCE', `${source.name} refers to a ${kind}${named} (not opened)`, {
    hint: 'if that file is yours, make one image first: qemu-img convert -O qcow2; if this is a raw disk, its guest wrote that header',
  });
}

/** Walks the header extensions of the first cluster. */
async function readExtensions(
  source: ByteSource,
  header: Header,
): Promise<{ dataFile: Buffer | undefined; luks: boolean }> {
  const cluster = await source.read(0, Math.min(header.clusterBytes, 1024 * 1024));
  const found = { dataFile: undefined as Buffer | undefined, luks: false };
  for (let at = header.headerBytes; at + 8 <= cluster.length; ) {
    const type = cluster.readUInt32BE(at);
    const length = cluster.readUInt32BE(at + 4);
    if (type === 0) break;
    if (length > cluster.length - at - 8)
      throw damaged(source, 'a header extension is longer than the header');
    if (type === EXTENSION_DATA_FILE)
      found.dataFile = cluster.subarray(at + 8, at + 8 + Math.min(length, 1023));
    if (type === EXTENSION_LUKS) found.luks = true;
    at += 8 + Math.ceil(length / 8) * 8;
  }
  return found;
}

function checkTables(source: ByteSource, data: Buffer, header: Header): void {
  if ((header.incompatible & CORRUPT) !== 0) throw damaged(source, 'it is marked corrupt');
  if ((header.incompatible & DIRTY) !== 0) {
    throw new PortError('DAMAGED', `${source.name} was not closed cleanly (dirty bit)`, {
      hint: 'shut its virtual machine down, or repair a copy with qemu-img check -r all',
    });
  }
  if (header.version === 3 && data.readUInt32BE(96) > 6)
    throw unsafe(source, 'its refcounts are wider than 64 bits');
  const aligned = (offset: number) => offset % header.clusterBytes === 0;
  if (header.l1Entries * 8 > MAX_L1_BYTES)
    throw unsafe(source, `its L1 table claims ${header.l1Entries} entries`);
  if (!aligned(header.l1Offset)) throw damaged(source, 'its L1 table is misplaced');
  requireInside(source, header.l1Offset, header.l1Entries * 8, 'the L1 table');
  const tableOffset = u64be(data, 48);
  const tableBytes = data.readUInt32BE(56) * header.clusterBytes;
  if (tableBytes > MAX_REFTABLE_BYTES) throw unsafe(source, `its refcount table claims ${tableBytes} bytes`);
  if (tableBytes === 0 || tableOffset === 0 || !aligned(tableOffset)) {
    throw damaged(source, 'its refcount table is misplaced');
  }
  requireInside(source, tableOffset, tableBytes, 'the refcount table');
  const snapshots = data.readUInt32BE(60);
  if (snapshots > MAX_SNAPSHOTS) throw unsafe(source, `it claims ${snapshots} snapshots`);
  if (snapshots > 0) requireInside(source, u64be(data, 64), snapshots * 40, 'the snapshot table');
}

async function checkRefcountBlocks(source: ByteSource, data: Buffer, header: Header): Promise<void> {
  const entries = (data.readUInt32BE(56) * header.clusterBytes) / 8;
  const table = { offset: u64be(data, 48), entries, entryBytes: 8, what: 'the refcount table' };
  await eachEntry(source, table, (piece, at) => {
    const offset = u64be(piece, at);
    if (offset !== 0) requireInside(source, offset, header.clusterBytes, 'a refcount block');
  });
}

/** Every cluster a guest could read must lie in the file: QEMU itself reads zeros where a truncated file ends. */
async function checkClusters(source: ByteSource, header: Header): Promise<void> {
  const { clusterBytes } = header;
  const entryBytes = (header.incompatible & EXTENDED_L2) !== 0 ? 16 : 8;
  const perTable = clusterBytes / entryBytes;
  const needed = Math.ceil(header.virtualBytes / (clusterBytes * perTable));
  if (header.l1Entries < needed) throw damaged(source, 'its L1 table is too short for the disk');
  // memory stays flat: at most 4 Mi offsets of L2 tables
  const tables: number[] = [];
  const numbers: number[] = [];
  const l1 = { offset: header.l1Offset, entries: needed, entryBytes: 8, what: 'the L1 table' };
  await eachEntry(source, l1, (data, at, index) => {
    const offset = entryOffset(data, at);
    if (offset === 0) return;
    if (offset % clusterBytes !== 0) throw damaged(source, 'an L2 table is misplaced');
    requireInside(source, offset, clusterBytes, 'an L2 table');
    tables.push(offset);
    numbers.push(index);
  });
  // tables cannot share clusters, so honest ones fit in the file; this also bounds the time
  if (tables.length * clusterBytes > source.sizeBytes) throw damaged(source, 'its L2 tables overlap');
  if (tables.length > MAX_TABLES) throw unsafe(source, `it has more than ${MAX_TABLES} L2 tables`);
  for (const [i, offset] of tables.entries()) {
    const firstCluster = (numbers[i] ?? 0) * perTable;
    const l2 = { offset, entries: perTable, entryBytes, what: 'an L2 table' };
    await eachEntry(source, l2, (data, at, index) => {
      const guestOffset = (firstCluster + index) * clusterBytes;
      if (guestOffset < header.virtualBytes) checkCluster(source, header, data, at, guestOffset);
    });
  }
}

/** Bits 9 to 55 of an L1 or standard L2 entry. */
function entryOffset(data: Buffer, at: number): number {
  const low = data.readUInt32BE(at + 4);
  return (data.readUInt32BE(at) & 0x00ff_ffff) * 0x1_0000_0000 + (low - (low % 512));
}

function checkCluster(
  source: ByteSource,
  header: Header,
  data: Buffer,
  at: number,
  guestOffset: number,
): void {
  const high = data.readUInt32BE(at);
  const low = data.readUInt32BE(at + 4);
  if (high === 0 && low === 0) return;
  if ((high & 0x4000_0000) !== 0) {
    const bits = 62 - (header.clusterBits - 8) - 32;
    const offset = (high & (2 ** bits - 1)) * 0x1_0000_0000 + low;
    const sectors = ((high >>> bits) & (2 ** (30 - bits) - 1)) + 1;
    // the last sector may be cut where the file ends
    const end = Math.floor(offset / 512) * 512 + sectors * 512;
    if (end > Math.ceil(source.sizeBytes / 512) * 512) throw truncated(source, `data at ${guestOffset}`);
    return;
  }
  const offset = entryOffset(data, at);
  if (offset === 0) return;
  if (offset % header.clusterBytes !== 0) throw damaged(source, `the cluster at ${guestOffset} is misplaced`);
  const bytes = Math.min(storedBytes(header, data, at), header.virtualBytes - guestOffset);
  if (offset + bytes > source.sizeBytes) throw truncated(source, `data at ${guestOffset}`);
}

/** Bytes of a cluster that must be there: with subclusters, up to the last one allocated. */
function storedBytes(header: Header, data: Buffer, at: number): number {
  if ((header.incompatible & EXTENDED_L2) === 0) return header.clusterBytes;
  const last = 32 - Math.clz32(data.readUInt32BE(at + 12));
  return (header.clusterBytes / 32) * last;
}
