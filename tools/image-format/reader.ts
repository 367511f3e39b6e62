/** Small, bounded reads of a file somebody else made. Parsers see only this, so tests can feed them bytes. */
import type * as fs from 'node:fs/promises';
import { PortError } from '../../core/errors.ts';

/** Bytes with a size and a name for messages. */
export interface ByteSource {
  /** Printable, for messages. */
  readonly name: string;
  readonly sizeBytes: number;
  /** Bytes at `offset`; fewer than asked only at the end. */
  read(offset: number, length: number): Promise<Buffer>;
}

/** Most bytes one read may ask for; larger tables are read in pieces, so memory stays flat. */
const MAX_READ_BYTES = 1024 * 1024;

/** Largest disk we believe in: 64 TiB, what Hyper-V and VMware stop at; a header that says more is an attack. */
const MAX_VIRTUAL_BYTES = 64 * 1024 ** 4;

/**
 * Most second-level tables one image may have. Each costs a read of some 20 µs; at usual sizes (64 KiB clusters,
 * 512 grains of 64 KiB) a tenth of them describes the largest disk.
 */
export const MAX_TABLES = 1024 * 1024;

/** A ByteSource over an open file. */
export function fileSource(handle: fs.FileHandle, name: string, sizeBytes: number): ByteSource {
  return {
    name,
    sizeBytes,
    async read(offset, length) {
      const wanted = Math.max(0, Math.min(length, sizeBytes - offset));
      const buffer = Buffer.alloc(wanted);
      let filled = 0;
      while (filled < wanted) {
        const { bytesRead } = await handle.read(buffer, filled, wanted - filled, offset + filled);
        if (bytesRead === 0) break;
        filled += bytesRead;
      }
      return buffer.subarray(0, filled);
    },
  };
}

/** A ByteSource over memory. */
export function bufferSource(data: Buffer, name = 'disk.img', sizeBytes = data.length): ByteSource {
  return {
    name,
    sizeBytes,
    read: async (offset, length) => data.subarray(offset, offset + Math.max(0, length)),
  };
}

/** Reads exactly `length` bytes. Throws DAMAGED naming `what` when the file ends before. */
export async function readExact(
  source: ByteSource,
  offset: number,
  length: number,
  what: string,
): Promise<Buffer> {
  if (length > MAX_READ_BYTES) throw new PortError('BUG', `read of ${length} bytes`);
  requireInside(source, offset, length, what);
  const data = await source.read(offset, length);
  if (data.length < length) throw truncated(source, what);
  return data;
}

/** The error of a file that ends too early. */
export function truncated(source: ByteSource, what: string): PortError {
  return new PortError('DAMAGED', `${source.name} is truncated: ${what} lies beyond the end of the file`, {
    hint: 'copy or download the image again and compare its checksum',
  });
}

/** The error of metadata that contradicts itself. */
export function damaged(source: ByteSource, why: string): PortError {
  return new PortError('DAMAGED', `${source.name} is damaged: ${why}`, {
    hint: 'copy or export the image again',
  });
}

/** The error of a header that asks for something no honest image needs. */
export function unsafe(source: ByteSource, why: string): PortError {
  return new PortError('UNSAFE_IMAGE', `${source.name} is refused: ${why}`, {
    hint: 'export the disk again with a current tool',
  });
}

/** Throws DAMAGED when the range does not lie in the file. */
export function requireInside(source: ByteSource, offset: number, length: number, what: string): void {
  if (!Number.isSafeInteger(offset) || offset < 0 || offset + length > source.sizeBytes) {
    throw truncated(source, what);
  }
}

/** Throws UNSAFE_IMAGE for a virtual size nobody has, DAMAGED for none. */
export function requireSaneSize(source: ByteSource, virtualBytes: number): void {
  if (virtualBytes > MAX_VIRTUAL_BYTES) throw unsafe(source, 'its header claims a disk of more than 64 TiB');
  if (virtualBytes <= 0) {
    throw new PortError('EMPTY_DISK', `${source.name} is empty: its header says a disk of 0 bytes`);
  }
}

/** Big-endian 64-bit number; values above 2^53 come back as Infinity, which every bounds check refuses. */
export function u64be(data: Buffer, at: number): number {
  const value = data.readUInt32BE(at) * 0x1_0000_0000 + data.readUInt32BE(at + 4);
  return Number.isSafeInteger(value) ? value : Number.POSITIVE_INFINITY;
}

/** Little-endian 64-bit number; values above 2^53 come back as Infinity, which every bounds check refuses. */
export function u64le(data: Buffer, at: number): number {
  const value = data.readUInt32LE(at + 4) * 0x1_0000_0000 + data.readUInt32LE(at);
  return Number.isSafeInteger(value) ? value : Number.POSITIVE_INFINITY;
}

/** Runs over a table of fixed-size entries piece by piece. `offset` and `bytes` must lie in the file. */
export async function eachEntry(
  source: ByteSource,
  table: { offset: number; entries: number; entryBytes: number; what: string },
  visit: (data: Buffer, at: number, index: number) => void,
): Promise<void> {
  const { offset, entries, entryBytes, what } = table;
  requireInside(source, offset, entries * entryBytes, what);
  const perRead = Math.floor(MAX_READ_BYTES / entryBytes);
  for (let index = 0; index < entries; index += perRead) {
    const count = Math.min(perRead, entries - index);
    const data = await readExact(source, offset + index * entryBytes, count * entryBytes, what);
    for (let i = 0; i < count; i++) visit(data, i * entryBytes, index + i);
  }
}
