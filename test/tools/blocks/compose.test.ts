import { createHash, randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { BLOCK_BYTES, BlockIndex } from '../../../core/sync/block-index.ts';
import { compose, composedDigests, LEAST_PART_BYTES } from '../../../tools/blocks/compose.ts';
import { readBlock } from '../../../tools/blocks/index-disk.ts';
import { packsOf, unpackBlock } from '../../../tools/blocks/pack.ts';
import { BlockTable } from '../../../tools/blocks/table.ts';
import * as qemuImg from '../../../tools/qemu-img.ts';
import { night, proved, store, wordy, written } from './support.ts';

let dir = '';

beforeAll(async () => {
  dir = await fs.mkdtemp(path.join(os.tmpdir(), 'port-image-blocks-'));
});
afterAll(async () => {
  await fs.rm(dir, { recursive: true, force: true });
});

test('three nights: each image is whole for qemu-img, and only changed blocks are stored', async () => {
  const table = new BlockTable();
  const disk = Buffer.alloc(40 * BLOCK_BYTES + 512);
  for (let at = 0; at < 30; at++) wordy(BLOCK_BYTES, at + 1).copy(disk, at * BLOCK_BYTES);
  randomBytes(3 * BLOCK_BYTES).copy(disk, 33 * BLOCK_BYTES);
  randomBytes(512).copy(disk, 40 * BLOCK_BYTES);
  const first = await night(dir, disk, table);
  expect(first.index.count).toBe(34);
  expect(await proved(dir, first.composed, first.raw, first.index, table)).toBe(0);

  // changed: two blocks a little, one cleared, one new, one all of zeros but for a cluster
  disk.write('changed', 5 * BLOCK_BYTES + 1000);
  disk.write('changed', 20 * BLOCK_BYTES + 900_000);
  disk.fill(0, 7 * BLOCK_BYTES, 8 * BLOCK_BYTES);
  randomBytes(BLOCK_BYTES).copy(disk, 36 * BLOCK_BYTES);
  disk.write('x', 38 * BLOCK_BYTES + 70_000);
  const second = await night(dir, disk, table);
  expect(second.sent).toBeLessThanOrEqual(4 * BLOCK_BYTES * 1.02);
  expect(second.composed.deadBytes).toBeGreaterThan(0);
  expect(await proved(dir, second.composed, second.raw, second.index, table)).toBe(second.composed.deadBytes);

  // back to something that was there before: nothing to store
  const third = await night(dir, Buffer.from(disk), table);
  expect(third.sent).toBe(0);
  await proved(dir, third.composed, third.raw, third.index, table);
}, 60_000);

test('a disk of zeros, one of noise, and one that is no multiple of anything', async () => {
  for (const disk of [
    Buffer.alloc(3 * BLOCK_BYTES),
    randomBytes(5 * BLOCK_BYTES + 3 * 512),
    wordy(777 * 512, 3),
  ]) {
    const table = new BlockTable();
    const made = await night(dir, disk, table);
    await proved(dir, made.composed, made.raw, made.index, table);
    expect(made.sent).toBeLessThanOrEqual(made.index.dataBytes * 1.02);
  }
}, 60_000);

test('long dead runs are left out, and no part is small', async () => {
  const table = new BlockTable();
  const disk = randomBytes(30 * BLOCK_BYTES);
  await night(dir, disk, table);
  randomBytes(12 * BLOCK_BYTES).copy(disk, 2 * BLOCK_BYTES);
  const second = await night(dir, disk, table);
  expect(second.composed.deadBytes).toBe(0);
  for (const part of second.composed.parts)
    if (part.kind === 'pack') expect(part.length).toBeGreaterThanOrEqual(BLOCK_BYTES);
  await proved(dir, second.composed, second.raw, second.index, table);
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
  await proved(dir, composed, raw, index, table);
}, 60_000);

/** Numbers that are the same in every run. */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state * 1103515245 + 12345) % 2147483648;
    return Math.floor((state / 2147483648) * below);
  };
}

test.each([1, 2, 3])(
  'nights of anything, seed %i: growing, clearing, moving, noise',
  async (seed) => {
    const pick = numbers(seed);
    const table = new BlockTable();
    let disk = Buffer.alloc((8 + pick(8)) * BLOCK_BYTES + pick(2048) * 512);
    for (let nightNumber = 0; nightNumber < 4; nightNumber++) {
      const before = Buffer.from(disk);
      if (nightNumber === 2) disk = Buffer.concat([disk, Buffer.alloc(pick(4) * BLOCK_BYTES + 512)]);
      for (let change = 0; change < 6; change++) {
        const at = pick(disk.length - 512);
        const length = Math.min(disk.length - at, 1 + pick(2 * BLOCK_BYTES));
        const kind = pick(4);
        if (kind === 0) disk.fill(0, at, at + length);
        else if (kind === 1) randomBytes(length).copy(disk, at);
        else if (kind === 2) wordy(length, 1 + pick(1000)).copy(disk, at);
        else disk.copy(disk, at, pick(disk.length - length), disk.length);
      }
      let changed = 0;
      for (let at = 0; at < disk.length; at += BLOCK_BYTES) {
        const block = disk.subarray(at, at + BLOCK_BYTES);
        if (!block.equals(before.subarray(at, at + BLOCK_BYTES))) changed++;
      }
      const made = await night(dir, disk, table);
      expect(made.sent).toBeLessThanOrEqual(changed * BLOCK_BYTES * 1.02);
      await proved(dir, made.composed, made.raw, made.index, table);
    }
  },
  60_000,
);

test('one small block left in large packs makes no small part', async () => {
  const table = new BlockTable();
  const disk = Buffer.concat([randomBytes(40 * BLOCK_BYTES), Buffer.alloc(BLOCK_BYTES)]);
  // small when stored: at the start, inside and at the end of packs
  for (const number of [0, 9, 16, 40]) wordy(40_000, number + 1).copy(disk, number * BLOCK_BYTES);
  for (const number of [0, 9, 16]) disk.fill(0, number * BLOCK_BYTES + 40_000, (number + 1) * BLOCK_BYTES);
  await night(dir, disk, table);
  for (let number = 1; number < 40; number++)
    if (![9, 16].includes(number)) disk.fill(0, number * BLOCK_BYTES, (number + 1) * BLOCK_BYTES);
  const second = await night(dir, disk, table);
  expect(second.sent).toBe(0);
  const lengths = second.composed.parts.flatMap((part) => (part.kind === 'pack' ? [part.length] : []));
  expect(lengths.length).toBeGreaterThanOrEqual(3);
  for (const length of lengths) {
    expect(length).toBeGreaterThanOrEqual(LEAST_PART_BYTES);
    expect(length).toBeLessThan(3 * BLOCK_BYTES);
  }
  await proved(dir, second.composed, second.raw, second.index, table);
}, 60_000);

test('a block that is on the disk thousands of times has wide refcounts', async () => {
  const block = Buffer.alloc(BLOCK_BYTES, 0xaa);
  const digest = createHash('sha256').update(block).digest();
  const count = 4200;
  const index = new BlockIndex({
    blockBytes: BLOCK_BYTES,
    virtualBytes: count * BLOCK_BYTES,
    rawSha256: '0'.repeat(64),
    numbers: Uint32Array.from({ length: count }, (_, at) => at),
    digests: Buffer.concat(Array.from({ length: count }, () => digest)),
  });
  const table = new BlockTable();
  for await (const pack of packsOf([{ digest: digest.toString('hex'), number: 0 }], async () => block)) {
    store.set(pack.id, pack.bytes);
    table.addPack(pack);
  }
  const file = await written(dir, compose(index, table));
  expect(await qemuImg.check({ path: file, format: 'qcow2' })).toMatchObject({ corruptions: 0, leaks: 0 });
  const piece = path.join(dir, 'piece.raw');
  await execa('qemu-img', [
    'dd',
    '-f',
    'qcow2',
    '-O',
    'raw',
    `if=${file}`,
    `of=${piece}`,
    'bs=1M',
    'skip=4199',
    'count=4200',
  ]);
  expect((await fs.readFile(piece)).equals(block)).toBe(true);
}, 60_000);

test('a disk that changes while it is read is told, and its block is not stored', async () => {
  const block = wordy(BLOCK_BYTES, 5);
  const digest = createHash('sha256').update(block).digest('hex');
  block.write('changed', 1000);
  const packs = packsOf([{ digest, number: 3 }], async () => block);
  await expect(packs.next()).rejects.toMatchObject({ code: 'SOURCE_CHANGED' });
});

test('stored bytes that are something else, or lengths that lie, are told', async () => {
  const table = new BlockTable();
  const made = await night(dir, randomBytes(3 * BLOCK_BYTES), table);
  const gone = await night(dir, randomBytes(2 * BLOCK_BYTES), table);
  const handle = await fs.open(made.raw, 'r');
  try {
    const whole = async (pack: string, offset: number, length: number) =>
      Buffer.from((store.get(pack) ?? Buffer.alloc(0)).subarray(offset, offset + length));
    const reader = { handle, index: made.index };
    // blocks of another disk are not here: they come from the store, which gives something else, or too little
    for (const bad of [
      (b: Buffer) => b.subarray(1),
      (b: Buffer) => Buffer.concat([b.subarray(1), b.subarray(0, 1)]),
    ])
      await expect(
        composedDigests(gone.composed, { ...reader, table, fetch: async (...at) => bad(await whole(...at)) }),
      ).rejects.toMatchObject({ code: 'DAMAGED' });
    // the sum is right, the frames are not
    const lying = new BlockTable();
    for (const [id, blocks] of table.packs())
      lying.add(
        id,
        blocks.map((block) => {
          const [first = 0, second = 0, ...rest] = block.lengths;
          return { ...block, lengths: [first + 1, second - 1, ...rest] };
        }),
      );
    const composed = compose(made.index, lying);
    await expect(composedDigests(composed, { ...reader, table: lying, fetch: whole })).rejects.toMatchObject({
      code: 'DAMAGED',
    });
  } finally {
    await handle.close();
  }
}, 60_000);
