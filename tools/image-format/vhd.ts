/** VHD (Virtual PC, older Hyper-V, Azure): fixed and dynamic. */
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import type { HeaderFacts } from './facts.ts';
import {
  type ByteSource,
  damaged,
  eachEntry,
  readExact,
  requireSaneSize,
  truncated,
  u64be,
  unsafe,
} from './reader.ts';

const SECTOR = 512;
const UNALLOCATED = 0xffff_ffff;
/** Largest disk the geometry fields can say; beyond, the size field counts. */
const CHS_MAX_SECTORS = 65_535 * 16 * 255;
/** Makers whose size field counts; for all others QEMU believes the geometry (block/vpc.c). */
const SIZE_FIELD_MAKERS = ['win ', 'qem2', 'd2v ', 'tap\0', 'CTXS', 'wa\0\0'];

/** Checks footer, dynamic header and block table. Throws what the gate refuses. */
export async function inspectVhd(source: ByteSource): Promise<HeaderFacts> {
  const atEnd = source.sizeBytes - SECTOR;
  if (atEnd < SECTOR) throw truncated(source, 'the VHD footer');
  const first = await readExact(source, 0, SECTOR, 'the VHD footer copy');
  const last = await readExact(source, atEnd, SECTOR, 'the VHD footer');
  if (!isFooter(last)) throw truncated(source, 'the VHD footer (it must be the last sector)');
  requireChecksum(source, last, 64, 'footer');
  const type = last.readUInt32BE(60);
  if (isFooter(first)) {
    requireChecksum(source, first, 64, 'footer copy');
    if (first.readUInt32BE(60) !== type || u64be(first, 48) !== u64be(last, 48)) {
      throw damaged(source, 'its two VHD footers differ');
    }
  } else if (type !== 2) {
    throw damaged(source, 'the copy of its VHD footer is missing');
  }
  const virtualBytes = virtualSize(last);
  requireSaneSize(source, virtualBytes);
  if (type === 2) {
    if (virtualBytes > atEnd) throw truncated(source, 'the disk of a fixed VHD');
    return { virtualBytes };
  }
  if (type !== 3 && type !== 4) throw unsafe(source, `VHD type ${type} does not exist`);
  const header = await dynamicHeader(source, last);
  if (type === 4) throw differencing(source, header);
  await checkBlocks(source, header, Math.max(virtualBytes, u64be(last, 48)));
  return { virtualBytes };
}

function isFooter(data: Buffer): boolean {
  return data.toString('latin1', 0, 8) === 'conectix';
}

/** One's complement of the sum of all bytes but the checksum's own. */
function requireChecksum(source: ByteSource, data: Buffer, at: number, what: string): void {
  let sum = 0;
  for (const [index, byte] of data.entries()) if (index < at || index >= at + 4) sum += byte;
  if (~sum >>> 0 !== data.readUInt32BE(at)) throw damaged(source, `the checksum of its VHD ${what} is wrong`);
}

function virtualSize(footer: Buffer): number {
  const size = u64be(footer, 48);
  const sectors = footer.readUInt16BE(56) * footer.readUInt8(58) * footer.readUInt8(59);
  const maker = footer.toString('latin1', 28, 32);
  const geometryCounts = !SIZE_FIELD_MAKERS.includes(maker) && sectors !== CHS_MAX_SECTORS;
  return geometryCounts ? sectors * SECTOR : Math.floor(size / SECTOR) * SECTOR;
}

async function dynamicHeader(source: ByteSource, footer: Buffer): Promise<Buffer> {
  const header = await readExact(source, u64be(footer, 16), 1024, 'the dynamic VHD header');
  if (header.toString('latin1', 0, 8) !== 'cxsparse') throw damaged(source, 'it has no dynamic VHD header');
  requireChecksum(source, header, 36, 'dynamic header');
  return header;
}

function differencing(source: ByteSource, header: Buffer): PortError {
  const parent = Buffer.from(header.subarray(64, 576)).swap16().toString('utf16le').replace(/\0.*$/s, '');
  const named = parent === '' ? '' : `: ${printable(parent)}`;
  return new PortError(
    'OUTSIDE_REFERENCE',
    `${source.name} is a differencing VHD with a parent${named} (not opened)`,
    {
      hint: 'merge it first: Merge-VHD, or Convert-VHD to a dynamic disk',
    },
  );
}

async function checkBlocks(source: ByteSource, header: Buffer, virtualBytes: number): Promise<void> {
  const blockBytes = header.readUInt32BE(32);
  const entries = header.readUInt32BE(28);
  // powers of two; QEMU takes 512 bytes and more, all makers write 512 KiB or 2 MiB
  if (blockBytes < SECTOR || blockBytes > 256 * 1024 * 1024 || (blockBytes & (blockBytes - 1)) !== 0) {
    throw unsafe(source, `its VHD blocks are ${blockBytes} bytes`);
  }
  if (entries * blockBytes < virtualBytes)
    throw damaged(source, 'its VHD block table is too short for the disk');
  const bitmapBytes = Math.ceil(blockBytes / SECTOR / 8 / SECTOR) * SECTOR;
  const table = { offset: u64be(header, 16), entries, entryBytes: 4, what: 'the VHD block table' };
  await eachEntry(source, table, (piece, at, index) => {
    const sector = piece.readUInt32BE(at);
    if (sector === UNALLOCATED || index * blockBytes >= virtualBytes) return;
    const bytes = Math.min(blockBytes, virtualBytes - index * blockBytes);
    if (sector * SECTOR + bitmapBytes + bytes > source.sizeBytes - SECTOR)
      throw truncated(source, `block ${index}`);
  });
}
