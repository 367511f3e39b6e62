/** Zeros: their sums, and how a run of a file is made to read as zeros. */
import { createHash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { run } from '../../core/command.ts';
import type { ByteRange } from '../../core/disk-source.ts';
import { PortError } from '../../core/errors.ts';
import { writeFull } from '../../core/files.ts';

const PIECE_BYTES = 64 * 1024;
const ZEROS = Buffer.alloc(PIECE_BYTES);
const sums = new Map<number, Buffer>();

/** sha256 of so many zero bytes; remembered, because a disk knows only two lengths of blocks. */
export function zeroSum(lengthBytes: number): Buffer {
  let sum = sums.get(lengthBytes);
  if (sum === undefined) {
    sum = createHash('sha256').update(Buffer.alloc(lengthBytes)).digest();
    sums.set(lengthBytes, sum);
  }
  return sum;
}

/** True when all bytes are zero. */
export function isZero(data: Buffer): boolean {
  for (let at = 0; at < data.length; at += PIECE_BYTES) {
    const piece = data.subarray(at, at + PIECE_BYTES);
    if (!piece.equals(piece.length === PIECE_BYTES ? ZEROS : ZEROS.subarray(0, piece.length))) return false;
  }
  return true;
}

/** The runs of pieces of 64 KiB that hold something. */
export function nonZeroRuns(data: Buffer): ByteRange[] {
  const runs: ByteRange[] = [];
  for (let at = 0; at < data.length; at += PIECE_BYTES) {
    const piece = data.subarray(at, at + PIECE_BYTES);
    if (isZero(piece)) continue;
    const last = runs.at(-1);
    if (last !== undefined && last.startBytes + last.lengthBytes === at) last.lengthBytes += piece.length;
    else runs.push({ startBytes: at, lengthBytes: piece.length });
  }
  return runs;
}

/** Makes a run of a file read as zeros: a hole where the file system can, written zeros elsewhere. */
export async function clear(handle: FileHandle, file: string, range: ByteRange): Promise<void> {
  const { startBytes, lengthBytes } = range;
  try {
    // Node has no call for this
    const where = ['--offset', String(startBytes), '--length', String(lengthBytes)];
    await run('fallocate', ['--punch-hole', ...where, '--', file], { timeoutMs: 600_000 });
  } catch (error) {
    if (!(error instanceof PortError) || error.code === 'INTERRUPTED') throw error;
    const zeros = Buffer.alloc(Math.min(lengthBytes, 1024 * 1024));
    for (let done = 0; done < lengthBytes; done += zeros.length) {
      await writeFull(
        handle,
        zeros.subarray(0, Math.min(zeros.length, lengthBytes - done)),
        startBytes + done,
      );
    }
  }
}
