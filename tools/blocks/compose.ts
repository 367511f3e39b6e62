/**
 * One qcow2 file over stored blocks: a head of tables, then parts of packs as they lie in the store. The order of clusters in the file is
 * free, so packs go in whole; blocks in them that this image does not need are simply not referred to.
 *
 * Format: qemu docs/interop/qcow2.txt, version 3, compression type zstd; every cluster is a compressed one, whose descriptor takes any
 * byte as its start (L2 entry, "Compressed Clusters Descriptor").
 */
import { createHash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { PortError } from '../../core/errors.ts';
import { MIB } from '../../core/sizes.ts';
import { BLOCK_BYTES, type BlockIndex } from '../../core/sync/block-index.ts';
import { readBlock } from './index-disk.ts';
import { CLUSTER_BYTES, packBlock, type StoredBlock, storedBytes } from './pack.ts';
import type { BlockTable } from './table.ts';

/** Swift reads at most one part under 1 MiB per second after the tenth (slo.py, rate_limit_under_size), so parts are not made smaller. */
export const LEAST_PART_BYTES = MIB;

/** A piece of the file: bytes made here, or a range of a pack. */
export type ComposedPart =
  | { kind: 'bytes'; bytes: Buffer }
  | { kind: 'pack'; pack: string; offset: number; length: number };

/** A file, described. */
export interface Composed {
  parts: ComposedPart[];
  totalBytes: number;
  /** Bytes of packs in it that the image does not need. */
  deadBytes: number;
  /** Bytes of packs in it that it does. */
  liveBytes: number;
  virtualBytes: number;
}

const ENTRY_BYTES = 8;
const L2_ENTRIES = CLUSTER_BYTES / ENTRY_BYTES;
const REFCOUNTS_PER_BLOCK = CLUSTER_BYTES / 2;
const SECTOR_BYTES = 512;
/** Bit 63: the table is used once. */
const COPIED = 1n << 63n;
/** Bit 62: a compressed cluster. */
const COMPRESSED = 1n << 62n;
/** Bits for the offset in a compressed descriptor: 62 - (cluster_bits - 8). */
const OFFSET_BITS = 54n;

interface PackRange {
  pack: string;
  offset: number;
  length: number;
}

/** Parts of a pack that hold live blocks; gaps of 1 MiB and more are left out, unless a small part would come of it. */
function rangesOf(blocks: readonly StoredBlock[], isLive: (block: StoredBlock) => boolean): PackRange[] {
  const ranges: PackRange[] = [];
  for (const block of blocks) {
    if (!isLive(block)) continue;
    const end = block.offset + storedBytes(block);
    const last = ranges.at(-1);
    const gap = last === undefined ? Number.POSITIVE_INFINITY : block.offset - (last.offset + last.length);
    if (last !== undefined && (gap < LEAST_PART_BYTES || last.length < LEAST_PART_BYTES))
      last.length = end - last.offset;
    else ranges.push({ pack: block.pack, offset: block.offset, length: end - block.offset });
  }
  const [before, last] = ranges.slice(-2);
  if (before !== undefined && last !== undefined && last.length < LEAST_PART_BYTES) {
    before.length = last.offset + last.length - before.offset;
    ranges.pop();
  }
  return ranges;
}

/** Describes the file. Throws BUG when a block of the disk is not in the table. */
export function compose(index: BlockIndex, table: BlockTable): Composed {
  const { virtualBytes } = index;
  const live = new Map<string, StoredBlock>();
  for (let at = 0; at < index.count; at++) {
    const digest = index.digestAt(at);
    const stored = table.find(digest);
    if (stored === undefined) throw new PortError('BUG', 'a block of the disk was not stored');
    live.set(digest, stored);
  }
  const used = new Set([...live.values()].map((block) => block.pack));
  const ranges: PackRange[] = [];
  for (const [pack, blocks] of table.packs()) {
    if (used.has(pack)) ranges.push(...rangesOf(blocks, (block) => live.get(block.digest) === block));
  }
  const packBytes = ranges.reduce((sum, range) => sum + range.length, 0);
  const liveBytes = [...live.values()].reduce((sum, block) => sum + storedBytes(block), 0);
  const layout = layoutOf(index, packBytes);
  const starts = new Map<string, { range: PackRange; hostBytes: number }[]>();
  let host = layout.headBytes;
  for (const range of ranges) {
    const list = starts.get(range.pack) ?? [];
    starts.set(range.pack, list);
    list.push({ range, hostBytes: host });
    host += range.length;
  }
  const hostOf = ({ pack, offset }: StoredBlock): number => {
    const found = starts
      .get(pack)
      ?.find(({ range }) => offset >= range.offset && offset < range.offset + range.length);
    // A block whose clusters are all zeros has no bytes, and no place.
    return found === undefined ? 0 : found.hostBytes + offset - found.range.offset;
  };
  const head = headOf(index, layout, (digest) => {
    const stored = live.get(digest);
    if (stored === undefined) throw new PortError('BUG', 'a block of the disk was not stored');
    return { hostBytes: hostOf(stored), lengths: stored.lengths };
  });
  const tail = layout.totalBytes - host;
  const parts: ComposedPart[] = [{ kind: 'bytes', bytes: head }];
  for (const range of ranges) if (range.length > 0) parts.push({ kind: 'pack', ...range });
  if (tail > 0) parts.push({ kind: 'bytes', bytes: Buffer.alloc(tail) });
  return { parts, totalBytes: layout.totalBytes, deadBytes: packBytes - liveBytes, liveBytes, virtualBytes };
}

interface Layout {
  refcountBlocks: number;
  l1Entries: number;
  l1Clusters: number;
  /** Numbers of the L2 tables that have entries, ascending. */
  l2Tables: number[];
  headBytes: number;
  totalBytes: number;
}

const L2_BYTES = L2_ENTRIES * CLUSTER_BYTES;

function layoutOf(index: BlockIndex, packBytes: number): Layout {
  const l2Tables = new Set<number>();
  for (const number of index.numbers) l2Tables.add(Math.floor((number * BLOCK_BYTES) / L2_BYTES));
  const l1Entries = Math.max(1, Math.ceil(index.virtualBytes / L2_BYTES));
  const l1Clusters = Math.ceil((l1Entries * ENTRY_BYTES) / CLUSTER_BYTES);
  const packClusters = Math.ceil(packBytes / CLUSTER_BYTES);
  // Refcount blocks count themselves too: a second look is enough, one block covers 2 GiB.
  let refcountBlocks = 1;
  let headClusters = 0;
  for (let look = 0; look < 4; look++) {
    headClusters = 2 + refcountBlocks + l1Clusters + l2Tables.size;
    refcountBlocks = Math.ceil((headClusters + packClusters) / REFCOUNTS_PER_BLOCK);
  }
  headClusters = 2 + refcountBlocks + l1Clusters + l2Tables.size;
  if (refcountBlocks > L2_ENTRIES) throw new PortError('UNSUPPORTED_FORMAT', 'an image of more than 16 TiB');
  return {
    refcountBlocks,
    l1Entries,
    l1Clusters,
    l2Tables: [...l2Tables].sort((a, b) => a - b),
    headBytes: headClusters * CLUSTER_BYTES,
    totalBytes: (headClusters + packClusters) * CLUSTER_BYTES,
  };
}

/** Header, refcount table, refcount blocks, L1 table, L2 tables: one cluster after the other. */
function headOf(
  index: BlockIndex,
  layout: Layout,
  find: (digest: string) => { hostBytes: number; lengths: readonly number[] },
): Buffer {
  const { refcountBlocks, l1Entries, l1Clusters, l2Tables, headBytes, totalBytes } = layout;
  const head = Buffer.alloc(headBytes);
  const refcountTableAt = CLUSTER_BYTES;
  const refcountsAt = 2 * CLUSTER_BYTES;
  const l1At = refcountsAt + refcountBlocks * CLUSTER_BYTES;
  const l2At = l1At + l1Clusters * CLUSTER_BYTES;
  head.write('QFI\u00fb', 0, 'latin1');
  head.writeUInt32BE(3, 4);
  head.writeUInt32BE(16, 20); // cluster_bits
  head.writeBigUInt64BE(BigInt(index.virtualBytes), 24);
  head.writeUInt32BE(l1Entries, 36);
  head.writeBigUInt64BE(BigInt(l1At), 40);
  head.writeBigUInt64BE(BigInt(refcountTableAt), 48);
  head.writeUInt32BE(1, 56); // refcount_table_clusters
  head.writeBigUInt64BE(1n << 3n, 72); // incompatible: compression type
  head.writeUInt32BE(4, 96); // refcount_order: 16 bits
  head.writeUInt32BE(112, 100); // header_length
  head.writeUInt8(1, 104); // compression_type: zstd
  for (let at = 0; at < refcountBlocks; at++)
    head.writeBigUInt64BE(BigInt(refcountsAt + at * CLUSTER_BYTES), refcountTableAt + at * ENTRY_BYTES);
  const refcounts = new Uint32Array(totalBytes / CLUSTER_BYTES);
  refcounts.fill(1, 0, headBytes / CLUSTER_BYTES);
  for (const [at, number] of l2Tables.entries())
    head.writeBigUInt64BE(BigInt(l2At + at * CLUSTER_BYTES) | COPIED, l1At + number * ENTRY_BYTES);
  const tableAt = new Map(l2Tables.map((number, at) => [number, l2At + at * CLUSTER_BYTES]));
  for (let at = 0; at < index.count; at++) {
    const start = (index.numbers[at] ?? 0) * BLOCK_BYTES;
    const table = tableAt.get(Math.floor(start / L2_BYTES)) ?? 0;
    let entryAt = table + ((start % L2_BYTES) / CLUSTER_BYTES) * ENTRY_BYTES;
    let { hostBytes: offset, lengths } = find(index.digestAt(at));
    for (const length of lengths) {
      if (length > 0) {
        const firstSector = Math.floor(offset / SECTOR_BYTES);
        const lastSector = Math.floor((offset + length - 1) / SECTOR_BYTES);
        const more = BigInt(lastSector - firstSector);
        head.writeBigUInt64BE(COMPRESSED | (more << OFFSET_BITS) | BigInt(offset), entryAt);
        const first = Math.floor((firstSector * SECTOR_BYTES) / CLUSTER_BYTES);
        const last = Math.floor((lastSector * SECTOR_BYTES) / CLUSTER_BYTES);
        for (let cluster = first; cluster <= last; cluster++)
          refcounts[cluster] = (refcounts[cluster] ?? 0) + 1;
        offset += length;
      }
      entryAt += ENTRY_BYTES;
    }
  }
  for (const [cluster, count] of refcounts.entries()) {
    if (count > 0xffff) throw new PortError('BUG', 'too many clusters in one');
    head.writeUInt16BE(count, refcountsAt + cluster * 2);
  }
  return head;
}

/** What the composed file is, byte by byte. */
export interface ComposedDigests {
  sha512: string;
  sha256: string;
  bytes: number;
  /** Bytes that had to be asked from the store. */
  fetchedBytes: number;
}

/** Where the bytes of a composed file come from. */
export interface ComposedReader {
  /** The disk as a plain file. */
  handle: FileHandle;
  index: BlockIndex;
  table: BlockTable;
  /** Bytes of a pack as the store has them: blocks this disk has no more, or that another zstd packed. Throws as the store does. */
  fetch: (pack: string, offset: number, length: number) => Promise<Buffer>;
  signal?: AbortSignal | undefined;
}

/**
 * The file as a stream: blocks are read from the disk here and packed again, what differs from the store or is not here is fetched and
 * compared with its digest. Throws DAMAGED when the store gives something else.
 */
export async function* composedStream(
  { parts }: Pick<Composed, 'parts'>,
  reader: ComposedReader,
  onFetched?: (bytes: number) => void,
): AsyncGenerator<Buffer> {
  const { handle, index, table, fetch, signal } = reader;
  const numbers = new Map<string, number>();
  for (let at = 0; at < index.count; at++) numbers.set(index.digestAt(at), index.numbers[at] ?? 0);
  const buffer = Buffer.allocUnsafeSlow(BLOCK_BYTES);
  for (const part of parts) {
    if (part.kind === 'bytes') {
      yield part.bytes;
      continue;
    }
    for (const block of table.packs().get(part.pack) ?? []) {
      if (signal?.aborted) throw new PortError('INTERRUPTED', 'interrupted');
      const length = storedBytes(block);
      if (length === 0 || block.offset < part.offset || block.offset >= part.offset + part.length) continue;
      const number = numbers.get(block.digest);
      if (number !== undefined) {
        const { bytes } = await packBlock(await readBlock(handle, number, buffer, index.virtualBytes));
        if (bytes.length === length && hex(bytes) === block.sha256) {
          yield bytes;
          continue;
        }
      }
      const bytes = await fetch(block.pack, block.offset, length);
      if (bytes.length !== length || hex(bytes) !== block.sha256)
        throw new PortError('DAMAGED', `pack ${block.pack} is not what was stored`, {
          hint: 'remove it from the store; its blocks are sent again',
        });
      onFetched?.(length);
      yield bytes;
    }
  }
}

/** Digests the cloud must find when it reads the composed file. Throws as composedStream. */
export async function composedDigests(
  composed: Pick<Composed, 'parts'>,
  reader: ComposedReader,
): Promise<ComposedDigests> {
  const sha512 = createHash('sha512');
  const sha256 = createHash('sha256');
  let bytes = 0;
  let fetchedBytes = 0;
  for await (const chunk of composedStream(composed, reader, (n) => {
    fetchedBytes += n;
  })) {
    sha512.update(chunk);
    sha256.update(chunk);
    bytes += chunk.length;
  }
  return { sha512: sha512.digest('hex'), sha256: sha256.digest('hex'), bytes, fetchedBytes };
}

function hex(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}
