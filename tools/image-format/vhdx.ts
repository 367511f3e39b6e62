/** VHDX (Hyper-V), after [MS-VHDX]. */
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import type { HeaderFacts } from './facts.ts';
import {
  type ByteSource,
  damaged,
  eachEntry,
  readExact,
  requireInside,
  requireSaneSize,
  truncated,
  u64le,
  unsafe,
} from './reader.ts';

const KIB64 = 64 * 1024;
const MIB = 1024 * 1024;
const REGION_BAT = '2dc27766-f623-4200-9d64-115e9bfd4a08';
const REGION_METADATA = '8b7ca206-4790-4b9a-b8fe-575f050f886e';
const ITEM_PARAMETERS = 'caa16737-fa36-4d43-b3b6-33f0aa44e76b';
const ITEM_SIZE = '2fa54224-cd1b-4876-b211-5dbed83bf4b8';
const ITEM_SECTOR = '8141bf1d-a96f-4709-ba47-f233a8faab5f';
const ITEM_PARENT = 'a8d35f2d-b30b-454d-abf7-d3d84834ab0c';
/** Known, not needed: page 83 identifier and physical sector size. */
const OTHER_ITEMS = ['beca12ab-b2e6-4523-93ef-c309e000c746', 'cda348c7-445d-4471-9cc9-e9885251c556'];
/** Of a payload block: the whole block is in the file. */
const FULLY_PRESENT = 6;
const PARTIALLY_PRESENT = 7;

interface Region {
  offset: number;
  length: number;
}

/** GUID as text; the first three groups are stored little-endian. */
function guid(data: Buffer, at: number): string {
  const hex = (start: number, end: number) => data.toString('hex', at + start, at + end);
  const swapped = (start: number, end: number) =>
    Buffer.from(data.subarray(at + start, at + end))
      .reverse()
      .toString('hex');
  return [swapped(0, 4), swapped(4, 6), swapped(6, 8), hex(8, 10), hex(10, 16)].join('-');
}

/** Checks headers, regions, metadata and the block table. Throws what the gate refuses. */
export async function inspectVhdx(source: ByteSource): Promise<HeaderFacts> {
  const headers = [
    await readExact(source, KIB64, 4096, 'the first header'),
    await readExact(source, 2 * KIB64, 4096, 'the second header'),
  ];
  if (!headers.some((h) => h.toString('latin1', 0, 4) === 'head'))
    throw damaged(source, 'it has no VHDX header');
  const regions = await readRegions(source);
  const metadata = regions.get(REGION_METADATA);
  const blocks = regions.get(REGION_BAT);
  if (!metadata || !blocks) throw damaged(source, 'a required VHDX region is missing');
  const facts = await readMetadata(source, metadata);
  await checkBlocks(source, blocks, facts);
  return { virtualBytes: facts.virtualBytes };
}

async function readRegions(source: ByteSource): Promise<Map<string, Region>> {
  let table = await readExact(source, 3 * KIB64, KIB64, 'the region table');
  if (table.toString('latin1', 0, 4) !== 'regi') {
    table = await readExact(source, 4 * KIB64, KIB64, 'the second region table');
  }
  const count = table.readUInt32LE(8);
  if (table.toString('latin1', 0, 4) !== 'regi') throw damaged(source, 'it has no region table');
  if (count > 2047) throw unsafe(source, `its region table claims ${count} entries`);
  const regions = new Map<string, Region>();
  for (let i = 0; i < count; i++) {
    const at = 16 + i * 32;
    const id = guid(table, at);
    if (id !== REGION_BAT && id !== REGION_METADATA) {
      if ((table.readUInt32LE(at + 28) & 1) !== 0) throw unsafe(source, `it needs an unknown region ${id}`);
      continue;
    }
    if (regions.has(id)) throw damaged(source, 'a region appears twice');
    const region = { offset: u64le(table, at + 16), length: table.readUInt32LE(at + 24) };
    if (region.offset < MIB) throw damaged(source, 'a region lies in the header');
    requireInside(source, region.offset, region.length, 'a region');
    regions.set(id, region);
  }
  return regions;
}

interface Metadata {
  virtualBytes: number;
  blockBytes: number;
  sectorBytes: number;
}

async function readMetadata(source: ByteSource, region: Region): Promise<Metadata> {
  if (region.length < KIB64) throw damaged(source, 'its metadata region is too short');
  const table = await readExact(source, region.offset, KIB64, 'the metadata table');
  const count = table.readUInt16LE(10);
  if (table.toString('latin1', 0, 8) !== 'metadata') throw damaged(source, 'it has no metadata table');
  if (count > 2047) throw unsafe(source, `its metadata table claims ${count} entries`);
  const items = new Map<string, Region>();
  for (let i = 0; i < count; i++) {
    const at = 32 + i * 32;
    const id = guid(table, at);
    const offset = table.readUInt32LE(at + 16);
    const length = table.readUInt32LE(at + 20);
    const required = (table.readUInt32LE(at + 24) & 4) !== 0;
    const known = [ITEM_PARAMETERS, ITEM_SIZE, ITEM_SECTOR, ITEM_PARENT, ...OTHER_ITEMS].includes(id);
    if (!known && required) throw unsafe(source, `it needs an unknown metadata item ${id}`);
    if (offset + length > region.length) throw damaged(source, 'a metadata item lies outside its region');
    items.set(id, { offset: region.offset + offset, length });
  }
  const read = async (id: string, bytes: number) => {
    const item = items.get(id);
    if (!item || item.length < bytes) throw damaged(source, 'a required metadata item is missing');
    return readExact(source, item.offset, bytes, 'a metadata item');
  };
  const parameters = await read(ITEM_PARAMETERS, 8);
  const parent = items.get(ITEM_PARENT);
  if ((parameters.readUInt32LE(4) & 2) !== 0 || parent) throw await differencing(source, parent);
  const virtualBytes = u64le(await read(ITEM_SIZE, 8), 0);
  requireSaneSize(source, virtualBytes);
  const facts = {
    virtualBytes,
    blockBytes: parameters.readUInt32LE(0),
    sectorBytes: (await read(ITEM_SECTOR, 4)).readUInt32LE(0),
  };
  if (facts.sectorBytes !== 512 && facts.sectorBytes !== 4096)
    throw unsafe(source, `its sectors are ${facts.sectorBytes} bytes`);
  const { blockBytes } = facts;
  if (blockBytes < MIB || blockBytes > 256 * MIB || (blockBytes & (blockBytes - 1)) !== 0) {
    throw unsafe(source, `its blocks are ${blockBytes} bytes`);
  }
  if (virtualBytes % facts.sectorBytes !== 0) throw damaged(source, 'its size is no multiple of its sectors');
  return facts;
}

/** The refusal of a child disk, naming the path its parent locator holds. */
async function differencing(source: ByteSource, parent: Region | undefined): Promise<PortError> {
  let named = '';
  if (parent) {
    const data = await source.read(parent.offset, Math.min(parent.length, KIB64));
    for (let i = 0; i < 16 && 20 + i * 12 + 12 <= data.length; i++) {
      const at = 20 + i * 12;
      const text = (offset: number, length: number) =>
        data.subarray(offset, offset + length).toString('utf16le');
      const key = text(data.readUInt32LE(at), data.readUInt16LE(at + 8));
      if (/path$/i.test(key))
        named ||= `: ${printable(text(data.readUInt32LE(at + 4), data.readUInt16LE(at + 10)).slice(0, 512))}`;
    }
  }
  return new PortError(
    'OUTSIDE_REFERENCE',
    `${source.name} is a differencing VHDX with a parent${named} (not opened)`,
    {
      hint: 'merge it first: Merge-VHD, or Convert-VHD to a dynamic disk',
    },
  );
}

async function checkBlocks(source: ByteSource, region: Region, facts: Metadata): Promise<void> {
  const { virtualBytes, blockBytes, sectorBytes } = facts;
  // after every `ratio` payload entries one entry of a sector bitmap follows, which only children use
  const ratio = (2 ** 23 * sectorBytes) / blockBytes;
  const payload = Math.ceil(virtualBytes / blockBytes);
  const entries = payload + Math.floor((payload - 1) / ratio);
  if (entries * 8 > region.length) throw damaged(source, 'its block table is too short for the disk');
  const table = { offset: region.offset, entries, entryBytes: 8, what: 'the block table' };
  await eachEntry(source, table, (piece, at, index) => {
    if (index % (ratio + 1) === ratio) return;
    const low = piece.readUInt32LE(at);
    const state = low & 7;
    if (state === PARTIALLY_PRESENT) throw damaged(source, 'a block is partly in a parent it does not have');
    if (state === 4 || state === 5) throw damaged(source, 'a block has an impossible state');
    if (state !== FULLY_PRESENT) return;
    const block = index - Math.floor(index / (ratio + 1));
    const offset = piece.readUInt32LE(at + 4) * 0x1_0000_0000 + (low - (low % MIB));
    const bytes = Math.min(blockBytes, virtualBytes - block * blockBytes);
    if (offset < MIB) throw damaged(source, `block ${block} lies in the header`);
    if (offset + bytes > source.sizeBytes) throw truncated(source, `block ${block}`);
  });
}
