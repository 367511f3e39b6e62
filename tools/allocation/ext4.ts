/** Free space of ext2, ext3 and ext4: the block bitmaps, checked against counts, checksums and the layout. */
import type { ByteRange } from '../../core/disk-source.ts';
import { MIB } from '../../core/sizes.ts';
import { type ByteSource, damaged, readExact } from '../image-format/reader.ts';
import { crc32c } from './checksums.ts';
import {
  baseBlocks,
  descriptorBlock,
  descriptorsPerBlock,
  type Ext4Group,
  type Ext4Layout,
  parseDescriptor,
  readExt4Layout,
} from './ext4-layout.ts';
import { FreeSpace } from './free-space.ts';
import { inFlight } from './reading.ts';
import type { DiskState, Found } from './types.ts';

/** Bitmaps at most this far from each other are read at once: less than a round trip's worth of bytes lies between. */
const READ_GAP_BYTES = 128 * 1024;

/** Groups worked on at a time: their descriptors are what memory holds. */
const BATCH_GROUPS = 8192;

interface Scan {
  part: ByteSource;
  fs: Ext4Layout;
  state: DiskState;
  free: FreeSpace;
  /** Bitmaps and inode tables of all groups, by start, merged where they touch. */
  metadata: ByteRange[];
  /** Ends of inode tables that were never used: in use by the bitmaps, but nothing of them is ever read before it is written. */
  unused: ByteRange[];
  /** Groups that count whole because they were caught in the middle of a change. */
  doubtful: number;
}

/** The group cannot be trusted: on a disk in use it was caught in a change and counts whole, elsewhere all does. */
function doubt(scan: Scan, group: number, why: string): void {
  if (scan.state !== 'live') throw damaged(scan.part, `group ${group}: ${why}`);
  scan.doubtful += 1;
}

/** Descriptors of some groups. */
async function readGroups(scan: Scan, first: number, count: number): Promise<(Ext4Group | undefined)[]> {
  const { fs, part } = scan;
  const perBlock = descriptorsPerBlock(fs);
  const runs: { block: number; blocks: number; index: number }[] = [];
  for (let index = Math.floor(first / perBlock); index * perBlock < first + count; index++) {
    const block = descriptorBlock(fs, index);
    const last = runs.at(-1);
    if (last && last.block + last.blocks === block && (last.blocks + 1) * fs.blockBytes <= MIB) last.blocks++;
    else runs.push({ block, blocks: 1, index });
  }
  const groups: (Ext4Group | undefined)[] = Array.from({ length: count });
  await inFlight(runs, async (run) => {
    const data = await readExact(
      part,
      run.block * fs.blockBytes,
      run.blocks * fs.blockBytes,
      'group descriptors',
    );
    for (let i = 0; i < run.blocks * perBlock; i++) {
      const group = run.index * perBlock + i;
      if (group < first || group >= first + count) continue;
      groups[group - first] = parseDescriptor(fs, data.subarray(i * fs.descriptorBytes), group);
    }
  });
  return groups;
}

function insideOf(fs: Ext4Layout, block: number, blocks = 1): boolean {
  return block >= fs.firstBlock && block + blocks <= fs.blocks;
}

/** Clusters of a group; the last group may be short. */
function clustersOf(fs: Ext4Layout, group: number): number {
  const blocks = Math.min(fs.blocksPerGroup, fs.blocks - fs.firstBlock - group * fs.blocksPerGroup);
  return Math.ceil(blocks / fs.clusterBlocks);
}

/** The bitmap a group has before its first use: what the layout puts there (ext4's `ext4_init_block_bitmap`). */
function initialBitmap(fs: Ext4Layout, group: number, own: Ext4Group): Buffer {
  const start = fs.firstBlock + group * fs.blocksPerGroup;
  const bitmap = Buffer.alloc(Math.ceil(clustersOf(fs, group) / 8));
  const mark = (block: number, blocks: number): void => {
    for (let at = Math.max(block, start); at < Math.min(block + blocks, start + fs.blocksPerGroup); at++) {
      const bit = Math.floor((at - start) / fs.clusterBlocks);
      if (bit >> 3 < bitmap.length) bitmap[bit >> 3] = (bitmap[bit >> 3] as number) | (1 << (bit & 7));
    }
  };
  // with blocks of 1 KiB and bigalloc everything of group 0 is moved by one
  mark(start, baseBlocks(fs, group) + (group === 0 && fs.blockBytes === 1024 && fs.firstBlock === 0 ? 1 : 0));
  mark(own.blockBitmap, 1);
  mark(own.inodeBitmap, 1);
  mark(own.inodeTable, fs.inodeTableBlocks);
  return bitmap;
}

/** Adds the free runs of one bitmap; its checksum and its count must be right. */
function takeBitmap(scan: Scan, group: number, own: Ext4Group, bitmap: Buffer): void {
  const { fs, free } = scan;
  if (own.bitmapChecksum !== undefined && !own.uninitialised) {
    const summed = bitmap.subarray(0, fs.blocksPerGroup / fs.clusterBlocks / 8);
    const mask = fs.descriptorBytes >= 64 ? 0xffffffff : 0xffff;
    if ((crc32c(fs.seed, summed) & mask) >>> 0 !== own.bitmapChecksum) {
      doubt(scan, group, 'the block bitmap does not match its checksum');
      return;
    }
  }
  const clusters = clustersOf(fs, group);
  const runs: number[] = [];
  let count = 0;
  let at = 0;
  const isUsed = (bit: number): boolean => ((bitmap[bit >> 3] as number) & (1 << (bit & 7))) !== 0;
  while (at < clusters) {
    // whole bytes at once where all is used or all is free
    while (at < clusters && (at & 7) === 0 && bitmap[at >> 3] === 0xff) at += 8;
    if (at >= clusters) break;
    if (isUsed(at)) {
      at++;
      continue;
    }
    const start = at;
    while (at < clusters && ((at & 7) === 0 && bitmap[at >> 3] === 0 ? true : !isUsed(at))) {
      at += (at & 7) === 0 && bitmap[at >> 3] === 0 ? 8 : 1;
    }
    at = Math.min(at, clusters);
    runs.push(start, at - start);
    count += at - start;
  }
  if (count !== own.freeClusters) {
    doubt(scan, group, `${count} blocks are free in its bitmap, ${own.freeClusters} in its descriptor`);
    return;
  }
  const groupStart = fs.firstBlock + group * fs.blocksPerGroup;
  for (let i = 0; i < runs.length; i += 2) {
    const start = groupStart + (runs[i] as number) * fs.clusterBlocks;
    const end = Math.min(start + (runs[i + 1] as number) * fs.clusterBlocks, fs.blocks);
    free.add(start * fs.blockBytes, (end - start) * fs.blockBytes);
  }
}

function remember(scan: Scan, block: number, blocks: number): void {
  const { blockBytes } = scan.fs;
  const last = scan.metadata.at(-1);
  const startBytes = block * blockBytes;
  if (last && last.startBytes + last.lengthBytes === startBytes) last.lengthBytes += blocks * blockBytes;
  else scan.metadata.push({ startBytes, lengthBytes: blocks * blockBytes });
}

/**
 * What lies behind the last inode that was ever used (bg_itable_unused): the kernel and e2fsck take it for zeros, whether it was
 * zeroed or not. Without this a large file system that holds little costs its inode tables: 1.6 % of its size.
 */
function rememberUnused(scan: Scan, group: number, own: Ext4Group): void {
  const { fs } = scan;
  if (own.unusedInodes > fs.inodesPerGroup) {
    doubt(scan, group, 'more inodes are unused than there are');
    return;
  }
  const usedBlocks = Math.ceil(((fs.inodesPerGroup - own.unusedInodes) * fs.inodeBytes) / fs.blockBytes);
  const blocks = fs.inodeTableBlocks - usedBlocks;
  if (blocks <= 0) return;
  const startBytes = (own.inodeTable + usedBlocks) * fs.blockBytes;
  scan.unused.push({ startBytes, lengthBytes: blocks * fs.blockBytes });
}

async function scanBatch(scan: Scan, first: number, count: number): Promise<void> {
  const { fs, part } = scan;
  const groups = await readGroups(scan, first, count);
  const reads: { group: number; own: Ext4Group }[] = [];
  for (const [i, own] of groups.entries()) {
    const group = first + i;
    if (
      own === undefined ||
      !insideOf(fs, own.blockBitmap) ||
      !insideOf(fs, own.inodeBitmap) ||
      !insideOf(fs, own.inodeTable, fs.inodeTableBlocks)
    ) {
      doubt(scan, group, 'its descriptor is not valid');
      continue;
    }
    remember(scan, own.blockBitmap, 1);
    remember(scan, own.inodeBitmap, 1);
    remember(scan, own.inodeTable, fs.inodeTableBlocks);
    rememberUnused(scan, group, own);
    if (own.uninitialised) takeBitmap(scan, group, own, initialBitmap(fs, group, own));
    else reads.push({ group, own });
  }
  reads.sort((a, b) => a.own.blockBitmap - b.own.blockBitmap);
  await inFlight(neighbours(reads, fs), async (run) => {
    const start = (run[0]?.own.blockBitmap ?? 0) * fs.blockBytes;
    const end = ((run.at(-1)?.own.blockBitmap ?? 0) + 1) * fs.blockBytes;
    const data = await readExact(part, start, end - start, 'block bitmaps');
    for (const { group, own } of run) {
      const at = own.blockBitmap * fs.blockBytes - start;
      takeBitmap(scan, group, own, data.subarray(at, at + fs.blockBytes));
    }
  });
}

/** Puts bitmaps that lie close together into one read. */
function* neighbours<T extends { own: Ext4Group }>(sorted: readonly T[], fs: Ext4Layout): Generator<T[]> {
  let run: T[] = [];
  for (const item of sorted) {
    const from = run[0]?.own.blockBitmap ?? item.own.blockBitmap;
    const before = run.at(-1)?.own.blockBitmap ?? from;
    const near = (item.own.blockBitmap - before) * fs.blockBytes <= READ_GAP_BYTES;
    if (run.length > 0 && (!near || (item.own.blockBitmap + 1 - from) * fs.blockBytes > MIB)) {
      yield run;
      run = [];
    }
    run.push(item);
  }
  if (run.length > 0) yield run;
}

/** Finds what is free in an ext2, ext3 or ext4. Throws DAMAGED for what is not consistent or not known. */
export async function parseExt4(part: ByteSource, state: DiskState): Promise<Found> {
  const fs = await readExt4Layout(part);
  if (fs.unclean !== undefined && state !== 'live') throw damaged(part, fs.unclean);
  const scan: Scan = { part, fs, state, free: new FreeSpace(), metadata: [], unused: [], doubtful: 0 };
  for (let first = 0; first < fs.groups; first += BATCH_GROUPS) {
    await scanBatch(scan, first, Math.min(BATCH_GROUPS, fs.groups - first));
  }
  // superblock copies, descriptors, bitmaps and inode tables must be in use whatever the bitmaps say
  for (let index = 0; index < Math.ceil(fs.groups / descriptorsPerBlock(fs)); index++) {
    remember(scan, descriptorBlock(fs, index), 1);
  }
  remember(scan, 0, fs.firstBlock + 1);
  scan.metadata.sort((a, b) => a.startBytes - b.startBytes);
  if (scan.free.overlaps(scan.metadata)) throw damaged(part, 'its bitmaps call its own metadata free');
  for (const { startBytes, lengthBytes } of scan.unused) scan.free.add(startBytes, lengthBytes);
  const note = scan.doubtful > 0 ? `${scan.doubtful} groups were being changed and count whole` : undefined;
  return {
    free: scan.free,
    parts: [
      {
        startBytes: 0,
        sizeBytes: part.sizeBytes,
        kind: 'ext4',
        ...(fs.label === '' ? {} : { label: fs.label }),
        uuid: fs.uuid,
        allocatedBytes: part.sizeBytes - scan.free.bytes,
        how: 'bitmap',
        ...(note === undefined ? {} : { note }),
      },
    ],
  };
}
