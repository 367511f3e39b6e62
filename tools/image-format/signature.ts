/** Which formats a file's bytes claim to be, by their signatures only. */
import type { SourceFormat } from '../../core/request.ts';
import { type ByteSource, u64be } from './reader.ts';

/** Things that are not a readable disk image, for the message. */
export interface Foreign {
  what: string;
  code: 'UNSUPPORTED_FORMAT' | 'NOT_A_DISK' | 'ENCRYPTED';
  hint: string;
}

/** First bytes every detection works on: the ISO 9660 signature is the farthest, at 32769. */
export const START_BYTES = 64 * 1024;

const UNPACK = 'decompress it first';

const FOREIGN: readonly [offset: number, magic: string | readonly number[], what: string, hint: string][] = [
  [0, [0x1f, 0x8b], 'gzip-compressed', UNPACK],
  [0, [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00], 'xz-compressed', UNPACK],
  [0, [0x28, 0xb5, 0x2f, 0xfd], 'zstd-compressed', UNPACK],
  [0, 'BZh', 'bzip2-compressed', UNPACK],
  [0, [0x04, 0x22, 0x4d, 0x18], 'lz4-compressed', UNPACK],
  [0, 'PK\x03\x04', 'a zip archive', 'unpack it and give the disk image inside'],
  [0, [0x37, 0x7a, 0xbc, 0xaf, 0x27, 0x1c], 'a 7z archive', 'unpack it and give the disk image inside'],
  [257, 'ustar', 'a tar archive (an OVA?)', 'unpack it with tar and give the disk image inside'],
  [0, 'QED\0', 'a QED image', 'convert it with: qemu-img convert -f qed -O qcow2'],
  [0, 'WithoutFreeSpace', 'a Parallels image', 'convert it with: qemu-img convert -f parallels -O qcow2'],
  [0, 'WithouFreSpacExt', 'a Parallels image', 'convert it with: qemu-img convert -f parallels -O qcow2'],
  [0, 'QFI\xfb\0\0\0\x01', 'a qcow (version 1) image', 'convert it with: qemu-img convert -f qcow -O qcow2'],
  [
    0,
    [0xbe, 0xba, 0xfe, 0xca, 0, 0, 0, 0],
    'a VMware SEsparse image',
    'clone the disk with vmkfstools -i -d thin',
  ],
  [0, 'COWD', 'a VMware COWD (vmfsSparse) image', 'clone the disk with vmkfstools -i -d thin'],
  [0, 'EVF\x09\x0d\x0a\xff\0', 'an EnCase evidence file', 'export it as raw'],
  [0, 'MSWIM\0\0\0', 'a Windows WIM archive', 'give a disk image'],
  [0, 'xar!', 'a xar archive', 'give a disk image'],
  [0, 'hsqs', 'a squashfs file system', 'give a disk image'],
];

function has(data: Buffer, offset: number, magic: string | readonly number[]): boolean {
  const wanted = typeof magic === 'string' ? Buffer.from(magic, 'latin1') : Buffer.from(magic);
  return (
    data.length >= offset + wanted.length && data.subarray(offset, offset + wanted.length).equals(wanted)
  );
}

/** Image formats whose header stands at the start of these bytes: what a probing tool would take a raw disk for. */
export function imageHeaders(start: Buffer): SourceFormat[] {
  const found: SourceFormat[] = [];
  if (has(start, 0, 'QFI\xfb') && !has(start, 4, [0, 0, 0, 1])) found.push('qcow2');
  if (has(start, 0, 'KDMV') || /^# Disk DescriptorFile/i.test(start.toString('latin1', 0, 64).trimStart())) {
    found.push('vmdk');
  }
  if (has(start, 0, 'vhdxfile')) found.push('vhdx');
  if (has(start, 0, 'conectix')) found.push('vpc');
  if (has(start, 0x40, [0x7f, 0x10, 0xda, 0xbe])) found.push('vdi');
  return found;
}

/** A container other than ours at the start of these bytes. */
export function foreignHeader(start: Buffer): Foreign | undefined {
  for (const [offset, magic, what, hint] of FOREIGN) {
    if (has(start, offset, magic)) return { what, hint, code: 'UNSUPPORTED_FORMAT' };
  }
  if (has(start, 0, 'LUKS\xba\xbe')) {
    return { what: 'encrypted (LUKS)', hint: 'unlock it and give the opened device', code: 'ENCRYPTED' };
  }
  if (has(start, 3, '-FVE-FS-')) {
    return { what: 'encrypted (BitLocker)', hint: 'decrypt it first', code: 'ENCRYPTED' };
  }
  return undefined;
}

/** True when the file ends in a VHD footer that describes exactly this file as a fixed disk. */
export async function hasFixedVhdFooter(source: ByteSource): Promise<boolean> {
  if (source.sizeBytes < 1024) return false;
  const footer = await source.read(source.sizeBytes - 512, 512);
  return (
    footer.length === 512 &&
    has(footer, 0, 'conectix') &&
    footer.readUInt32BE(60) === 2 &&
    u64be(footer, 48) === source.sizeBytes - 512
  );
}

/** True when the bytes are a partition table or a boot sector: evidence for a raw disk beside an image header. */
export function hasDiskEvidence(start: Buffer): boolean {
  return (
    has(start, 510, [0x55, 0xaa]) ||
    has(start, 512, 'EFI PART') ||
    has(start, 1080, [0x53, 0xef]) ||
    has(start, 0, 'XFSB') ||
    has(start, 512, 'LABELONE') ||
    has(start, 0x8001, 'CD001')
  );
}
