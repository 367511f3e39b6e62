/** Label, header and metadata areas of an LVM2 physical volume. Format: LVM2 lib/format_text/layout.h. */
import { crc32 } from 'node:zlib';
import { MIB } from '../../core/sizes.ts';
import { type ByteSource, damaged, readExact, u64le } from '../image-format/reader.ts';

const SECTOR = 512;
const MDA_MAGIC = ' LVM2 x[5A%r0N*>';
/** Start value of LVM's checksums. */
const CRC_START = 0xf597a6cf;
const AREA_IGNORED = 1;
/** Longest text read: a volume group of thousands of volumes needs 2 MiB. */
const MAX_TEXT_BYTES = 16 * MIB;
/** LVM itself allows two metadata areas and one data area. */
const MAX_AREAS = 16;

/** A physical volume's own words. */
export interface LvmLabel {
  /** Without dashes. */
  uuid: string;
  /** Metadata of the volume group as text; undefined when the volume is in none, or keeps none itself. */
  text: string | undefined;
}

/** CRC-32 as LVM counts it: its own start value, nothing inverted at the end. */
function lvmCrc(data: Buffer): number {
  return ~crc32(data, ~CRC_START >>> 0) >>> 0;
}

interface Area {
  offset: number;
  size: number;
}

/** A list of areas that an empty one ends; returns where it ended. */
function readAreas(part: ByteSource, sector: Buffer, from: number): { areas: Area[]; end: number } {
  const areas: Area[] = [];
  let at = from;
  for (; at + 16 <= sector.length && areas.length <= MAX_AREAS; at += 16) {
    const area = { offset: u64le(sector, at), size: u64le(sector, at + 8) };
    if (area.offset === 0) return { areas, end: at + 16 };
    areas.push(area);
  }
  throw damaged(part, 'its list of LVM areas has no end');
}

/** Text of one metadata area; undefined when it is empty or not in use. */
async function readMetadata(part: ByteSource, area: Area): Promise<string | undefined> {
  const header = await readExact(part, area.offset, SECTOR, 'LVM metadata header');
  if (lvmCrc(header.subarray(4)) !== header.readUInt32LE(0)) {
    throw damaged(part, 'an LVM metadata header does not match its checksum');
  }
  if (header.toString('latin1', 4, 20) !== MDA_MAGIC || header.readUInt32LE(20) !== 1) {
    throw damaged(part, 'an LVM metadata header of another version');
  }
  const size = u64le(header, 32);
  if (u64le(header, 24) !== area.offset || !(size > SECTOR) || !(area.offset + size <= part.sizeBytes)) {
    throw damaged(part, 'an LVM metadata area lies in an impossible place');
  }
  const offset = u64le(header, 40);
  const length = u64le(header, 48);
  if (offset === 0 || (header.readUInt32LE(60) & AREA_IGNORED) !== 0) return undefined;
  // a second entry is an update under way
  if (u64le(header, 64) !== 0) throw damaged(part, 'its LVM metadata is being changed');
  if (
    !(offset >= SECTOR && offset < size) ||
    !(length > 0 && length <= Math.min(size - SECTOR, MAX_TEXT_BYTES))
  ) {
    throw damaged(part, 'its LVM metadata lies in an impossible place');
  }
  // the area is a ring that begins again after its header
  const first = Math.min(length, size - offset);
  const text = Buffer.concat([
    await readLong(part, area.offset + offset, first),
    await readLong(part, area.offset + SECTOR, length - first),
  ]);
  if (lvmCrc(text) !== header.readUInt32LE(56)) {
    throw damaged(part, 'its LVM metadata does not match its checksum');
  }
  return text.toString('utf8');
}

async function readLong(part: ByteSource, offset: number, length: number): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for (let at = 0; at < length; at += MIB) {
    pieces.push(await readExact(part, offset + at, Math.min(MIB, length - at), 'LVM metadata'));
  }
  return Buffer.concat(pieces);
}

/** Reads the label of a physical volume and its metadata; of two copies both must say the same. Throws DAMAGED. */
export async function readLvmLabel(part: ByteSource): Promise<LvmLabel> {
  const head = await readExact(part, 0, 4 * SECTOR, 'LVM label');
  const found = [0, 1, 2, 3].filter(
    (i) => head.toString('latin1', i * SECTOR, i * SECTOR + 8) === 'LABELONE',
  );
  const [index] = found;
  if (index === undefined || found.length > 1) throw damaged(part, 'it has no LVM label, or several');
  const sector = head.subarray(index * SECTOR, (index + 1) * SECTOR);
  if (lvmCrc(sector.subarray(20)) !== sector.readUInt32LE(16)) {
    throw damaged(part, 'the LVM label does not match its checksum');
  }
  const at = sector.readUInt32LE(20);
  const known = sector.toString('latin1', 24, 32) === 'LVM2 001' && u64le(sector, 8) === index;
  if (!known || at < 32 || at + 40 > SECTOR) throw damaged(part, 'an LVM label of another version');
  const data = readAreas(part, sector, at + 40);
  const metadata = readAreas(part, sector, data.end);
  const texts = await Promise.all(metadata.areas.map((area) => readMetadata(part, area)));
  const [text, ...others] = texts.filter((t) => t !== undefined);
  if (others.some((other) => other !== text)) throw damaged(part, 'its two copies of LVM metadata differ');
  return { uuid: sector.toString('latin1', at, at + 32), text };
}
