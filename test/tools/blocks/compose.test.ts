import { createHash, randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { BLOCK_BYTES, BlockIndex } from '../../../core/sync/block-index.ts';
import {
  type Composed,
  type ComposedReader,
  compose,
  composedDigests,
} from '../../../tools/blocks/compose.ts';
import { indexDisk, readBlock } from '../../../tools/blocks/index-disk.ts';
import { packsOf, unpackBlock } from '../../../tools/blocks/pack.ts';
import { BlockTable } from '../../../tools/blocks/table.ts';
import * as qemuImg from '../../../tools/qemu-img.ts';

let dir = '';
/** Packs as a store would hold them. */
const store = new Map<string, Buffer>();

beforeAll(async () => {
  dir = await fs.mkdtemp(path.join(os.tmpdir(), 'port-image-blocks-'));
});
afterAll(async () => {
  await fs.rm(dir, { recursive: true, force: true });
});

/** Text that compresses like files do. */
function wordy(bytes: number, seed: number): Buffer {
  const words = ['server', 'error', 'listen', 'daemon', 'kernel', 'package', 'update', `${seed}`];
  let text = '';
  for (let i = seed; text.length < bytes; i = (i * 1103515245 + 12345) % 2147483648)
    text += `${words[i % 8]} ${i}\n`;
  return Buffer.from(text.slice(0, bytes));
}

/** One night: stores what is not in the table, and describes the image over all of it. */
async function night(
  disk: Buffer,
  table: BlockTable,
): Promise<{ index: BlockIndex; sent: number; raw: string; composed: Composed }> {
  const raw = path.join(dir, `disk-${randomBytes(4).toString('hex')}.raw`);
  await fs.writeFile(raw, disk);
  const index = await indexDisk(raw, { virtualBytes: disk.length });
  expect(index.rawSha256).toBe(createHash('sha256').update(disk).digest('hex'));
  const missing: { digest: string; number: number }[] = [];
  for (let at = 0; at < index.count; at++) {
    const digest = index.digestAt(at);
    if (table.find(digest) === undefined) missing.push({ digest, number: index.numbers[at] ?? 0 });
  }
  const handle = await fs.open(raw, 'r');
  const buffer = Buffer.alloc(BLOCK_BYTES);
  let sent = 0;
  try {
    for await (const pack of packsOf(missing, (number) => readBlock(handle, number, buffer, disk.length))) {
      store.set(pack.id, pack.bytes);
      table.addPack(pack);
      sent += pack.bytes.length;
    }
  } finally {
    await handle.close();
  }
  return { index, sent, raw, composed: compose(index, table) };
}

async function written(composed: Composed): Promise<string> {
  const file = path.join(dir, `image-${randomBytes(4).toString('hex')}.qcow2`);
  const pieces = composed.parts.map((part) =>
    part.kind === 'bytes'
      ? part.bytes
      : (store.get(part.pack) ?? Buffer.alloc(0)).subarray(part.offset, part.offset + part.length),
  );
  await fs.writeFile(file, Buffer.concat(pieces));
  return file;
}

async function proved(
  composed: Composed,
  raw: string,
  index: BlockIndex,
  table: BlockTable,
): Promise<number> {
  const file = await written(composed);
  const image = { path: file, format: 'qcow2' };
  expect((await fs.stat(file)).size).toBe(composed.totalBytes);
  expect(await qemuImg.check(image)).toMatchObject({ corruptions: 0, leaks: 0 });
  expect(await qemuImg.compare(image, { path: raw, format: 'raw' })).toBe(true);
  const handle = await fs.open(raw, 'r');
  try {
    const fetch: ComposedReader['fetch'] = async (pack, offset, length) =>
      Buffer.from((store.get(pack) ?? Buffer.alloc(0)).subarray(offset, offset + length));
    const digests = await composedDigests(composed, { handle, index, table, fetch });
    const content = await fs.readFile(file);
    expect(digests.bytes).toBe(content.length);
    expect(digests.sha512).toBe(createHash('sha512').update(content).digest('hex'));
    return digests.fetchedBytes;
  } finally {
    await handle.close();
  }
}

test('three nights: each image is whole for qemu-img, and only changed blocks are stored', async () => {
  const table = new BlockTable();
  const disk = Buffer.alloc(40 * BLOCK_BYTES + 512);
  for (let at = 0; at < 30; at++) wordy(BLOCK_BYTES, at + 1).copy(disk, at * BLOCK_BYTES);
  randomBytes(3 * BLOCK_BYTES).copy(disk, 33 * BLOCK_BYTES);
  randomBytes(512).copy(disk, 40 * BLOCK_BYTES);
  const first = await night(disk, table);
  expect(first.index.count).toBe(34);
  expect(await proved(first.composed, first.raw, first.index, table)).toBe(0);

  // changed: two blocks a little, one cleared, one new, one all of zeros but for a cluster
  disk.write('changed', 5 * BLOCK_BYTES + 1000);
  disk.write('changed', 20 * BLOCK_BYTES + 900_000);
  disk.fill(0, 7 * BLOCK_BYTES, 8 * BLOCK_BYTES);
  randomBytes(BLOCK_BYTES).copy(disk, 36 * BLOCK_BYTES);
  disk.write('x', 38 * BLOCK_BYTES + 70_000);
  const second = await night(disk, table);
  expect(second.sent).toBeLessThanOrEqual(4 * BLOCK_BYTES * 1.02);
  expect(second.composed.deadBytes).toBeGreaterThan(0);
  expect(await proved(second.composed, second.raw, second.index, table)).toBe(second.composed.deadBytes);

  // back to something that was there before: nothing to store
  const third = await night(Buffer.from(disk), table);
  expect(third.sent).toBe(0);
  await proved(third.composed, third.raw, third.index, table);
}, 60_000);

test('a disk of zeros, one of noise, and one that is no multiple of anything', async () => {
  for (const disk of [
    Buffer.alloc(3 * BLOCK_BYTES),
    randomBytes(5 * BLOCK_BYTES + 3 * 512),
    wordy(777 * 512, 3),
  ]) {
    const table = new BlockTable();
    const made = await night(disk, table);
    await proved(made.composed, made.raw, made.index, table);
    expect(made.sent).toBeLessThanOrEqual(made.index.dataBytes * 1.02);
  }
}, 60_000);

test('long dead runs are left out, and no part is small', async () => {
  const table = new BlockTable();
  const disk = randomBytes(30 * BLOCK_BYTES);
  await night(disk, table);
  randomBytes(12 * BLOCK_BYTES).copy(disk, 2 * BLOCK_BYTES);
  const second = await night(disk, table);
  expect(second.composed.deadBytes).toBe(0);
  for (const part of second.composed.parts)
    if (part.kind === 'pack') expect(part.length).toBeGreaterThanOrEqual(BLOCK_BYTES);
  await proved(second.composed, second.raw, second.index, table);
}, 60_000);

test('a disk of 3 TiB with little in it', async () => {
  const raw = path.join(dir, 'huge.raw');
  const virtualBytes = 3 * 2 ** 40;
  const handle = await fs.open(raw, 'w+');
  await handle.truncate(virtualBytes);
  const table = new BlockTable();
  const numbers = [0, 1, 600_000, virtualBytes / BLOCK_BYTES - 1];
  const digests: Buffer[] = [];
  for (const number of numbers) {
    const block = wordy(BLOCK_BYTES, number + 7);
    await handle.write(block, 0, block.length, number * BLOCK_BYTES);
    digests.push(createHash('sha256').update(block).digest());
  }
  const index = new BlockIndex({
    blockBytes: BLOCK_BYTES,
    virtualBytes,
    rawSha256: '0'.repeat(64),
    numbers: Uint32Array.from(numbers),
    digests: Buffer.concat(digests),
  });
  const buffer = Buffer.alloc(BLOCK_BYTES);
  const wanted = numbers.map((number, at) => ({ number, digest: index.digestAt(at) }));
  for await (const pack of packsOf(wanted, (n) => readBlock(handle, n, buffer, virtualBytes))) {
    store.set(pack.id, pack.bytes);
    table.addPack(pack);
    for (const block of pack.blocks) {
      const end = block.offset + block.lengths.reduce((a, b) => a + b, 0);
      expect(unpackBlock(pack.bytes.subarray(block.offset, end), block)).toHaveLength(BLOCK_BYTES);
    }
  }
  await handle.close();
  const composed = compose(index, table);
  expect(composed.totalBytes).toBeLessThan(8 * BLOCK_BYTES);
  await proved(composed, raw, index, table);
}, 60_000);
