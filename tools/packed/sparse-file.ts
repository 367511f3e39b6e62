/** Writing a disk into a file of ours: zeros become holes, and the file has its name only when it is whole. */
import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { FILE_MODE, renameDurable, requireFreeSpace, temporaryName } from '../../core/files.ts';
import { MIB } from '../../core/sizes.ts';

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
  /** Called with the bytes of content so far. */
  onProgress?: ((doneBytes: number) => void) | undefined;
}

/** What was written. */
export interface WrittenFile {
  sizeBytes: number;
  /** sha256 of the content in hex. */
  sha256: string;
}

/** Collects pieces of any length into whole runs, so that holes fall on block borders. */
async function* aligned(content: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const buffer = Buffer.allocUnsafe(MIB);
  let filled = 0;
  for await (const piece of content) {
    for (let at = 0; at < piece.length; ) {
      const count = piece.copy(buffer, filled, at, at + (MIB - filled));
      filled += count;
      at += count;
      if (filled === MIB) {
        yield buffer;
        filled = 0;
      }
    }
  }
  if (filled > 0) yield buffer.subarray(0, filled);
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

/**
 * Writes `content` to `target` (0600): under a temporary name, flushed, renamed. Nothing is left when it fails. Throws what
 * the content throws, `tooLong`, DISK_SPACE and file system errors.
 */
export async function writeSparse(
  target: string,
  content: AsyncIterable<Buffer>,
  options: SparseOptions,
): Promise<WrittenFile> {
  const temporary = temporaryName(target);
  const hash = createHash('sha256');
  let sizeBytes = 0;
  let unchecked = SPACE_STEP_BYTES;
  try {
    const handle = await fs.open(temporary, 'wx', FILE_MODE);
    try {
      for await (const data of aligned(content)) {
        options.signal?.throwIfAborted();
        if (sizeBytes + data.length > options.maxBytes) throw options.tooLong();
        hash.update(data);
        for (const [start, end] of dataRuns(data)) {
          if (unchecked >= SPACE_STEP_BYTES) {
            await requireFreeSpace(path.dirname(target), options.reserveBytes, 'unpacking the source');
            unchecked = 0;
          }
          await handle.write(data, start, end - start, sizeBytes + start);
          unchecked += end - start;
        }
        sizeBytes += data.length;
        options.onProgress?.(sizeBytes);
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
  return { sizeBytes, sha256: hash.digest('hex') };
}
