/** Disks for tests of copies and passes. */
import { createHash } from 'node:crypto';
import { BLOCK_BYTES } from '../../../core/disk-source.ts';

/** sha256 of bytes. */
export const sum = (data: Uint8Array): Buffer => createHash('sha256').update(data).digest();

/** A block of bytes that differ by `seed`; 0 is zeros. */
export function blockOf(seed: number, lengthBytes = BLOCK_BYTES): Buffer {
  const data = Buffer.alloc(lengthBytes);
  if (seed === 0) return data;
  for (let at = 0; at + 4 <= lengthBytes; at += 4096) data.writeUInt32LE(seed * 7919 + at, at);
  data[lengthBytes - 1] = 1 + (seed % 255);
  return data;
}
