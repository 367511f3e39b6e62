/** Walks the trees of a btrfs: nodes are found through chunks, checked, and their keys must rise. */
import { type ByteSource, damaged, readExact, u64le } from '../image-format/reader.ts';
import { type BtrfsChunk, type BtrfsLayout, isBtrfsSumRight } from './btrfs-layout.ts';
import { inFlight } from './reading.ts';

const HEADER = 101;
const ITEM = 25;
const POINTER = 33;
/** BTRFS_MAX_LEVEL. */
const MAX_LEVEL = 7;

/** Where nodes are read from. */
export interface BtrfsNodes {
  part: ByteSource;
  fs: BtrfsLayout;
  /** By logical address. */
  chunks: readonly BtrfsChunk[];
}

/** An entry of a leaf. Its offset is given as it is stored: it may be any 64 bits. */
export interface BtrfsItem {
  objectId: number;
  type: number;
  offset: bigint;
  data: Buffer;
}

/** A node as its parent names it. */
interface Pointer {
  logical: number;
  level: number;
  /** Highest allowed generation: exactly this one when `exact`. */
  generation: number;
  exact: boolean;
}

function fault(nodes: BtrfsNodes): Error {
  return damaged(nodes.part, 'a tree of its metadata is not valid');
}

/** The chunk that holds an address; chunks are sorted. */
export function chunkAt(chunks: readonly BtrfsChunk[], logical: number): BtrfsChunk | undefined {
  let low = 0;
  let high = chunks.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    const chunk = chunks[middle] as BtrfsChunk;
    if (logical < chunk.logical) high = middle;
    else if (logical >= chunk.logical + chunk.lengthBytes) low = middle + 1;
    else return chunk;
  }
  return undefined;
}

async function readNode(nodes: BtrfsNodes, pointer: Pointer): Promise<Buffer> {
  const { fs, part, chunks } = nodes;
  const chunk = chunkAt(chunks, pointer.logical);
  if (chunk === undefined || pointer.logical + fs.nodeBytes > chunk.logical + chunk.lengthBytes)
    throw fault(nodes);
  const at = (chunk.copies[0] ?? 0) + pointer.logical - chunk.logical;
  const data = await readExact(part, at, fs.nodeBytes, 'metadata');
  const generation = u64le(data, 80);
  const right =
    isBtrfsSumRight(data) &&
    u64le(data, 48) === pointer.logical &&
    data.subarray(32, 48).equals(fs.metadataUuid) &&
    data.readUInt8(100) === pointer.level &&
    (pointer.exact ? generation === pointer.generation : generation <= pointer.generation);
  const entries = data.readUInt32LE(96);
  const size = pointer.level === 0 ? ITEM : POINTER;
  if (!right || entries > (fs.nodeBytes - HEADER) / size) throw fault(nodes);
  return data;
}

function pointersOf(data: Buffer, level: number): Pointer[] {
  return Array.from({ length: data.readUInt32LE(96) }, (_, i) => ({
    logical: u64le(data, HEADER + i * POINTER + 17),
    level: level - 1,
    generation: u64le(data, HEADER + i * POINTER + 25),
    exact: true,
  }));
}

function itemsOf(nodes: BtrfsNodes, data: Buffer): BtrfsItem[] {
  return Array.from({ length: data.readUInt32LE(96) }, (_, i) => {
    const at = HEADER + i * ITEM;
    const start = HEADER + data.readUInt32LE(at + 17);
    const end = start + data.readUInt32LE(at + 21);
    if (end > data.length) throw fault(nodes);
    return {
      objectId: u64le(data, at),
      type: data.readUInt8(at + 8),
      offset: data.readBigUInt64LE(at + 9),
      data: data.subarray(start, end),
    };
  });
}

/** Visits the items of a tree in order, each key higher than the one before. Leaves below one node are read together. */
export async function walkTree(
  nodes: BtrfsNodes,
  root: { logical: number; level: number },
  visit: (item: BtrfsItem) => void,
): Promise<void> {
  let before: BtrfsItem | undefined;
  const take = (data: Buffer): void => {
    for (const item of itemsOf(nodes, data)) {
      if (before !== undefined && !isAfter(item, before)) throw fault(nodes);
      before = item;
      visit(item);
    }
  };
  const descend = async (pointer: Pointer): Promise<void> => {
    const data = await readNode(nodes, pointer);
    if (pointer.level === 0) {
      take(data);
      return;
    }
    const children = pointersOf(data, pointer.level);
    if (children.length === 0) throw fault(nodes);
    if (pointer.level > 1) {
      for (const child of children) await descend(child);
      return;
    }
    const leaves: Buffer[] = [];
    await inFlight(children.entries(), async ([i, child]) => {
      leaves[i] = await readNode(nodes, child);
      if (leaves[i]?.readUInt32LE(96) === 0) throw fault(nodes);
    });
    for (const leaf of leaves) take(leaf);
  };
  if (root.level > MAX_LEVEL) throw fault(nodes);
  await descend({ ...root, generation: nodes.fs.generation, exact: false });
}

function isAfter(item: BtrfsItem, before: BtrfsItem): boolean {
  if (item.objectId !== before.objectId) return item.objectId > before.objectId;
  if (item.type !== before.type && item.objectId !== Number.POSITIVE_INFINITY) return item.type > before.type;
  // addresses beyond 2^53 all read as infinite: their order is not told, and none of them is used
  return item.offset > before.offset || item.objectId === Number.POSITIVE_INFINITY;
}
