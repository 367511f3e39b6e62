/** Free space of XFS: the tree of free extents by block (bnobt) of each allocation group, checked against its header. */
import { PortError } from '../../core/errors.ts';
import { type ByteSource, damaged, readExact } from '../image-format/reader.ts';
import { FreeSpace } from './free-space.ts';
import { inFlight, windowOf } from './reading.ts';
import type { DiskState, Found } from './types.ts';
import { isXfsSumRight, readXfsLayout, type XfsLayout } from './xfs-layout.ts';
import { isLogClean } from './xfs-log.ts';

const AGF_MAGIC = 'XAGF';
/** XFS_BTREE_MAXLEVELS is 9. */
const MAX_LEVELS = 9;

interface Group {
  part: ByteSource;
  fs: XfsLayout;
  number: number;
  /** Blocks of this group; the last may be short. */
  blocks: number;
  startBytes: number;
}

/** A block of the tree, and what its parent promises of it: all it holds lies in [from, to). */
interface Node {
  block: number;
  from: number;
  to: number;
}

interface Root {
  block: number;
  levels: number;
  freeBlocks: number;
}

async function readHeader(group: Group): Promise<Root> {
  const { part, fs, number, startBytes } = group;
  const agf = await readExact(part, startBytes + fs.sectorBytes, fs.sectorBytes, 'allocation group header');
  if (
    agf.toString('latin1', 0, 4) !== AGF_MAGIC ||
    agf.readUInt32BE(4) !== 1 ||
    agf.readUInt32BE(8) !== number ||
    agf.readUInt32BE(12) !== group.blocks ||
    (fs.summed && (!isXfsSumRight(agf, 216) || !agf.subarray(64, 80).equals(fs.metaUuid)))
  ) {
    throw damaged(part, `allocation group ${number}: its header is not valid`);
  }
  const root = {
    block: agf.readUInt32BE(16),
    levels: agf.readUInt32BE(28),
    freeBlocks: agf.readUInt32BE(52),
  };
  if (root.levels < 1 || root.levels > MAX_LEVELS || root.freeBlocks > group.blocks) {
    throw damaged(part, `allocation group ${number}: its header is not valid`);
  }
  return root;
}

/** Reads one block of the tree and checks that it is what it should be. */
async function readNode(group: Group, node: Node, level: number): Promise<Buffer> {
  const { part, fs, startBytes } = group;
  if (node.block < 1 || node.block >= group.blocks) throw treeFault(group);
  const offset = startBytes + node.block * fs.blockBytes;
  const data = await readExact(part, offset, fs.blockBytes, 'free space tree');
  const right =
    data.toString('latin1', 0, 4) === (fs.summed ? 'AB3B' : 'ABTB') &&
    data.readUInt16BE(4) === level &&
    (!fs.summed ||
      (isXfsSumRight(data, 52) &&
        data.readBigUInt64BE(16) === BigInt(offset / 512) &&
        data.readUInt32BE(48) === group.number &&
        data.subarray(32, 48).equals(fs.metaUuid)));
  if (!right) throw treeFault(group);
  return data;
}

function treeFault(group: Group): PortError {
  return damaged(group.part, `allocation group ${group.number}: its tree of free space is not valid`);
}

/** Children of an inner block, each with its bounds. */
function childrenOf(group: Group, data: Buffer, node: Node): Node[] {
  const header = group.fs.summed ? 56 : 16;
  const most = Math.floor((data.length - header) / 12);
  const count = data.readUInt16BE(6);
  if (count < 1 || count > most) throw treeFault(group);
  const children: Node[] = [];
  for (let i = 0; i < count; i++) {
    const from = data.readUInt32BE(header + i * 8);
    const to = i + 1 < count ? data.readUInt32BE(header + (i + 1) * 8) : node.to;
    // the first key of a node may lag behind what is left of its first child, never the other way round
    if (from < node.from || from >= to) throw treeFault(group);
    children.push({ block: data.readUInt32BE(header + most * 8 + i * 4), from, to });
  }
  return children;
}

/** Adds the free extents of a leaf; returns their blocks. */
function takeLeaf(group: Group, data: Buffer, node: Node, free: FreeSpace): number {
  const { fs, startBytes } = group;
  const header = fs.summed ? 56 : 16;
  const count = data.readUInt16BE(6);
  if (header + count * 8 > data.length) throw treeFault(group);
  let at = node.from;
  let sum = 0;
  for (let i = 0; i < count; i++) {
    const start = data.readUInt32BE(header + i * 8);
    const blocks = data.readUInt32BE(header + i * 8 + 4);
    if (start < at || blocks < 1 || start + blocks > node.to) throw treeFault(group);
    free.add(startBytes + start * fs.blockBytes, blocks * fs.blockBytes);
    at = start + blocks;
    sum += blocks;
  }
  return sum;
}

/** What is free in one group. Throws DAMAGED. */
async function scanGroup(group: Group): Promise<FreeSpace> {
  const root = await readHeader(group);
  const { fs } = group;
  const free = new FreeSpace();
  // superblock, both headers and the free list take the first four sectors
  const first = Math.ceil((4 * fs.sectorBytes) / fs.blockBytes);
  let nodes: Node[] = [{ block: root.block, from: first, to: group.blocks }];
  let freeBlocks = 0;
  for (let level = root.levels - 1; level >= 0; level--) {
    // each block of the tree stands for at least one free block, so an endless tree is found out here
    if (nodes.length > root.freeBlocks + 1) throw treeFault(group);
    const below: Node[][] = [];
    await inFlight(nodes.entries(), async ([i, node]) => {
      const data = await readNode(group, node, level);
      if (level > 0) below[i] = childrenOf(group, data, node);
      else freeBlocks += takeLeaf(group, data, node, free);
    });
    nodes = below.flat();
  }
  if (freeBlocks !== root.freeBlocks) throw treeFault(group);
  return free;
}

/** Finds what is free in an XFS. Throws DAMAGED for what is not consistent or not known. */
export async function parseXfs(part: ByteSource, state: DiskState): Promise<Found> {
  const fs = await readXfsLayout(part);
  const isFrozen = typeof state === 'object' ? state.frozen.has(fs.uuid) : state === 'frozen';
  if (state !== 'live' && !isFrozen) {
    if (fs.log === undefined) throw damaged(part, 'its log is on another device');
    if (!(await isLogClean(windowOf(part, fs.log.startBytes, fs.log.lengthBytes)))) {
      throw damaged(part, 'its log was not played back');
    }
  }
  const free = new FreeSpace();
  let doubtful = 0;
  await inFlight(Array(fs.groups).keys(), async (number) => {
    const blocks = Math.min(fs.groupBlocks, fs.blocks - number * fs.groupBlocks);
    const startBytes = number * fs.groupBlocks * fs.blockBytes;
    try {
      free.addAll(await scanGroup({ part, fs, number, blocks, startBytes }), 0);
    } catch (error) {
      // on a disk in use a group may be caught in the middle of a change: that group counts whole
      if (state !== 'live' || !(error instanceof PortError) || error.code !== 'DAMAGED') throw error;
      doubtful += 1;
    }
  });
  if (fs.log !== undefined && free.overlaps([fs.log])) throw damaged(part, 'its log lies in free space');
  return {
    free,
    parts: [
      {
        startBytes: 0,
        sizeBytes: part.sizeBytes,
        kind: 'xfs',
        ...(fs.label === '' ? {} : { label: fs.label }),
        uuid: fs.uuid,
        allocatedBytes: part.sizeBytes - free.bytes,
        how: 'btree',
        ...(doubtful === 0 ? {} : { note: `${doubtful} groups were being changed and count whole` }),
      },
    ],
  };
}
