/** Superblock and chunks of btrfs. Format: Linux include/uapi/linux/btrfs_tree.h. */
import { printable } from '../../core/text.ts';
import { type ByteSource, damaged, readExact, u64le } from '../image-format/reader.ts';
import { crc32c } from './checksums.ts';
import { uuidText } from './reading.ts';

/** Where copies of the superblock stand. */
export const SUPERBLOCKS = [64 * 1024, 64 * 1024 ** 2, 256 * 1024 ** 3] as const;
const SUPERBLOCK_BYTES = 4096;

/** Not: RAID 5 and 6 (0x80), RAID 1 of three and four (0x800), zones, extent tree 2, RAID stripe tree. */
const KNOWN_INCOMPAT = 0x1077f;
/** Free space tree and that it is valid, verity, block group tree. */
const KNOWN_RO_COMPAT = 0xf;
const INCOMPAT_METADATA_UUID = 0x400;
const FLAG_WRITTEN = 1;
/** Data, system, metadata. */
const TYPE_BITS = 0x7;
/** Two copies on one device: the only profile understood beside single. */
const PROFILE_DUP = 0x20;

/** A run of logical addresses and where its one or two copies stand. */
export interface BtrfsChunk {
  logical: number;
  lengthBytes: number;
  /** Offsets on the device. */
  copies: number[];
}

/** What a superblock says, checked. */
export interface BtrfsLayout {
  generation: number;
  root: number;
  rootLevel: number;
  chunkRoot: number;
  chunkRootLevel: number;
  nodeBytes: number;
  sectorBytes: number;
  /** What the file system has of its device. */
  deviceBytes: number;
  deviceId: number;
  /** Sum of all extents. */
  usedBytes: number;
  /** What is written into each node. */
  metadataUuid: Buffer;
  uuid: string;
  label: string;
  /** A log of fsync waits to be played back: it holds extents the trees do not know. */
  hasLog: boolean;
  /** Chunks the chunk tree itself lies in. */
  systemChunks: BtrfsChunk[];
}

/** True when the checksum at the start of the block is right. */
export function isBtrfsSumRight(data: Buffer): boolean {
  return ~crc32c(~0, data.subarray(32)) >>> 0 === data.readUInt32LE(0);
}

/** Reads a chunk of `logical`; returns it and its length in `data`. Throws DAMAGED. */
export function parseChunk(
  part: ByteSource,
  fs: { deviceId: number; deviceBytes: number; sectorBytes: number },
  data: Buffer,
  logical: number,
): { chunk: BtrfsChunk; itemBytes: number } {
  const wrong = (): Error => damaged(part, 'a chunk makes no sense, or is of a kind that is not known here');
  if (data.length < 80) throw wrong();
  const lengthBytes = u64le(data, 0);
  const profile = u64le(data, 24) - (data.readUInt32LE(24) & TYPE_BITS);
  const stripes = data.readUInt16LE(44);
  if (stripes !== (profile === PROFILE_DUP ? 2 : 1) || (profile !== 0 && profile !== PROFILE_DUP))
    throw wrong();
  if (data.length < 48 + stripes * 32) throw wrong();
  const copies: number[] = [];
  for (let i = 0; i < stripes; i++) {
    if (u64le(data, 48 + i * 32) !== fs.deviceId) throw wrong();
    copies.push(u64le(data, 56 + i * 32));
  }
  const aligned = [logical, lengthBytes, ...copies].every((value) => value % fs.sectorBytes === 0);
  const inside = copies.every((at) => at + lengthBytes <= fs.deviceBytes);
  if (!aligned || lengthBytes === 0 || !inside || !Number.isSafeInteger(logical + lengthBytes)) throw wrong();
  return { chunk: { logical, lengthBytes, copies }, itemBytes: 48 + stripes * 32 };
}

/** Reads the superblock. Throws DAMAGED. */
export async function readBtrfsLayout(part: ByteSource): Promise<BtrfsLayout> {
  const sb = await readExact(part, SUPERBLOCKS[0], SUPERBLOCK_BYTES, 'superblock');
  if (sb.readUInt16LE(196) !== 0) throw damaged(part, 'btrfs with checksums other than CRC-32C');
  if (!isBtrfsSumRight(sb)) throw damaged(part, 'the superblock does not match its checksum');
  const incompat = u64le(sb, 188);
  const unknown = [
    [incompat, KNOWN_INCOMPAT],
    [u64le(sb, 180), KNOWN_RO_COMPAT],
    [u64le(sb, 172), 0],
    [u64le(sb, 56), FLAG_WRITTEN],
  ].some(([value = 0, known = 0]) => value > 0x7fffffff || (value & ~known) !== 0);
  if (unknown) throw damaged(part, 'btrfs with features that are not known here');
  if (u64le(sb, 136) !== 1) throw damaged(part, 'btrfs on several devices');
  const nodeBytes = sb.readUInt32LE(148);
  const sectorBytes = sb.readUInt32LE(144);
  const deviceBytes = u64le(sb, 209);
  const isPower = (value: number): boolean => value >= 4096 && value <= 65536 && (value & (value - 1)) === 0;
  if (
    u64le(sb, 48) !== SUPERBLOCKS[0] ||
    !isPower(nodeBytes) ||
    !isPower(sectorBytes) ||
    nodeBytes < sectorBytes ||
    !(deviceBytes <= part.sizeBytes)
  ) {
    throw damaged(part, 'the sizes in its superblock contradict each other');
  }
  const layout: BtrfsLayout = {
    generation: u64le(sb, 72),
    root: u64le(sb, 80),
    rootLevel: sb.readUInt8(198),
    chunkRoot: u64le(sb, 88),
    chunkRootLevel: sb.readUInt8(199),
    nodeBytes,
    sectorBytes,
    deviceBytes,
    deviceId: u64le(sb, 201),
    usedBytes: u64le(sb, 120),
    metadataUuid: Buffer.from(
      incompat & INCOMPAT_METADATA_UUID ? sb.subarray(571, 587) : sb.subarray(32, 48),
    ),
    uuid: uuidText(sb.subarray(32, 48)),
    label: printable(sb.toString('utf8', 299, 555).replace(/\0.*$/s, '')),
    hasLog: u64le(sb, 96) !== 0,
    systemChunks: [],
  };
  const arrayBytes = sb.readUInt32LE(160);
  if (arrayBytes > 2048) throw damaged(part, 'its list of system chunks is too long');
  const array = sb.subarray(811, 811 + arrayBytes);
  for (let at = 0; at + 17 < array.length; ) {
    const { chunk, itemBytes } = parseChunk(part, layout, array.subarray(at + 17), u64le(array, at + 9));
    layout.systemChunks.push(chunk);
    at += 17 + itemBytes;
  }
  return layout;
}
