/** Reads a page blob back and compares it with the file it was made of, byte by byte. */
import * as fs from 'node:fs/promises';
import type { PageBlobClient } from '@azure/storage-blob';
import type { ByteRange } from '../../core/disk-source.ts';
import { PortError } from '../../core/errors.ts';
import { withRetries } from '../openstack/retry.ts';
import { map } from '../qemu-img.ts';
import { azureError } from './errors.ts';
import { blocksOf, dataRuns, readExactly } from './page-runs.ts';

const LANES = 4;

/** Pages that were ever written and not cleared, in order, neighbours joined. Throws as azureError. */
export async function storedRanges(blob: PageBlobClient, signal: AbortSignal): Promise<ByteRange[]> {
  const ranges: ByteRange[] = [];
  try {
    for await (const { start, end, isClear } of blob.listPageRanges(0, undefined, { abortSignal: signal })) {
      if (isClear) continue;
      const last = ranges.at(-1);
      // `end` is the last byte itself
      if (last !== undefined && last.startBytes + last.lengthBytes === start)
        last.lengthBytes += end + 1 - start;
      else ranges.push({ startBytes: start, lengthBytes: end + 1 - start });
    }
  } catch (error) {
    throw azureError(error, 'asking which pages are stored', signal);
  }
  return ranges;
}

/** Whether one of the ranges, which are in order and do not touch, holds all of `run`. */
export function covers(ranges: readonly ByteRange[], run: ByteRange): boolean {
  let [low, high] = [0, ranges.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((ranges[middle]?.startBytes ?? 0) <= run.startBytes) low = middle + 1;
    else high = middle;
  }
  const found = ranges[low - 1];
  return found !== undefined && run.startBytes + run.lengthBytes <= found.startBytes + found.lengthBytes;
}

async function download(blob: PageBlobClient, range: ByteRange, signal: AbortSignal): Promise<Buffer> {
  return withRetries(
    async () => {
      try {
        return await blob.downloadToBuffer(range.startBytes, range.lengthBytes, {
          abortSignal: signal,
          concurrency: 1,
          maxRetryRequestsPerBlock: 5,
        });
      } catch (error) {
        throw azureError(error, `reading ${range.lengthBytes} bytes back`, signal);
      }
    },
    { signal },
  );
}

/**
 * Proves that the blob is the file: every stored page is read and compared, and every piece of the file that is not zeros
 * is stored. What is not stored reads as zeros. Returns the bytes read back. Throws CLOUD_MISMATCH.
 */
export async function provePages(
  blob: PageBlobClient,
  file: string,
  bytes: number,
  options: { signal: AbortSignal; onProgress(doneBytes: number, totalBytes: number): void },
): Promise<number> {
  const { signal } = options;
  const stored = await storedRanges(blob, signal);
  const pieces = [
    ...blocksOf(
      stored.map((r) => ({ ...r, data: true })),
      bytes,
    ).values(),
  ].flat();
  const total = pieces.reduce((sum, piece) => sum + piece.lengthBytes, 0);
  const handle = await fs.open(file, 'r');
  let done = 0;
  try {
    const lane = async () => {
      for (let piece = pieces.shift(); piece !== undefined; piece = pieces.shift()) {
        const [theirs, ours] = await Promise.all([download(blob, piece, signal), readExactly(handle, piece)]);
        if (!theirs.equals(ours)) {
          pieces.length = 0;
          throw mismatch(`the ${piece.lengthBytes} bytes at ${piece.startBytes} came back different`);
        }
        done += piece.lengthBytes;
        options.onProgress(done, total);
      }
    };
    for (const end of await Promise.allSettled(Array.from({ length: LANES }, lane)))
      if (end.status === 'rejected') throw end.reason;
    await proveNothingMissing(handle, file, bytes, stored, signal);
    return total;
  } finally {
    await handle.close();
  }
}

async function proveNothingMissing(
  handle: fs.FileHandle,
  file: string,
  bytes: number,
  stored: readonly ByteRange[],
  signal: AbortSignal,
): Promise<void> {
  const extents = await map({ path: file, format: 'raw' }, { signal });
  for (const part of [...blocksOf(extents, bytes).values()].flat()) {
    signal.throwIfAborted();
    for (const run of dataRuns(await readExactly(handle, part))) {
      const startBytes = part.startBytes + run.startBytes;
      if (!covers(stored, { startBytes, lengthBytes: run.lengthBytes }))
        throw mismatch(`data at ${startBytes} is not stored`);
    }
  }
}

function mismatch(text: string): PortError {
  return new PortError('CLOUD_MISMATCH', `the uploaded disk is not the image: ${text}`, {
    hint: 'run the job again; what was wrong there is not gone on with',
  });
}
