/** Superblock and group descriptors of ext2, ext3 and ext4. Format: Linux fs/ext4/ext4.h. */
import { printable } from '../../core/text.ts';
import { type ByteSource, damaged, readExact } from '../image-format/reader.ts';
import { crc16, crc32c } from './checksums.ts';
import { uuidText } from './reading.ts';

/** Features whose meaning for free space is known. An unknown one, even a compatible one, makes the file system count whole. */
const KNOWN = {
  compat: 0x1e3f,
  // not: compression (1), journal device (8)
  incompat: 0x3f7d6,
  // not: snapshots (0x80), replica (0x800)
  roCompat: 0x1f77f,
};
const COMPAT_HAS_JOURNAL = 0x4;
const COMPAT_SPARSE_SUPER2 = 0x200;
const INCOMPAT_RECOVER = 0x4;
const INCOMPAT_META_BG = 0x10;
const INCOMPAT_64BIT = 0x80;
const INCOMPAT_CSUM_SEED = 0x2000;
const RO_SPARSE_SUPER = 0x1;
const RO_GDT_CSUM = 0x10;
const RO_BIGALLOC = 0x200;
const RO_METADATA_CSUM = 0x400;
const STATE_VALID = 1;
const STATE_ERRORS = 2;

/** Most groups: 64 TiB of the usual 128 MiB. Memory follows from it. */
const MAX_GROUPS = 512 * 1024;

/** What a superblock says, checked. */
export interface Ext4Layout {
  blockBytes: number;
  blocks: number;
  firstBlock: number;
  blocksPerGroup: number;
  /** Blocks of a cluster, the unit of the bitmaps; 1 without bigalloc. */
  clusterBlocks: number;
  groups: number;
  inodeTableBlocks: number;
  inodesPerGroup: number;
  /** Bytes of an inode. */
  inodeBytes: number;
  descriptorBytes: number;
  reservedDescriptorBlocks: number;
  /** Descriptor blocks from this one on lie in their own groups; infinite when all follow the superblock. */
  firstMetaGroup: number;
  superblockAt: (group: number) => boolean;
  /** How descriptors and bitmaps are summed. */
  checksum: 'none' | 'crc16' | 'crc32c';
  seed: number;
  uuidBytes: Buffer;
  uuid: string;
  label: string;
  /** Why its metadata on disk may be behind what was written. */
  unclean: string | undefined;
}

function isPowerOf(base: number, value: number): boolean {
  let power = base;
  while (power < value) power *= base;
  return power === value;
}

function superblockRule(sb: Buffer, compat: number, roCompat: number): (group: number) => boolean {
  if (compat & COMPAT_SPARSE_SUPER2) {
    const backups = [0, sb.readUInt32LE(0x24c), sb.readUInt32LE(0x250)];
    return (group) => backups.includes(group);
  }
  if (!(roCompat & RO_SPARSE_SUPER)) return () => true;
  return (group) =>
    group <= 1 || (group % 2 === 1 && (isPowerOf(3, group) || isPowerOf(5, group) || isPowerOf(7, group)));
}

function uncleanReason(sb: Buffer, compat: number, incompat: number): string | undefined {
  const state = sb.readUInt16LE(58);
  if (incompat & INCOMPAT_RECOVER) return 'its journal was not played back';
  if (state & STATE_ERRORS) return 'it is marked as having errors';
  if (!(compat & COMPAT_HAS_JOURNAL) && !(state & STATE_VALID)) return 'it was not unmounted cleanly';
  return undefined;
}

/** Reads the superblock. Throws DAMAGED. */
export async function readExt4Layout(part: ByteSource): Promise<Ext4Layout> {
  const sb = await readExact(part, 1024, 1024, 'superblock');
  const dynamic = sb.readUInt32LE(76) >= 1;
  const [compat, incompat, roCompat] = dynamic
    ? [sb.readUInt32LE(92), sb.readUInt32LE(96), sb.readUInt32LE(100)]
    : [0, 0, 0];
  if ((compat & ~KNOWN.compat) | (incompat & ~KNOWN.incompat) | (roCompat & ~KNOWN.roCompat)) {
    throw damaged(part, 'ext4 with features that are not known here');
  }
  const uuidBytes = Buffer.from(sb.subarray(104, 120));
  const summed = (roCompat & RO_METADATA_CSUM) !== 0;
  if (summed && (sb[0x175] !== 1 || crc32c(~0, sb.subarray(0, 1020)) !== sb.readUInt32LE(1020))) {
    throw damaged(part, 'the superblock does not match its checksum');
  }
  const logBlock = sb.readUInt32LE(24);
  if (logBlock > 6) throw damaged(part, 'absurd block size');
  const blockBytes = 1024 << logBlock;
  const wide = (incompat & INCOMPAT_64BIT) !== 0;
  const blocks = sb.readUInt32LE(4) + (wide ? sb.readUInt32LE(0x150) * 2 ** 32 : 0);
  const firstBlock = sb.readUInt32LE(20);
  const blocksPerGroup = sb.readUInt32LE(32);
  const logCluster = sb.readUInt32LE(28);
  const big = (roCompat & RO_BIGALLOC) !== 0;
  const clusterBlocks = big ? 2 ** (logCluster - logBlock) : 1;
  const clustersPerGroup = big ? sb.readUInt32LE(36) : blocksPerGroup;
  if (
    !(blocks > firstBlock && blocks * blockBytes <= part.sizeBytes) ||
    firstBlock !== (blockBytes === 1024 && !big ? 1 : 0) ||
    clusterBlocks < 1 ||
    clusterBlocks > 65536 ||
    clustersPerGroup < 8 ||
    clustersPerGroup > blockBytes * 8 ||
    clustersPerGroup % 8 !== 0 ||
    clustersPerGroup * clusterBlocks !== blocksPerGroup
  ) {
    throw damaged(part, 'the sizes in its superblock contradict each other');
  }
  const groups = Math.ceil((blocks - firstBlock) / blocksPerGroup);
  const inodeBytes = dynamic ? sb.readUInt16LE(88) : 128;
  const descriptorBytes = wide ? sb.readUInt16LE(254) : 32;
  const inodeTableBlocks = Math.ceil((sb.readUInt32LE(40) * inodeBytes) / blockBytes);
  if (
    groups > MAX_GROUPS ||
    inodeTableBlocks < 1 ||
    inodeTableBlocks > blocksPerGroup ||
    descriptorBytes < (wide ? 64 : 32) ||
    descriptorBytes > blockBytes ||
    blockBytes % descriptorBytes !== 0
  ) {
    throw damaged(part, 'the sizes in its superblock contradict each other');
  }
  const seed = incompat & INCOMPAT_CSUM_SEED ? sb.readUInt32LE(0x270) : crc32c(~0, uuidBytes);
  return {
    blockBytes,
    blocks,
    firstBlock,
    blocksPerGroup,
    clusterBlocks,
    groups,
    inodeTableBlocks,
    inodesPerGroup: sb.readUInt32LE(40),
    inodeBytes,
    descriptorBytes,
    reservedDescriptorBlocks: sb.readUInt16LE(206),
    firstMetaGroup: incompat & INCOMPAT_META_BG ? sb.readUInt32LE(260) : Number.POSITIVE_INFINITY,
    superblockAt: superblockRule(sb, compat, roCompat),
    checksum: summed ? 'crc32c' : roCompat & RO_GDT_CSUM ? 'crc16' : 'none',
    seed,
    uuidBytes,
    uuid: uuidText(uuidBytes),
    label: printable(sb.toString('utf8', 120, 136).replace(/\0.*$/s, '')),
    unclean: uncleanReason(sb, compat, incompat),
  };
}

/** Descriptors in one block. */
export function descriptorsPerBlock(fs: Ext4Layout): number {
  return fs.blockBytes / fs.descriptorBytes;
}

/** Block of the filesystem that holds descriptor block `index` (ext4's `descriptor_loc`). */
export function descriptorBlock(fs: Ext4Layout, index: number): number {
  const superblock = fs.blockBytes === 1024 ? 1 : 0;
  if (index < fs.firstMetaGroup) return superblock + 1 + index;
  const group = index * descriptorsPerBlock(fs);
  const before = fs.superblockAt(group) ? 1 : 0;
  // with blocks of 1 KiB and bigalloc the superblock of group 0 stands in block 1, not 0
  const moved = index === 0 && fs.blockBytes === 1024 && fs.firstBlock === 0 ? 1 : 0;
  return fs.firstBlock + group * fs.blocksPerGroup + before + moved;
}

/** Blocks at the start of a group that hold superblock and descriptors (ext4's `ext4_num_base_meta_blocks`). */
export function baseBlocks(fs: Ext4Layout, group: number): number {
  const perBlock = descriptorsPerBlock(fs);
  const copy = fs.superblockAt(group) ? 1 : 0;
  if (group < fs.firstMetaGroup * perBlock) {
    if (copy === 0) return 0;
    const all = Math.ceil(fs.groups / perBlock);
    return copy + Math.min(fs.firstMetaGroup, all) + fs.reservedDescriptorBlocks;
  }
  const place = group % perBlock;
  return copy + (place <= 1 || place === perBlock - 1 ? 1 : 0);
}

/** One group, as its descriptor tells. */
export interface Ext4Group {
  blockBitmap: number;
  inodeBitmap: number;
  inodeTable: number;
  freeClusters: number;
  /** Inodes at the end of the table that were never used; 0 where descriptors have no checksum that vouches for it. */
  unusedInodes: number;
  /** The bitmap was never written: what is in use follows from the layout. */
  uninitialised: boolean;
  /** Checksum of the bitmap; undefined when there is none. */
  bitmapChecksum: number | undefined;
}

const FLAG_BLOCK_UNINIT = 2;

/** Reads one descriptor; undefined when it does not match its checksum. */
export function parseDescriptor(fs: Ext4Layout, data: Buffer, group: number): Ext4Group | undefined {
  const wide = fs.descriptorBytes >= 64;
  const number = Buffer.alloc(4);
  number.writeUInt32LE(group);
  const stored = data.readUInt16LE(0x1e);
  const head = data.subarray(0, 0x1e);
  if (fs.checksum === 'crc32c') {
    const before = crc32c(crc32c(fs.seed, number), head);
    const after = crc32c(before, Buffer.alloc(2));
    if ((crc32c(after, data.subarray(0x20, fs.descriptorBytes)) & 0xffff) !== stored) return undefined;
  } else if (fs.checksum === 'crc16') {
    const before = crc16(crc16(crc16(0xffff, fs.uuidBytes), number), head);
    if (crc16(before, data.subarray(0x20, fs.descriptorBytes)) !== stored) return undefined;
  }
  const high = (at: number): number => (wide ? data.readUInt32LE(at) * 2 ** 32 : 0);
  const high16 = (at: number): number => (wide ? data.readUInt16LE(at) * 65536 : 0);
  return {
    blockBitmap: data.readUInt32LE(0) + high(0x20),
    inodeBitmap: data.readUInt32LE(4) + high(0x24),
    inodeTable: data.readUInt32LE(8) + high(0x28),
    freeClusters: data.readUInt16LE(12) + high16(0x2c),
    unusedInodes: fs.checksum === 'none' ? 0 : data.readUInt16LE(0x1c) + high16(0x32),
    uninitialised: fs.checksum !== 'none' && (data.readUInt16LE(18) & FLAG_BLOCK_UNINIT) !== 0,
    bitmapChecksum: fs.checksum === 'crc32c' ? data.readUInt16LE(0x18) + high16(0x38) : undefined,
  };
}
