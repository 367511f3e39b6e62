/** What a stretch of a disk claims to hold, by its signatures. Offsets: util-linux libblkid, and the formats themselves. */
import { MIB } from '../../core/sizes.ts';
import type { ByteSource } from '../image-format/reader.ts';
import { SWAP_PAGE_BYTES } from './swap.ts';

/** From the start, what is looked at for signatures. */
const HEAD_BYTES = MIB;
/** From the end: md of version 0.90 stands between 64 and 128 KiB before it. */
const TAIL_BYTES = 128 * 1024;

/** Kinds that have a parser. */
export type ParsedKind = 'ext4' | 'xfs' | 'btrfs' | 'swap' | 'lvm';

type Signature = readonly [kind: string, offset: number, bytes: string];

const MD_MAGIC = '\xfc\x4e\x2b\xa9';
/** Little and big endian. */
const ZFS_MAGIC = ['\x0c\xb1\xba\x00\x00\x00\x00\x00', '\x00\x00\x00\x00\x00\xba\xb1\x0c'];

const PARSED: readonly Signature[] = [
  ['ext4', 1080, '\x53\xef'],
  ['xfs', 0, 'XFSB'],
  ['btrfs', 0x10040, '_BHRfS_M'],
  ...SWAP_PAGE_BYTES.map((size): Signature => ['swap', size - 10, 'SWAPSPACE2']),
  ...[0, 512, 1024, 1536].map((at): Signature => ['lvm', at, 'LABELONE']),
];

// Others are only told apart from ours: old signatures stay behind when something new is written beside them.
const FOREIGN: readonly Signature[] = [
  ['luks', 0, 'LUKS\xba\xbe'],
  ['luks', 0x4000, 'SKUL\xba\xbe'],
  ['md-raid', 0, MD_MAGIC],
  ['md-raid', 4096, MD_MAGIC],
  ['bcache', 4096 + 24, '\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81'],
  ['bcachefs', 4096 + 24, '\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef'],
  ['bitlocker', 3, '-FVE-FS-'],
  ['ntfs', 3, 'NTFS    '],
  ['exfat', 3, 'EXFAT   '],
  ['refs', 3, 'ReFS\0\0\0\0'],
  ['fat', 54, 'FAT12   '],
  ['fat', 54, 'FAT16   '],
  ['fat', 82, 'FAT32   '],
  ['iso9660', 0x8001, 'CD001'],
  ['udf', 0x8001, 'BEA01'],
  ['f2fs', 1024, '\x10\x20\xf5\xf2'],
  ['erofs', 1024, '\xe2\xe1\xf5\xe0'],
  ['squashfs', 0, 'hsqs'],
  ['apfs', 32, 'NXSB'],
  ['jfs', 0x8000, 'JFS1'],
  ['reiserfs', 0x10034, 'ReIsEr'],
  ['reiserfs', 0x2034, 'ReIsEr'],
  ['gfs2', 0x10000, '\x01\x16\x19\x70'],
  ['ocfs2', 0x2000, 'OCFSV2'],
  ['ocfs2', 0x1000, 'OCFSV2'],
  ['vdo', 0, 'dmvdo001'],
  ['stratis', 512 + 4, '!Stra0tis\x86\xff\x02^\x41rh'],
  ['ceph', 0, 'bluestore block device'],
  ['oracle-asm', 32, 'ORCLDISK'],
  ['snapshot-store', 0, 'SnAp'],
  ['verity', 0, 'verity\0\0'],
  ['integrity', 0, 'integrt\0'],
  ...SWAP_PAGE_BYTES.flatMap((size) =>
    [
      'S1SUSPEND',
      'S2SUSPEND',
      'ULSUSPEND',
      'LINHIB0001',
      'SWAP-SPACE',
      '\xed\xc3\x02\xe9\x98\x56\xe5\x0c',
    ].map((text): Signature => [text === 'SWAP-SPACE' ? 'old-swap' : 'suspended-system', size - 10, text]),
  ),
  // uberblocks of the first label: one of 1 to 8 KiB each, from 128 KiB on
  ...Array.from({ length: 128 }, (_, i) => i).flatMap((i) =>
    ZFS_MAGIC.map((magic): Signature => ['zfs', 128 * 1024 + i * 1024, magic]),
  ),
];

function matches(data: Buffer, signatures: readonly Signature[]): string[] {
  const kinds = signatures
    .filter(([, at, bytes]) => data.toString('latin1', at, at + bytes.length) === bytes)
    .map(([kind]) => kind);
  return [...new Set(kinds)];
}

/** md superblocks at the end: 0.90 at 64 KiB before the last whole 64 KiB, 1.0 at 8 KiB before the end, to a 4 KiB step. */
function tailKinds(part: ByteSource, tail: Buffer, tailStart: number): string[] {
  const old = Math.floor(part.sizeBytes / 65536) * 65536 - 65536;
  const newer = Math.floor((part.sizeBytes - 8192) / 4096) * 4096;
  const isMd = [old, newer].some((at) => {
    const from = at - tailStart;
    return (
      from >= 0 && ['\xfc\x4e\x2b\xa9', '\xa9\x2b\x4e\xfc'].includes(tail.toString('latin1', from, from + 4))
    );
  });
  // firmware RAID keeps its metadata in the last sectors: Intel in the last but one, DDF in the last
  const end = tail.length - (tail.length % 512);
  const intel = tail.toString('latin1', end - 1024, end - 1000) === 'Intel Raid ISM Cfg Sig. ';
  const ddf = ['\xde\x11\xde\x11', '\x11\xde\x11\xde'].includes(
    tail.toString('latin1', end - 512, end - 508),
  );
  return [...(isMd ? ['md-raid'] : []), ...(intel || ddf ? ['firmware-raid'] : [])];
}

/** What was recognised. */
export interface Signatures {
  /** Kinds that have a parser. */
  parsed: ParsedKind[];
  foreign: string[];
}

/**
 * Looks for signatures at the start and the end; on a disk with partitions only before the first and after the last one,
 * given as `outside`. Throws only what reading throws.
 */
export async function readSignatures(
  part: ByteSource,
  outside: { beforeBytes: number; afterBytes: number } = { beforeBytes: HEAD_BYTES, afterBytes: 0 },
): Promise<Signatures> {
  const tailStart = Math.min(part.sizeBytes, Math.max(0, part.sizeBytes - TAIL_BYTES, outside.afterBytes));
  const [head, tail] = await Promise.all([
    part.read(0, Math.min(HEAD_BYTES, outside.beforeBytes, part.sizeBytes)),
    part.read(tailStart, part.sizeBytes - tailStart),
  ]);
  return {
    parsed: matches(head, PARSED) as ParsedKind[],
    foreign: [...new Set([...matches(head, FOREIGN), ...tailKinds(part, tail, tailStart)])],
  };
}
