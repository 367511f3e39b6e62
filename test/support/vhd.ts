/** Small fixed VHDs with known holes, zeros and data. */
import { createHash, randomBytes } from 'node:crypto';
import { closeSync, ftruncateSync, openSync, readFileSync, statSync, writeSync } from 'node:fs';
import * as path from 'node:path';
import type { Artifact } from '../../core/types.ts';

const FOOTER = 512;

/** The footer of a fixed disk, by the published VHD format. */
function footer(bytes: number): Buffer {
  const data = Buffer.alloc(FOOTER);
  data.write('conectix', 0, 'latin1');
  data.writeUInt32BE(2, 8);
  data.writeUInt32BE(0x10000, 12);
  data.fill(0xff, 16, 24);
  data.write('tap\0', 28, 'latin1');
  data.writeBigUInt64BE(BigInt(bytes), 40);
  data.writeBigUInt64BE(BigInt(bytes), 48);
  data.writeUInt32BE(2, 60);
  randomBytes(16).copy(data, 68);
  let sum = 0;
  for (const byte of data) sum += byte;
  data.writeUInt32BE(~sum >>> 0, 64);
  return data;
}

/**
 * A VHD of `bytes` (without footer) with random data in these runs, written zeros in those, holes elsewhere. Offsets and
 * lengths are multiples of 4096.
 */
export function makeVhd(
  dir: string,
  bytes: number,
  runs: { data: readonly [number, number][]; zeros?: readonly [number, number][] },
  fields: Partial<Artifact> = {},
): Artifact & { dataBytes: number; allocatedBytes: number } {
  const file = path.join(dir, `${fields.disk ?? 'image'}.vhd`);
  const handle = openSync(file, 'w', 0o600);
  ftruncateSync(handle, bytes);
  for (const [at, length] of runs.data) writeSync(handle, randomBytes(length), 0, length, at);
  for (const [at, length] of runs.zeros ?? []) writeSync(handle, Buffer.alloc(length), 0, length, at);
  writeSync(handle, footer(bytes), 0, FOOTER, bytes);
  closeSync(handle);
  return {
    platform: 'azure',
    path: file,
    format: 'vpc',
    bytes: bytes + FOOTER,
    virtualBytes: bytes,
    sha256: createHash('sha256').update(readFileSync(file)).digest('hex'),
    dataBytes: runs.data.reduce((sum, [, length]) => sum + length, 0) + FOOTER,
    allocatedBytes: statSync(file).blocks * 512,
    ...fields,
  };
}
