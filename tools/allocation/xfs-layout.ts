/** Superblock of XFS. Format: Linux fs/xfs/libxfs/xfs_format.h. All numbers are big-endian, checksums are not. */
import { printable } from '../../core/text.ts';
import { type ByteSource, damaged, readExact, u64be } from '../image-format/reader.ts';
import { crc32c } from './checksums.ts';
import { uuidText } from './reading.ts';

/** Features whose meaning for free space is known (version 5). Not: needs repair (0x10), metadata directories (0x100). */
const KNOWN_INCOMPAT = 0xef;
/** Free inode tree, reverse map, reflink, inode counts. */
const KNOWN_RO_COMPAT = 0xf;
/** Logged attributes. */
const KNOWN_LOG_INCOMPAT = 0x1;
/** Features of version 4: lazy counts, attr2, parent, 32-bit project ids, checksums, ftype. */
const KNOWN_FEATURES2 = 0x39a;
const INCOMPAT_META_UUID = 0x4;
/** Most allocation groups: 16 TiB of the smallest, 16 MiB. */
const MAX_GROUPS = 1024 * 1024;

/** What a superblock says, checked. */
export interface XfsLayout {
  blockBytes: number;
  sectorBytes: number;
  blocks: number;
  groupBlocks: number;
  groups: number;
  /** Version 5: everything carries a checksum, its place and the file system's UUID. */
  summed: boolean;
  /** What is written into metadata: not changed with the UUID people see. */
  metaUuid: Buffer;
  uuid: string;
  label: string;
  /** The log inside the file system, in bytes; undefined when it is on another device. */
  log: { startBytes: number; lengthBytes: number } | undefined;
}

/** True when the block's checksum, at `at` in it, is right. */
export function isXfsSumRight(data: Buffer, at: number): boolean {
  const head = crc32c(~0, data.subarray(0, at));
  const sum = ~crc32c(crc32c(head, Buffer.alloc(4)), data.subarray(at + 4)) >>> 0;
  return sum === data.readUInt32LE(at);
}

function refuseUnknownFeatures(part: ByteSource, sb: Buffer, version: number): void {
  const unknown =
    version === 5
      ? sb.readUInt32BE(208) |
        (sb.readUInt32BE(212) & ~KNOWN_RO_COMPAT) |
        (sb.readUInt32BE(216) & ~KNOWN_INCOMPAT) |
        (sb.readUInt32BE(220) & ~KNOWN_LOG_INCOMPAT)
      : sb.readUInt32BE(200) & ~KNOWN_FEATURES2;
  if (unknown !== 0) throw damaged(part, 'XFS with features that are not known here');
}

/** Reads the superblock. Throws DAMAGED. */
export async function readXfsLayout(part: ByteSource): Promise<XfsLayout> {
  const sb = await readExact(part, 0, Math.min(32768, part.sizeBytes), 'superblock');
  if (sb.length < 512) throw damaged(part, 'XFS without a superblock');
  const version = sb.readUInt16BE(100) & 0xf;
  if (version !== 4 && version !== 5) throw damaged(part, 'XFS of another version');
  refuseUnknownFeatures(part, sb, version);
  const blockBytes = sb.readUInt32BE(4);
  const sectorBytes = sb.readUInt16BE(102);
  const isPower = (value: number): boolean => value > 0 && (value & (value - 1)) === 0;
  const blocks = u64be(sb, 8);
  const groupBlocks = sb.readUInt32BE(84);
  const groups = sb.readUInt32BE(88);
  if (
    !isPower(blockBytes) ||
    !isPower(sectorBytes) ||
    blockBytes < 512 ||
    blockBytes > 65536 ||
    sectorBytes < 512 ||
    sectorBytes > Math.min(blockBytes, 32768) ||
    blockBytes !== 2 ** sb.readUInt8(120) ||
    sectorBytes > sb.length ||
    groups < 1 ||
    groups > MAX_GROUPS ||
    groupBlocks * blockBytes < 8 * sectorBytes ||
    !(blocks * blockBytes <= part.sizeBytes) ||
    blocks <= (groups - 1) * groupBlocks ||
    blocks > groups * groupBlocks
  ) {
    throw damaged(part, 'the sizes in its superblock contradict each other');
  }
  if (version === 5 && !isXfsSumRight(sb.subarray(0, sectorBytes), 224)) {
    throw damaged(part, 'the superblock does not match its checksum');
  }
  if (u64be(sb, 16) !== 0) throw damaged(part, 'XFS with a realtime device');
  if (sb.readUInt8(126) !== 0) throw damaged(part, 'XFS whose making or growing did not end');
  const uuidBytes = sb.subarray(32, 48);
  const separate = version === 5 && (sb.readUInt32BE(216) & INCOMPAT_META_UUID) !== 0;
  return {
    blockBytes,
    sectorBytes,
    blocks,
    groupBlocks,
    groups,
    summed: version === 5,
    metaUuid: Buffer.from(separate ? sb.subarray(248, 264) : uuidBytes),
    uuid: uuidText(uuidBytes),
    label: printable(sb.toString('utf8', 108, 120).replace(/\0.*$/s, '')),
    log: logOf(part, sb, { blockBytes, groupBlocks, blocks }),
  };
}

/** Where the log stands: its first block is given as group and block, packed. */
function logOf(
  part: ByteSource,
  sb: Buffer,
  fs: { blockBytes: number; groupBlocks: number; blocks: number },
): XfsLayout['log'] {
  const start = u64be(sb, 48);
  if (start === 0) return undefined;
  const perGroup = 2 ** sb.readUInt8(124);
  const block = Math.floor(start / perGroup) * fs.groupBlocks + (start % perGroup);
  const count = sb.readUInt32BE(96);
  if (!(block + count <= fs.blocks) || count < 1) throw damaged(part, 'its log lies in an impossible place');
  return { startBytes: block * fs.blockBytes, lengthBytes: count * fs.blockBytes };
}
