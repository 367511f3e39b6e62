/** What a guest would see at the start of its disk: an installed system's disk, or one of the many other things. */
import { PortError } from '../../core/errors.ts';
import { type ByteSource, damaged, truncated, u64le, unsafe } from './reader.ts';
import { foreignHeader, imageHeaders } from './signature.ts';

/** How much of the guest's disk `inspectContent` looks at. */
export const CONTENT_BYTES = 1024 * 1024;
const SECTOR = 512;

/** What the start of a disk is. */
type ContentKind = 'gpt' | 'mbr' | 'filesystem' | 'lvm' | 'raid';

function ascii(data: Buffer, at: number, text: string): boolean {
  return data.subarray(at, at + text.length).equals(Buffer.from(text, 'latin1'));
}

/**
 * Looks at the disk as the guest sees it. Throws EMPTY_DISK, NOT_A_DISK (text, ISO, noise), ENCRYPTED,
 * UNSUPPORTED_FORMAT (compressed), UNSAFE_IMAGE (the guest's first sector is an image header), DAMAGED (partitions
 * beyond the end).
 */
export async function inspectContent(disk: ByteSource): Promise<ContentKind> {
  const start = await disk.read(0, CONTENT_BYTES);
  refuseNested(disk, start);
  const gpt = await gptOffset(disk, start);
  if (gpt !== undefined) {
    if (gpt === SECTOR) await checkGpt(disk, start);
    return 'gpt';
  }
  const filesystem = filesystemKind(start);
  if (filesystem) return filesystem;
  if (checkMbr(disk, start)) return 'mbr';
  throw notADisk(disk, start);
}

/** Throws UNSAFE_IMAGE or the code of a known foreign container. */
function refuseNested(disk: ByteSource, start: Buffer): void {
  const [inner] = imageHeaders(start);
  if (inner) {
    // some later tool would probe this sector and follow what the guest wrote there
    throw unsafe(disk, `the first sector its guest sees is a ${inner} header`);
  }
  const foreign = foreignHeader(start);
  if (foreign) {
    throw new PortError(foreign.code, `${disk.name} is ${foreign.what}`, { hint: foreign.hint });
  }
  if (ascii(start, 0x8001, 'CD001')) {
    throw new PortError('NOT_A_DISK', `${disk.name} is an ISO image, not an installed disk`, {
      hint: 'install the system first, or give the disk of the installed machine',
    });
  }
}

/** Where a GPT header stands: sector 1 of 512 or 4096 bytes, or the backup in the last sector. */
async function gptOffset(disk: ByteSource, start: Buffer): Promise<number | undefined> {
  for (const at of [SECTOR, 4096]) if (ascii(start, at, 'EFI PART')) return at;
  const end = disk.sizeBytes - (disk.sizeBytes % SECTOR) - SECTOR;
  if (end > start.length && ascii(await disk.read(end, SECTOR), 0, 'EFI PART')) return end;
  return undefined;
}

async function checkGpt(disk: ByteSource, start: Buffer): Promise<void> {
  const tableAt = u64le(start, SECTOR + 72) * SECTOR;
  const entries = start.readUInt32LE(SECTOR + 80);
  const entryBytes = start.readUInt32LE(SECTOR + 84);
  if (entryBytes < 128 || entryBytes > 4096 || entryBytes % 128 !== 0 || entries > 1024) {
    throw damaged(disk, `its partition table has ${entries} entries of ${entryBytes} bytes`);
  }
  if (tableAt < 2 * SECTOR || tableAt + entries * entryBytes > start.length) {
    throw damaged(disk, 'its partition table lies in an impossible place');
  }
  const used: [number, number, number][] = [];
  for (let i = 0; i < entries; i++) {
    const at = tableAt + i * entryBytes;
    if (start.subarray(at, at + 16).every((b) => b === 0)) continue;
    const first = u64le(start, at + 32);
    const last = u64le(start, at + 40);
    if (first > last) throw damaged(disk, `partition ${i + 1} ends before it starts`);
    if ((last + 1) * SECTOR > disk.sizeBytes) throw truncated(disk, `partition ${i + 1}`);
    used.push([first, last, i + 1]);
  }
  used.sort((a, b) => a[0] - b[0]);
  for (const [index, current] of used.entries()) {
    const next = used[index + 1];
    if (next && next[0] <= current[1]) {
      throw damaged(disk, `partitions ${current[2]} and ${next[2]} overlap`);
    }
  }
}

/** True for an MBR with at least one partition. Throws DAMAGED when one lies beyond the end. */
function checkMbr(disk: ByteSource, start: Buffer): boolean {
  if (start.length < SECTOR || start.readUInt16LE(510) !== 0xaa55) return false;
  let found = false;
  for (let i = 0; i < 4; i++) {
    const at = 446 + i * 16;
    const type = start.readUInt8(at + 4);
    const sectors = start.readUInt32LE(at + 12);
    if (start.readUInt8(at) & 0x7f) return false; // boot flag is 0x00 or 0x80: this is a boot sector's code
    if (type === 0 || sectors === 0) continue;
    found = true;
    if (type === 0xee) continue; // protective entry of a GPT, often larger than the disk
    const end = (start.readUInt32LE(at + 8) + sectors) * SECTOR;
    if (end > disk.sizeBytes) throw truncated(disk, `partition ${i + 1}`);
  }
  return found;
}

function filesystemKind(start: Buffer): ContentKind | undefined {
  for (let sector = 0; sector < 4; sector++) if (ascii(start, sector * SECTOR, 'LABELONE')) return 'lvm';
  if (start.length > 4100 && start.readUInt32LE(4096) === 0xa92b4efc) return 'raid';
  const magic: [number, string][] = [
    [0, 'XFSB'],
    [1080, '\x53\xef'], // ext2, ext3, ext4
    [0x10040, '_BHRfS_M'],
    [3, 'NTFS    '],
    [54, 'FAT'],
    [82, 'FAT32'],
    [4086, 'SWAPSPACE2'],
  ];
  return magic.some(([at, text]) => ascii(start, at, text)) ? 'filesystem' : undefined;
}

function notADisk(disk: ByteSource, start: Buffer): PortError {
  if (start.every((b) => b === 0)) {
    return new PortError('EMPTY_DISK', `${disk.name} is empty: nothing but zeros where a disk begins`, {
      hint: 'check that this is the disk the system boots from',
    });
  }
  const head = start.subarray(0, 512);
  const text = head.every((b) => (b >= 0x20 && b !== 0x7f) || b === 9 || b === 10 || b === 13);
  if (text) {
    return new PortError('NOT_A_DISK', `${disk.name} is a text file, not a disk image`, {
      hint: 'give an image file or a block device',
    });
  }
  return new PortError(
    'NOT_A_DISK',
    `${disk.name} is no disk: no partition table, file system, LVM or RAID at its start`,
    { hint: 'give the whole disk of an installed machine, and its format with --format if it is an image' },
  );
}
