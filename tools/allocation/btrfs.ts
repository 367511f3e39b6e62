/** Free space of btrfs on one device: what is in no chunk, and in the chunks what is in no extent. */
import { type ByteSource, damaged, u64le } from '../image-format/reader.ts';
import {
  type BtrfsChunk,
  type BtrfsLayout,
  parseChunk,
  readBtrfsLayout,
  SUPERBLOCKS,
} from './btrfs-layout.ts';
import { type BtrfsNodes, walkTree } from './btrfs-tree.ts';
import { FreeSpace } from './free-space.ts';
import type { DiskState, Found } from './types.ts';

const EXTENT_TREE = 2;
const ROOT_ITEM = 132;
const EXTENT_ITEM = 168;
const METADATA_ITEM = 169;
const CHUNK_ITEM = 228;
/** Chunks are 256 MiB to 10 GiB; the smallest are 8 MiB. */
const MAX_CHUNKS = 1024 * 1024;
/** The start of the device, left to boot loaders. */
const RESERVED_BYTES = 1024 * 1024;
/** Kept around each copy of the superblock: what btrfs leaves out of its chunks' use (BTRFS_STRIPE_LEN). */
const SUPERBLOCK_STRIPE_BYTES = 64 * 1024;

/** All chunks, by logical address. */
async function readChunks(part: ByteSource, fs: BtrfsLayout): Promise<BtrfsChunk[]> {
  const chunks: BtrfsChunk[] = [];
  const nodes: BtrfsNodes = { part, fs, chunks: fs.systemChunks.toSorted((a, b) => a.logical - b.logical) };
  await walkTree(nodes, { logical: fs.chunkRoot, level: fs.chunkRootLevel }, (item) => {
    if (item.type !== CHUNK_ITEM) return;
    if (chunks.length >= MAX_CHUNKS) throw damaged(part, 'too many chunks');
    chunks.push(parseChunk(part, fs, item.data, Number(item.offset)).chunk);
  });
  let end = 0;
  for (const chunk of chunks) {
    if (chunk.logical < end) throw damaged(part, 'its chunks overlap');
    end = chunk.logical + chunk.lengthBytes;
  }
  return chunks;
}

/** Where the extent tree begins. */
async function findExtentTree(nodes: BtrfsNodes): Promise<{ logical: number; level: number }> {
  const { fs } = nodes;
  let found: { logical: number; level: number } | undefined;
  await walkTree(nodes, { logical: fs.root, level: fs.rootLevel }, (item) => {
    if (item.objectId !== EXTENT_TREE || item.type !== ROOT_ITEM || item.data.length < 239) return;
    found = { logical: u64le(item.data, 176), level: item.data.readUInt8(238) };
  });
  if (found === undefined) throw damaged(nodes.part, 'it has no extent tree');
  return found;
}

/** Adds what lies between extents, which come in order, to free space, for each copy. */
class Gaps {
  readonly #chunks: readonly BtrfsChunk[];
  readonly #free: FreeSpace;
  #index = 0;
  #at = 0;
  usedBytes = 0;

  constructor(chunks: readonly BtrfsChunk[], free: FreeSpace) {
    this.#chunks = chunks;
    this.#free = free;
  }

  /** False when the extent overlaps the one before or leaves its chunk. */
  take(start: number, lengthBytes: number): boolean {
    const end = start + lengthBytes;
    if (!Number.isSafeInteger(end)) return false;
    while (this.#end !== undefined && this.#end <= start) this.#nextChunk();
    const chunk = this.#chunks[this.#index];
    const from = chunk === undefined ? 0 : Math.max(this.#at, chunk.logical);
    if (chunk === undefined || lengthBytes < 1 || start < from || end > chunk.logical + chunk.lengthBytes) {
      return false;
    }
    this.#add(chunk, from, start);
    this.#at = end;
    this.usedBytes += lengthBytes;
    return true;
  }

  /** What comes after the last extent. */
  finish(): void {
    while (this.#index < this.#chunks.length) this.#nextChunk();
  }

  get #end(): number | undefined {
    const chunk = this.#chunks[this.#index];
    return chunk && chunk.logical + chunk.lengthBytes;
  }

  #nextChunk(): void {
    const chunk = this.#chunks[this.#index];
    if (chunk) this.#add(chunk, Math.max(this.#at, chunk.logical), chunk.logical + chunk.lengthBytes);
    this.#index += 1;
  }

  #add(chunk: BtrfsChunk, from: number, to: number): void {
    for (const copy of chunk.copies) this.#free.add(copy + from - chunk.logical, to - from);
  }
}

/** Adds what is in no chunk. Throws when two chunks own the same bytes of the device. */
function addOutside(part: ByteSource, fs: BtrfsLayout, chunks: readonly BtrfsChunk[], free: FreeSpace): void {
  const places = chunks
    .flatMap((chunk) => chunk.copies.map((start) => ({ start, end: start + chunk.lengthBytes })))
    .sort((a, b) => a.start - b.start);
  let at = RESERVED_BYTES;
  let lastEnd = 0;
  for (const { start, end } of places) {
    if (start < lastEnd) throw damaged(part, 'its chunks overlap on the device');
    if (start > at) free.add(at, start - at);
    lastEnd = end;
    at = Math.max(at, end);
  }
  if (fs.deviceBytes > at) free.add(at, fs.deviceBytes - at);
}

/** The same without the start of the device and the copies of the superblock. */
function withoutSuperblocks(free: FreeSpace): FreeSpace {
  const kept = [
    { start: 0, end: RESERVED_BYTES },
    ...SUPERBLOCKS.map((start) => ({ start, end: start + SUPERBLOCK_STRIPE_BYTES })),
  ];
  const result = new FreeSpace();
  free.each((start, end) => {
    let at = start;
    for (const hole of kept) {
      if (hole.end <= at || hole.start >= end) continue;
      if (hole.start > at) result.add(at, hole.start - at);
      at = hole.end;
    }
    if (at < end) result.add(at, end - at);
  });
  return result;
}

/** Finds what is free in a btrfs. Throws DAMAGED for what is not consistent or not known. */
export async function parseBtrfs(part: ByteSource, state: DiskState): Promise<Found> {
  // its trees move with every commit: those of a moment later may lie where these say nothing is
  if (state === 'unheld') throw damaged(part, 'btrfs that may be in use');
  const fs = await readBtrfsLayout(part);
  if (fs.hasLog && state !== 'live') throw damaged(part, 'its log was not played back');
  const chunks = await readChunks(part, fs);
  const nodes: BtrfsNodes = { part, fs, chunks };
  const inside = new FreeSpace();
  const gaps = new Gaps(chunks, inside);
  await walkTree(nodes, await findExtentTree(nodes), (item) => {
    if (item.type !== EXTENT_ITEM && item.type !== METADATA_ITEM) return;
    const lengthBytes = item.type === EXTENT_ITEM ? Number(item.offset) : fs.nodeBytes;
    if (!gaps.take(item.objectId, lengthBytes)) throw damaged(part, 'an extent lies in an impossible place');
  });
  gaps.finish();
  if (gaps.usedBytes !== fs.usedBytes) {
    throw damaged(part, 'its extents do not add up to what its superblock counts');
  }
  addOutside(part, fs, chunks, inside);
  const free = withoutSuperblocks(inside);
  return {
    free,
    parts: [
      {
        startBytes: 0,
        sizeBytes: part.sizeBytes,
        kind: 'btrfs',
        ...(fs.label === '' ? {} : { label: fs.label }),
        uuid: fs.uuid,
        allocatedBytes: part.sizeBytes - free.bytes,
        how: 'btree',
      },
    ],
  };
}
