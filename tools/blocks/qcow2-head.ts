/**
 * The head of a composed qcow2: header, refcounts, L1 and L2 tables for clusters that lie behind it.
 *
 * Format: qemu docs/interop/qcow2.txt, version 3, compression type zstd; every cluster is a compressed one, whose descriptor takes any
 * byte as its start (L2 entry, "Compressed Clusters Descriptor").
 */
import { PortError } from '../../core/errors.ts';
import { BLOCK_BYTES, type BlockIndex } from '../../core/sync/block-index.ts';
import { CLUSTER_BYTES } from './pack.ts';

const ENTRY_BYTES = 8;
const L2_ENTRIES = CLUSTER_BYTES / ENTRY_BYTES;
const L2_BYTES = L2_ENTRIES * CLUSTER_BYTES;
const SECTOR_BYTES = 512;
/** Bit 63: the table is used once. */
const COPIED = 1n << 63n;
/** Bit 62: a compressed cluster. */
const COMPRESSED = 1n << 62n;
/** Bits for the offset in a compressed descriptor: 62 - (cluster_bits - 8). */
const OFFSET_BITS = 54n;

/** Where things are in the file. */
export interface Layout {
  refcountBytes: 2 | 4;
  refcountBlocks: number;
  l1Entries: number;
  l1Clusters: number;
  /** Numbers of the L2 tables that have entries, ascending. */
  l2Tables: number[];
  headBytes: number;
  totalBytes: number;
}

/** How large the head is for a disk whose packs take `packBytes`. Throws UNSUPPORTED_FORMAT past what one refcount table covers. */
export function layoutOf(index: BlockIndex, packBytes: number, refcountBytes: 2 | 4): Layout {
  const perBlock = CLUSTER_BYTES / refcountBytes;
  const l2Tables = new Set<number>();
  for (const number of index.numbers) l2Tables.add(Math.floor((number * BLOCK_BYTES) / L2_BYTES));
  const l1Entries = Math.max(1, Math.ceil(index.virtualBytes / L2_BYTES));
  const l1Clusters = Math.ceil((l1Entries * ENTRY_BYTES) / CLUSTER_BYTES);
  const packClusters = Math.ceil(packBytes / CLUSTER_BYTES);
  const clustersWith = (refcountBlocks: number): number => 2 + refcountBlocks + l1Clusters + l2Tables.size;
  // Refcount blocks count themselves too.
  let refcountBlocks = 1;
  while (refcountBlocks * perBlock < clustersWith(refcountBlocks) + packClusters) refcountBlocks++;
  if (refcountBlocks > L2_ENTRIES)
    throw new PortError('UNSUPPORTED_FORMAT', `an image of more than ${refcountBytes === 2 ? 16 : 8} TiB`);
  const headClusters = clustersWith(refcountBlocks);
  return {
    refcountBytes,
    refcountBlocks,
    l1Entries,
    l1Clusters,
    l2Tables: [...l2Tables].sort((a, b) => a - b),
    headBytes: headClusters * CLUSTER_BYTES,
    totalBytes: (headClusters + packClusters) * CLUSTER_BYTES,
  };
}

/** Bytes of the head; undefined when more clusters share one than its refcounts can tell. `find` says where a block's frames lie. */
export function headOf(
  index: BlockIndex,
  layout: Layout,
  find: (digest: string) => { hostBytes: number; lengths: readonly number[] },
): Buffer | undefined {
  const { refcountBytes, refcountBlocks, l1Entries, l1Clusters, l2Tables, headBytes, totalBytes } = layout;
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
  head.writeUInt32BE(refcountBytes === 2 ? 4 : 5, 96); // refcount_order: 16 or 32 bits
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
    if (refcountBytes === 4) head.writeUInt32BE(count, refcountsAt + cluster * 4);
    else if (count > 0xffff) return undefined;
    else head.writeUInt16BE(count, refcountsAt + cluster * 2);
  }
  return head;
}
