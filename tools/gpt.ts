/**
 * GUID partition tables after a disk has grown: the backup table belongs into the last sectors (UEFI specification 2.10,
 * 5.3). Works on bytes, writes nothing itself.
 */
import { crc32 } from 'node:zlib';

const SECTOR = 512;
const HEADER_LBA = 1;
/** Bytes of a header every version has. */
const HEADER_BYTES = 92;
/** Offset of the first partition entry of an MBR. */
const MBR_ENTRY = 446;
const PROTECTIVE = 0xee;

/** Bytes from the start of a disk that are enough for `growGpt`: every tool writes the entries from sector 2 on. */
export const GPT_HEAD_BYTES = 1024 * 1024;

/** Bytes that have to be written. */
export interface GptPatch {
  offsetBytes: number;
  data: Buffer;
}

/** What a grown disk needs. */
export type GptGrowth =
  | { kind: 'none' }
  /** There is a table, but not one we change: `why` is a sentence. */
  | { kind: 'unknown'; why: string }
  | { kind: 'patches'; patches: GptPatch[] };

interface Header {
  lastUsableLba: number;
  entriesLba: number;
  entries: number;
  entryBytes: number;
  /** The header's own bytes, without the rest of its sector. */
  data: Buffer;
}

function crcOf(header: Buffer): number {
  const copy = Buffer.from(header);
  copy.writeUInt32LE(0, 16);
  return crc32(copy);
}

function readHeader(head: Buffer): Header | string {
  const sector = head.subarray(HEADER_LBA * SECTOR, (HEADER_LBA + 1) * SECTOR);
  const headerBytes = sector.readUInt32LE(12);
  if (headerBytes < HEADER_BYTES || headerBytes > SECTOR) return 'its header has an impossible length';
  const data = Buffer.from(sector.subarray(0, headerBytes));
  if (crcOf(data) !== data.readUInt32LE(16)) return 'the checksum of its header is wrong';
  if (data.readBigUInt64LE(24) !== BigInt(HEADER_LBA)) return 'its header is not where it says';
  const [lastUsableLba, entriesLba] = [Number(data.readBigUInt64LE(48)), Number(data.readBigUInt64LE(72))];
  const [entries, entryBytes] = [data.readUInt32LE(80), data.readUInt32LE(84)];
  if (entryBytes < 128 || entryBytes % 8 !== 0 || entries < 1) return 'its entries have an impossible size';
  const end = entriesLba * SECTOR + entries * entryBytes;
  if (entriesLba <= HEADER_LBA || end > head.length) return 'its entries are not at the start of the disk';
  if (crc32(head.subarray(entriesLba * SECTOR, end)) !== data.readUInt32LE(88)) {
    return 'the checksum of its entries is wrong';
  }
  return { lastUsableLba, entriesLba, entries, entryBytes, data };
}

/** The protective MBR with the size of the disk, as far as it has one partition over all of it; undefined when it is right. */
function protectiveMbr(head: Buffer, lastLba: number): Buffer | undefined {
  const mbr = Buffer.from(head.subarray(0, SECTOR));
  const sectors = Math.min(lastLba, 0xffff_ffff);
  for (let at = MBR_ENTRY; at < MBR_ENTRY + 64; at += 16) {
    if (mbr[at + 4] !== PROTECTIVE || mbr.readUInt32LE(at + 8) !== 1) continue;
    if (mbr.readUInt32LE(at + 12) === sectors) return undefined;
    mbr.writeUInt32LE(sectors, at + 12);
    // the end in cylinders, heads, sectors: too large to be said
    mbr.writeUIntBE(0xfe_ff_ff, at + 5, 3);
    return mbr;
  }
  return undefined;
}

/** A header for one of both places. */
function placed(
  source: Header,
  myLba: number,
  otherLba: number,
  entriesLba: number,
  lastUsable: number,
): Buffer {
  const sector = Buffer.alloc(SECTOR);
  const header = Buffer.from(source.data);
  header.writeBigUInt64LE(BigInt(myLba), 24);
  header.writeBigUInt64LE(BigInt(otherLba), 32);
  header.writeBigUInt64LE(BigInt(lastUsable), 48);
  header.writeBigUInt64LE(BigInt(entriesLba), 72);
  header.writeUInt32LE(crcOf(header), 16);
  header.copy(sector);
  return sector;
}

/**
 * What to write so that the table fits a disk of `diskBytes`. `head` is the start of the disk, best `GPT_HEAD_BYTES`. The
 * primary table is believed only when its checksums are right; the old backup is not looked at. The last usable sector moves
 * with the end, the partitions stay.
 */
export function growGpt(head: Buffer, diskBytes: number): GptGrowth {
  if (head.length < 2 * SECTOR || head.toString('latin1', SECTOR, SECTOR + 8) !== 'EFI PART')
    return { kind: 'none' };
  const header = readHeader(head);
  if (typeof header === 'string') return { kind: 'unknown', why: header };
  const lastLba = Math.floor(diskBytes / SECTOR) - 1;
  const tableBytes = header.entries * header.entryBytes;
  const backupEntriesLba = lastLba - Math.ceil(tableBytes / SECTOR);
  const lastUsable = backupEntriesLba - 1;
  if (lastUsable < header.lastUsableLba) {
    return { kind: 'unknown', why: 'its last usable sector lies behind the place of the backup table' };
  }
  const start = header.entriesLba * SECTOR;
  const mbr = protectiveMbr(head, lastLba);
  return {
    kind: 'patches',
    patches: [
      ...(mbr === undefined ? [] : [{ offsetBytes: 0, data: mbr }]),
      { offsetBytes: backupEntriesLba * SECTOR, data: Buffer.from(head.subarray(start, start + tableBytes)) },
      {
        offsetBytes: lastLba * SECTOR,
        data: placed(header, lastLba, HEADER_LBA, backupEntriesLba, lastUsable),
      },
      { offsetBytes: SECTOR, data: placed(header, HEADER_LBA, lastLba, header.entriesLba, lastUsable) },
    ],
  };
}
