/** A file system that has room for a part of the last write only: the kernel writes that part and reports no error. */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { goodDisk } from '../../../fixtures/hostile/build.ts';
import { planPacked, unpack } from '../../../tools/packed/index.ts';

const MIB = 1024 * 1024;
const missing = process.getuid?.() !== 0;
let dir: string;
let small: string;

beforeAll(async () => {
  if (missing) return;
  dir = await fs.mkdtemp(path.join(tmpdir(), 'port-image-full-'));
  small = path.join(dir, 'small');
  await fs.mkdir(small);
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=16m', 'tmpfs', small]);
});
afterAll(async () => {
  if (missing) return;
  execFileSync('umount', [small]);
  await fs.rm(dir, { recursive: true, force: true });
});

test.skipIf(missing)('a disk that does not fit is never left cut', async () => {
  const disk = goodDisk();
  const content = Buffer.concat([disk, randomBytes(800 * 1024)]);
  randomBytes(disk.length - 2 * MIB).copy(content, 2 * MIB);
  const file = path.join(dir, 'disk.raw.gz');
  await fs.writeFile(file, gzipSync(content, { level: 1 }));
  const plan = await planPacked(file, 'gzip');
  let refused = 0;
  // somewhere in between a part of the last write fits
  for (let roomBytes = 6 * MIB; roomBytes <= 9 * MIB; roomBytes += 128 * 1024) {
    execFileSync('mount', ['-o', `remount,size=${roomBytes}`, small]);
    const unpacked = await unpack(plan, small, { limits: { reserveBytes: 0 } }).catch((error: unknown) => {
      expect(error).toMatchObject({ code: 'DISK_SPACE' });
      refused += 1;
      return [];
    });
    for (const one of unpacked)
      expect((await fs.readFile(one.path)).equals(content), `${roomBytes}`).toBe(true);
    if (unpacked.length === 0) expect(await fs.readdir(small)).toEqual([]);
    for (const name of await fs.readdir(small)) await fs.rm(path.join(small, name));
  }
  expect(refused).toBeGreaterThan(0);
});
