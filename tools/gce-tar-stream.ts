/**
 * GCE's container as a stream, made of a disk whose blocks are known: no copy of it lies on this machine, every block is
 * compared with its digest on the way, and the same disk gives the same bytes, so that a broken upload is gone on with.
 * Form: `tar --format=oldgnu -S` (GNU tar manual, "Old GNU Format"), as gce-tar.ts writes it with GNU tar.
 */
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { KIB } from '../core/sizes.ts';
import type { BlockIndex } from '../core/sync/block-index.ts';
import type { LocalDisk } from '../core/sync/types.ts';
import { VerifiedReader } from './blocks/verified-reader.ts';
import { GCE_MEMBER, GZIP_LEVEL } from './gce-tar.ts';

const BLOCK = 512;
/** Records of GNU tar: what follows the last member is filled up to a whole one. */
const RECORD = 20 * BLOCK;
const RANGES_IN_HEADER = 4;
const RANGES_IN_BLOCK = 21;
const CHUNK_BYTES = 256 * KIB;

/** A piece of the file that is in the archive. */
interface Range {
  offset: number;
  bytes: number;
}

/** A number in 12 bytes: octal, or in base 256 when that is too short. */
function putNumber(target: Buffer, at: number, value: number): void {
  if (value < 8 ** 11) {
    target.write(`${value.toString(8).padStart(11, '0')}\0`, at, 'latin1');
    return;
  }
  target[at] = 0x80;
  target.writeBigUInt64BE(BigInt(value), at + 4);
}

function putRanges(target: Buffer, at: number, ranges: readonly Range[]): void {
  for (const [i, { offset, bytes }] of ranges.entries()) {
    putNumber(target, at + i * 24, offset);
    putNumber(target, at + i * 24 + 12, bytes);
  }
}

/** Where the disk holds something, neighbours joined; ends with an empty range when its end is a hole, as GNU tar has it. */
function rangesOf({ numbers, blockBytes }: BlockIndex, fileBytes: number): Range[] {
  const ranges: Range[] = [];
  for (const number of numbers) {
    const offset = number * blockBytes;
    const bytes = Math.min(blockBytes, fileBytes - offset);
    const last = ranges.at(-1);
    if (last !== undefined && last.offset + last.bytes === offset) last.bytes += bytes;
    else ranges.push({ offset, bytes });
  }
  const last = ranges.at(-1);
  if (last === undefined || last.offset + last.bytes < fileBytes)
    ranges.push({ offset: fileBytes, bytes: 0 });
  return ranges;
}

/** The header of the only member, with all that belongs to it. */
function header(ranges: readonly Range[], fileBytes: number): Buffer {
  const head = Buffer.alloc(BLOCK);
  head.write(GCE_MEMBER, 0, 'latin1');
  head.write('0000644\0', 100, 'latin1');
  head.write('0000000\0', 108, 'latin1');
  head.write('0000000\0', 116, 'latin1');
  putNumber(
    head,
    124,
    ranges.reduce((sum, { bytes }) => sum + bytes, 0),
  );
  putNumber(head, 136, 0);
  head.write(' '.repeat(8), 148, 'latin1');
  head.write('S', 156, 'latin1');
  head.write('ustar  \0', 257, 'latin1');
  putRanges(head, 386, ranges.slice(0, RANGES_IN_HEADER));
  head[482] = ranges.length > RANGES_IN_HEADER ? 1 : 0;
  putNumber(head, 483, fileBytes);
  const sum = head.reduce((total, byte) => total + byte, 0);
  head.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  const blocks = [head];
  for (let at = RANGES_IN_HEADER; at < ranges.length; at += RANGES_IN_BLOCK) {
    const more = Buffer.alloc(BLOCK);
    putRanges(more, 0, ranges.slice(at, at + RANGES_IN_BLOCK));
    more[504] = at + RANGES_IN_BLOCK < ranges.length ? 1 : 0;
    blocks.push(more);
  }
  return Buffer.concat(blocks);
}

async function* tarOf(
  disk: LocalDisk,
  fileBytes: number,
  onBytes: (bytes: number) => void,
): AsyncGenerator<Buffer> {
  const { index } = disk;
  const head = header(rangesOf(index, fileBytes), fileBytes);
  yield head;
  let total = head.length;
  const reader = await VerifiedReader.open(disk);
  try {
    for (const number of index.numbers) {
      const block = await reader.block(number);
      if (block === undefined) continue;
      const piece = block.subarray(0, Math.min(block.length, fileBytes - number * index.blockBytes));
      yield piece;
      total += piece.length;
      onBytes(piece.length);
    }
  } finally {
    await reader.close();
  }
  const rest = (RECORD - ((total + 2 * BLOCK) % RECORD)) % RECORD;
  yield Buffer.alloc(2 * BLOCK + rest);
}

/**
 * The archive, compressed. `fileBytes` are those of `disk.raw`, a multiple of 512, at least those of the disk; what is behind it is a hole.
 * `onBytes` is told of bytes that were read. Throws SOURCE_CHANGED and what reading throws.
 */
export async function* gceTarStream(
  disk: LocalDisk,
  fileBytes: number,
  options: { signal: AbortSignal; onBytes?: (bytes: number) => void },
): AsyncGenerator<Buffer> {
  const { signal, onBytes = () => {} } = options;
  const gzip = createGzip({ level: GZIP_LEVEL, chunkSize: CHUNK_BYTES });
  const packed = pipeline(Readable.from(tarOf(disk, fileBytes, onBytes)), gzip, { signal });
  // The reader of `gzip` is told too.
  packed.catch(() => {});
  for await (const chunk of gzip) yield chunk as Buffer;
  await packed;
}
