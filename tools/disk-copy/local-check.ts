/** Compares the bytes of a copy with its index. */
import { createHash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import * as qemuImg from '../qemu-img.ts';
import type { IndexFile } from './index-file.ts';
import { zeroSum } from './zeros.ts';

/** What a check may be given. */
export interface CheckOptions {
  signal?: AbortSignal | undefined;
  /** Bytes of the disk that were compared; about every 4 MiB of data. */
  onProgress?: ((doneBytes: number, totalBytes: number) => void) | undefined;
}

/** Blocks for which the file system holds bytes; the others are holes and read as zeros. */
async function storedBlocks(file: string, index: IndexFile, signal?: AbortSignal): Promise<Uint8Array> {
  const stored = new Uint8Array(index.blockCount);
  const { blockBytes } = index.header;
  for (const extent of await qemuImg.map({ path: file, format: 'raw' }, { signal })) {
    if (!extent.data) continue;
    const end = Math.ceil((extent.startBytes + extent.lengthBytes) / blockBytes);
    stored.fill(1, Math.floor(extent.startBytes / blockBytes), end);
  }
  return stored;
}

/**
 * Numbers of the blocks whose bytes are not what the index says, ascending; unknown ones are not looked at. Reads the
 * data of the copy once; holes are not read.
 * Throws INTERRUPTED, and errors of the file system as they are.
 */
export async function* differingBlocks(
  file: string,
  raw: FileHandle,
  index: IndexFile,
  options: CheckOptions = {},
): AsyncGenerator<number> {
  const { sizeBytes, blockBytes } = index.header;
  const stored = await storedBlocks(file, index, options.signal);
  const buffer = Buffer.allocUnsafeSlow(blockBytes);
  for (let block = 0; block < index.blockCount; block++) {
    const { state, sha256 } = index.get(block);
    if (state === 'unknown' || (state === 'hole' && stored[block] === 0)) continue;
    const lengthBytes = Math.min(blockBytes, sizeBytes - block * blockBytes);
    let found = zeroSum(lengthBytes);
    if (stored[block] === 1) {
      options.signal?.throwIfAborted();
      found = await readSum(raw, buffer.subarray(0, lengthBytes), block * blockBytes);
      options.onProgress?.(block * blockBytes + lengthBytes, sizeBytes);
    }
    if (!found.equals(state === 'hole' ? zeroSum(lengthBytes) : sha256)) yield block;
  }
}

async function readSum(raw: FileHandle, buffer: Buffer, offset: number): Promise<Buffer> {
  for (let filled = 0; filled < buffer.length; ) {
    const { bytesRead } = await raw.read(buffer, filled, buffer.length - filled, offset + filled);
    if (bytesRead === 0) {
      buffer.fill(0, filled);
      break;
    }
    filled += bytesRead;
  }
  return createHash('sha256').update(buffer).digest();
}
