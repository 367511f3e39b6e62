/** Writing a disk into a file of ours: zeros become holes, and the file has its name only when it is whole. */
import { createHash, type Hash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { FILE_MODE, renameDurable, requireFreeSpace, temporaryName, writeFull } from '../../core/files.ts';
import { MIB, roundUp } from '../../core/sizes.ts';

/** Zero runs of at least this become holes: the block of common file systems, times 16 to keep the extent list short. */
const HOLE_BYTES = 64 * 1024;
const ZEROS = Buffer.alloc(HOLE_BYTES);
/** Free space is looked at each time this much was written. */
const SPACE_STEP_BYTES = 256 * MIB;

/** How to write. */
export interface SparseOptions {
  /** Bytes of the folder's file system that stay free. */
  reserveBytes: number;
  /** Most bytes of content; `tooLong` is thrown when more comes. */
  maxBytes: number;
  tooLong: () => Error;
  signal?: AbortSignal | undefined;
}

/** What was written. */
export interface WrittenFile {
  sizeBytes: number;
  /** sha256 in hex over the blocks that are not zero, as `sourceDigest` makes it (kind `blocks`); holes cost nothing. */
  blocksSha256: string;
}

/** A piece of content: bytes, or a run of zeros that takes no memory. */
export type Content = Buffer | { zeroBytes: number };

/** A run of content at its place; starts on a hole border. */
interface Piece {
  offset: number;
  data: Buffer;
}

/**
 * Collects pieces of any length into whole runs, so that holes fall on block borders. Long zeros are skipped; the last run tells
 * the length of the content, with no data if it ends in zeros.
 */
async function* aligned(content: AsyncIterable<Content>): AsyncGenerator<Piece> {
  const buffer = Buffer.alloc(MIB);
  let offset = 0;
  let filled = 0;
  const flush = (): Piece => {
    const piece = { offset, data: buffer.subarray(0, filled) };
    offset += filled;
    filled = 0;
    return piece;
  };
  for await (const piece of content) {
    if (Buffer.isBuffer(piece)) {
      for (let at = 0; at < piece.length; ) {
        const count = piece.copy(buffer, filled, at, at + (MIB - filled));
        filled += count;
        at += count;
        if (filled === MIB) yield flush();
      }
      continue;
    }
    let left = piece.zeroBytes;
    const toBorder = Math.min(left, roundUp(filled, HOLE_BYTES) - filled);
    buffer.fill(0, filled, filled + toBorder);
    filled += toBorder;
    left -= toBorder;
    if (left === 0) {
      if (filled === MIB) yield flush();
      continue;
    }
    if (filled > 0) yield flush();
    const rest = left % HOLE_BYTES;
    offset += left - rest;
    buffer.fill(0, 0, rest);
    filled = rest;
  }
  yield flush();
}

/** Runs of a buffer that are not zero, on hole borders. */
function dataRuns(data: Buffer): [start: number, end: number][] {
  const runs: [number, number][] = [];
  for (let at = 0; at < data.length; at += HOLE_BYTES) {
    const end = Math.min(at + HOLE_BYTES, data.length);
    if (data.compare(ZEROS, 0, end - at, at, end) === 0) continue;
    const last = runs.at(-1);
    if (last?.[1] === at) last[1] = end;
    else runs.push([at, end]);
  }
  return runs;
}

/** The form of `sourceDigest`: each block with its offset in front. */
function hashBlocks(hash: Hash, data: Buffer, offset: number, label: Buffer): void {
  for (let at = 0; at < data.length; at += HOLE_BYTES) {
    label.writeBigUInt64LE(BigInt(offset + at));
    hash.update(label).update(data.subarray(at, at + HOLE_BYTES));
  }
}

/**
 * Writes `content` to `target` (0600): under a temporary name, flushed, renamed. Nothing is left when it fails. Throws what
 * the content throws, `tooLong`, DISK_SPACE and file system errors.
 */
export async function writeSparse(
  target: string,
  content: AsyncIterable<Content>,
  options: SparseOptions,
): Promise<WrittenFile> {
  const temporary = temporaryName(target);
  const hash = createHash('sha256');
  const label = Buffer.alloc(8);
  let sizeBytes = 0;
  let unchecked = SPACE_STEP_BYTES;
  try {
    const handle = await fs.open(temporary, 'wx', FILE_MODE);
    try {
      for await (const { offset, data } of aligned(content)) {
        options.signal?.throwIfAborted();
        sizeBytes = offset + data.length;
        if (sizeBytes > options.maxBytes) throw options.tooLong();
        for (const [start, end] of dataRuns(data)) {
          if (unchecked >= SPACE_STEP_BYTES) {
            await requireFreeSpace(path.dirname(target), options.reserveBytes, 'unpacking the source');
            unchecked = 0;
          }
          hashBlocks(hash, data.subarray(start, end), offset + start, label);
          await writeFull(handle, data.subarray(start, end), offset + start);
          unchecked += end - start;
        }
      }
      await handle.truncate(sizeBytes);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await renameDurable(temporary, target);
  } catch (error) {
    await fs.rm(temporary, { force: true });
    throw error;
  }
  label.writeBigUInt64LE(BigInt(sizeBytes));
  return { sizeBytes, blocksSha256: hash.update(label).digest('hex') };
}
