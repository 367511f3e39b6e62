/** A digest that proves a source unchanged, without reading the holes of a sparse disk. */
import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { PortError } from '../core/errors.ts';
import { map } from './qemu-img.ts';

/**
 * How the digest was made. `plain` is the sha256 of the whole content, as sha256sum prints it. `blocks` is for files
 * with holes: sha256 over every 64 KiB block that is not all zeros, each preceded by its offset as 8 bytes
 * little-endian, and over the size at the end. It depends on the content alone: where the file system keeps holes or
 * stores zeros does not matter.
 */
export type DigestKind = 'plain' | 'blocks';

/** Digest of a source. */
export interface SourceDigest {
  kind: DigestKind;
  /** Hex. */
  sha256: string;
  /** Bytes read from the file or device. */
  readBytes: number;
}

/** How to make it. */
export interface DigestOptions {
  signal?: AbortSignal | undefined;
  /** Kind of an earlier digest to compare with; by default `blocks` when the file has holes. */
  kind?: DigestKind | undefined;
  onProgress?: ((doneBytes: number, totalBytes: number) => void) | undefined;
}

const BLOCK_BYTES = 64 * 1024;
/** Two buffers of this size: one is read while the other is summed. */
const READ_BYTES = 1024 * 1024;
const ZEROS = Buffer.alloc(BLOCK_BYTES);

interface Range {
  start: number;
  end: number;
}

/** Data runs of the file, widened to whole blocks and joined. */
async function dataRanges(path: string, signal: AbortSignal | undefined): Promise<Range[]> {
  const ranges: Range[] = [];
  for (const extent of await map({ path, format: 'raw' }, { signal })) {
    if (!extent.data) continue;
    const start = Math.floor(extent.startBytes / BLOCK_BYTES) * BLOCK_BYTES;
    const end = Math.ceil((extent.startBytes + extent.lengthBytes) / BLOCK_BYTES) * BLOCK_BYTES;
    const last = ranges.at(-1);
    if (last && start <= last.end) last.end = Math.max(last.end, end);
    else ranges.push({ start, end });
  }
  return ranges;
}

/** Reads the ranges in turn, one read ahead of the consumer, so the disk and the processor work together. */
async function readRanges(
  handle: fs.FileHandle,
  ranges: readonly Range[],
  signal: AbortSignal | undefined,
  consume: (data: Buffer, offset: number) => void,
): Promise<void> {
  const buffers = [Buffer.allocUnsafeSlow(READ_BYTES), Buffer.allocUnsafeSlow(READ_BYTES)] as const;
  let turn = 0;
  let pending: { data: Buffer; offset: number } | undefined;
  for (const range of ranges) {
    for (let offset = range.start; offset < range.end; ) {
      signal?.throwIfAborted();
      const buffer = buffers[turn === 0 ? 0 : 1];
      turn = 1 - turn;
      const reading = readFull(handle, buffer, offset, Math.min(READ_BYTES, range.end - offset));
      if (pending) consume(pending.data, pending.offset);
      const data = await reading;
      pending = { data, offset };
      if (data.length === 0) break; // end of the file
      offset += data.length;
    }
  }
  if (pending) consume(pending.data, pending.offset);
}

async function readFull(
  handle: fs.FileHandle,
  buffer: Buffer,
  offset: number,
  length: number,
): Promise<Buffer> {
  let filled = 0;
  while (filled < length) {
    const { bytesRead } = await handle.read(buffer, filled, length - filled, offset + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return buffer.subarray(0, filled);
}

/**
 * Digest of a file or block device, read once at disk speed; memory stays below 10 MiB. Changes of the content between
 * two digests of the same kind always show. Throws INTERRUPTED, HOST_IO.
 */
export async function sourceDigest(path: string, options: DigestOptions = {}): Promise<SourceDigest> {
  const { signal, onProgress } = options;
  try {
    const ranges = await dataRanges(path, signal);
    const handle = await fs.open(path, 'r');
    try {
      const { size } = await handle.stat();
      const whole = ranges.length === 1 && ranges[0]?.start === 0 && ranges[0].end >= size;
      const kind = options.kind ?? (whole ? 'plain' : 'blocks');
      const wanted = kind === 'plain' ? [{ start: 0, end: Number.MAX_SAFE_INTEGER }] : ranges;
      const totalBytes = kind === 'plain' ? size : ranges.reduce((sum, r) => sum + r.end - r.start, 0);
      const hash = createHash('sha256');
      const label = Buffer.alloc(8);
      let readBytes = 0;
      await readRanges(handle, wanted, signal, (data, offset) => {
        if (kind === 'plain') hash.update(data);
        else hashBlocks(hash, data, offset, label);
        readBytes += data.length;
        onProgress?.(Math.min(readBytes, totalBytes), totalBytes);
      });
      if (kind === 'blocks') {
        label.writeBigUInt64LE(BigInt(size));
        hash.update(label);
      }
      return { kind, sha256: hash.digest('hex'), readBytes };
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (signal?.aborted) throw new PortError('INTERRUPTED', 'reading the source stopped', { cause: error });
    throw error;
  }
}

function hashBlocks(hash: ReturnType<typeof createHash>, data: Buffer, offset: number, label: Buffer): void {
  for (let at = 0; at < data.length; at += BLOCK_BYTES) {
    const block = data.subarray(at, at + BLOCK_BYTES);
    if (block.equals(block.length === BLOCK_BYTES ? ZEROS : ZEROS.subarray(0, block.length))) continue;
    label.writeBigUInt64LE(BigInt(offset + at));
    hash.update(label);
    hash.update(block);
  }
}
