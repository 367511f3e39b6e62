import { createHash, randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { BLOCK_BYTES } from '../../../core/sync/block-index.ts';
import { blocksIn, indexDisk } from '../../../tools/blocks/index-disk.ts';
import { map } from '../../../tools/qemu-img.ts';

let dir = '';

beforeAll(async () => {
  dir = await fs.mkdtemp(path.join(os.tmpdir(), 'port-image-index-'));
});
afterAll(async () => {
  await fs.rm(dir, { recursive: true, force: true });
});

const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

test('holes are not read, zeros in them count in the digest of the whole', async () => {
  const file = path.join(dir, 'sparse.raw');
  const virtualBytes = 200 * BLOCK_BYTES + 1536;
  const disk = Buffer.alloc(virtualBytes);
  const handle = await fs.open(file, 'w');
  await handle.truncate(virtualBytes);
  for (const at of [0, 5 * BLOCK_BYTES - 100, 120 * BLOCK_BYTES + 7, 200 * BLOCK_BYTES]) {
    const bytes = randomBytes(1536);
    bytes.copy(disk, at);
    await handle.write(bytes, 0, bytes.length, at);
  }
  // zeros that are written, not a hole
  await handle.write(Buffer.alloc(BLOCK_BYTES), 0, BLOCK_BYTES, 50 * BLOCK_BYTES);
  await handle.close();
  const extents = await map({ path: file, format: 'raw' });
  let total = 0;
  const index = await indexDisk(file, {
    virtualBytes,
    extents,
    onProgress: (_, totalBytes) => {
      total = totalBytes;
    },
  });
  expect(total).toBeLessThan(20 * BLOCK_BYTES);
  expect([...index.numbers]).toEqual([0, 4, 5, 120, 200]);
  expect(index.rawSha256).toBe(sha256(disk));
  expect(index).toEqual(await indexDisk(file, { virtualBytes }));
  const last = Buffer.alloc(BLOCK_BYTES);
  disk.copy(last, 0, 200 * BLOCK_BYTES);
  expect(index.digestAt(4)).toBe(sha256(last));
});

test('a file shorter than its disk ends in zeros', async () => {
  const file = path.join(dir, 'short.raw');
  const bytes = randomBytes(BLOCK_BYTES + 512);
  await fs.writeFile(file, bytes);
  const virtualBytes = 3 * BLOCK_BYTES;
  const index = await indexDisk(file, { virtualBytes });
  expect([...index.numbers]).toEqual([0, 1]);
  expect(index.rawSha256).toBe(sha256(Buffer.concat([bytes, Buffer.alloc(virtualBytes - bytes.length)])));
});

test('blocks touched by several extents are read once; data behind the end is not', () => {
  const data = true;
  const extents = [
    { startBytes: 100, lengthBytes: 50, data },
    { startBytes: 900, lengthBytes: 200, data },
    { startBytes: 1100, lengthBytes: 900, data: false },
    { startBytes: 2000, lengthBytes: 2000, data },
  ];
  expect([...blocksIn(extents, 1000, 2500)]).toEqual([0, 1, 2]);
});

test('it stops when it shall, also among zeros', async () => {
  const file = path.join(dir, 'stop.raw');
  await fs.writeFile(file, '');
  const abort = new AbortController();
  const work = indexDisk(file, { virtualBytes: 2 ** 43, extents: [], signal: abort.signal });
  setTimeout(() => abort.abort(), 20);
  await expect(work).rejects.toMatchObject({ code: 'INTERRUPTED' });
});
