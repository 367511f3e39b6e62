/** Reads a disk once: digests of its blocks, and that of the whole. */
import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { PortError } from '../../core/errors.ts';
import { BLOCK_BYTES, BlockIndex } from '../../core/sync/block-index.ts';
import type { MapExtent } from '../qemu-img.ts';

/** How to read. */
export interface IndexOptions {
  /** Size of the disk; the file may be shorter, the rest is zeros. */
  virtualBytes: number;
  /** Where the disk may hold something, ascending; the rest is not read, its zeros are known. All of it when absent. */
  extents?: readonly MapExtent[] | undefined;
  blockBytes?: number;
  signal?: AbortSignal | undefined;
  /** Bytes done of those in extents. */
  onProgress?: ((doneBytes: number, totalBytes: number) => void) | undefined;
}

/** Reads exactly one block; what lies behind the end of the disk reads as zeros. Throws HOST_IO by the file system's error. */
export async function readBlock(
  handle: fs.FileHandle,
  number: number,
  buffer: Buffer,
  virtualBytes: number,
): Promise<Buffer> {
  const start = number * buffer.length;
  const wanted = Math.min(buffer.length, virtualBytes - start);
  let filled = 0;
  while (filled < wanted) {
    const { bytesRead } = await handle.read(buffer, filled, wanted - filled, start + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  buffer.fill(0, filled);
  return buffer;
}

/** Numbers of the blocks that an extent with data touches, ascending. */
export function blocksIn(
  extents: readonly MapExtent[],
  blockBytes: number,
  virtualBytes: number,
): Uint32Array {
  const numbers: number[] = [];
  let next = 0;
  for (const { startBytes, lengthBytes, data } of extents) {
    if (!data) continue;
    const end = Math.ceil(Math.min(startBytes + lengthBytes, virtualBytes) / blockBytes);
    for (let at = Math.max(next, Math.floor(startBytes / blockBytes)); at < end; at++) numbers.push(at);
    next = Math.max(next, end);
  }
  return Uint32Array.from(numbers);
}

/**
 * Reads every block that may hold something. Blocks of zeros are left out of the index and counted in the digest of the whole.
 * Throws HOST_IO, INTERRUPTED.
 */
export async function indexDisk(rawPath: string, options: IndexOptions): Promise<BlockIndex> {
  const { virtualBytes, signal, onProgress } = options;
  const blockBytes = options.blockBytes ?? BLOCK_BYTES;
  const whole: MapExtent[] = [{ startBytes: 0, lengthBytes: virtualBytes, data: true }];
  const candidates = blocksIn(options.extents ?? whole, blockBytes, virtualBytes);
  const zeros = Buffer.alloc(blockBytes);
  const buffer = Buffer.allocUnsafeSlow(blockBytes);
  const digests = Buffer.alloc(candidates.length * 32);
  const numbers = new Uint32Array(candidates.length);
  const raw = createHash('sha256');
  const lengthOf = (number: number) => Math.min(blockBytes, virtualBytes - number * blockBytes);
  let found = 0;
  let hashed = 0;
  const fill = async (end: number) => {
    for (; hashed < end; hashed++) {
      raw.update(zeros.subarray(0, lengthOf(hashed)));
      // Hashing is synchronous: others in this process must get their turn.
      if (hashed % 16 === 0) await pauseTurn(signal);
    }
  };
  const handle = await fs.open(rawPath, 'r');
  try {
    for (const [done, number] of candidates.entries()) {
      if (signal?.aborted) throw new PortError('INTERRUPTED', 'interrupted');
      await fill(number);
      await readBlock(handle, number, buffer, virtualBytes);
      raw.update(buffer.subarray(0, lengthOf(number)));
      hashed = number + 1;
      if (!buffer.equals(zeros)) {
        numbers[found] = number;
        createHash('sha256')
          .update(buffer)
          .digest()
          .copy(digests, found * 32);
        found++;
      }
      onProgress?.((done + 1) * blockBytes, candidates.length * blockBytes);
    }
    await fill(Math.ceil(virtualBytes / blockBytes));
  } finally {
    await handle.close();
  }
  return new BlockIndex({
    blockBytes,
    virtualBytes,
    rawSha256: raw.digest('hex'),
    numbers: numbers.slice(0, found),
    digests: Buffer.from(digests.subarray(0, found * 32)),
  });
}

async function pauseTurn(signal: AbortSignal | undefined): Promise<void> {
  await new Promise(setImmediate);
  if (signal?.aborted) throw new PortError('INTERRUPTED', 'interrupted');
}
