/** VirtualBox VDI 1.1. */
import { PortError } from '../../core/errors.ts';
import type { HeaderFacts } from './facts.ts';
import {
  type ByteSource,
  damaged,
  eachEntry,
  readExact,
  requireSaneSize,
  truncated,
  u64le,
  unsafe,
} from './reader.ts';

/** Block map entries: never written, and discarded. */
const FREE = 0xffff_ffff;
const ZERO = 0xffff_fffe;
const MIB = 1024 * 1024;

/** Checks header and block map. Throws what the gate refuses. */
export async function inspectVdi(source: ByteSource): Promise<HeaderFacts> {
  const data = await readExact(source, 0, 512, 'the header');
  if (data.readUInt32LE(0x44) !== 0x0001_0001) throw unsafe(source, 'only VDI version 1.1 is known');
  const type = data.readUInt32LE(0x4c);
  const linked = !data.subarray(0x1a8, 0x1c8).every((b) => b === 0);
  if (type === 3 || type === 4 || linked) {
    throw new PortError(
      'OUTSIDE_REFERENCE',
      `${source.name} is a differencing VDI: it needs its parent disk`,
      {
        hint: 'make one disk first: VBoxManage clonemedium disk',
      },
    );
  }
  if (type !== 1 && type !== 2) throw unsafe(source, `VDI type ${type} does not exist`);
  const virtualBytes = u64le(data, 0x170);
  requireSaneSize(source, virtualBytes);
  const blockBytes = data.readUInt32LE(0x178);
  const blocks = data.readUInt32LE(0x180);
  const allocated = data.readUInt32LE(0x184);
  const mapOffset = data.readUInt32LE(0x154);
  const dataOffset = data.readUInt32LE(0x158);
  if (data.readUInt32LE(0x168) !== 512) throw unsafe(source, 'its sectors are not 512 bytes');
  if (blockBytes !== MIB) throw unsafe(source, `its blocks are ${blockBytes} bytes, not 1 MiB`);
  if (blocks !== Math.ceil(virtualBytes / MIB)) throw damaged(source, 'number of blocks and size do not fit');
  if (mapOffset < 512 || mapOffset % 512 !== 0 || dataOffset % 512 !== 0 || dataOffset < mapOffset) {
    throw damaged(source, 'its block map is misplaced');
  }
  const table = { offset: mapOffset, entries: blocks, entryBytes: 4, what: 'the block map' };
  await eachEntry(source, table, (piece, at, index) => {
    const block = piece.readUInt32LE(at);
    if (block === FREE || block === ZERO) return;
    if (block >= allocated) throw damaged(source, `block ${index} points behind the allocated blocks`);
    const bytes = Math.min(MIB, virtualBytes - index * MIB);
    if (dataOffset + block * MIB + bytes > source.sizeBytes) throw truncated(source, `block ${index}`);
  });
  return { virtualBytes: Math.ceil(virtualBytes / 512) * 512 };
}
