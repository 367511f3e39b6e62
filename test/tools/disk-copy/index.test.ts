import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { BLOCK_BYTES } from '../../../core/disk-source.ts';
import { type DiskCopy, openDiskCopy } from '../../../tools/disk-copy/index.ts';
import { requires } from '../../support/requires.ts';
import { blockOf, sum } from './disk-fixtures.ts';

const TAIL = 12_345;
const identity = { sizeBytes: 4 * BLOCK_BYTES + TAIL, sourceId: 'ssh://shop01\n/dev/sda' };
const missing = requires('qemu-img', 'fallocate');

/** Where a record of the index stands, as the format says. */
const recordAt = (block: number): number => 8192 + 40 * block;

describe.skipIf(missing)('a disk copy', () => {
  let dir: string;
  beforeEach(async () => {
    dir = await fs.mkdtemp(path.join(tmpdir(), 'port-image-copy-'));
  });
  afterEach(() => fs.rm(dir, { recursive: true, force: true }));

  const open = (options = {}) => openDiskCopy(dir, 'sda', identity, options);
  const put = (
    copy: DiskCopy,
    index: number,
    seed: number,
    bad: { startBytes: number; lengthBytes: number }[] = [],
  ) => {
    const data = blockOf(seed, copy.lengthOf(index));
    return copy.write({ index, data, sha256: sum(data), pass: 1, bad });
  };
  const states = (copy: DiskCopy) => Array.from({ length: copy.blockCount }, (_, i) => copy.state(i));
  const patch = async (name: string, at: number, bytes: Uint8Array) => {
    const handle = await fs.open(path.join(dir, name), 'r+');
    await handle.write(bytes, 0, bytes.length, at);
    await handle.close();
  };

  test('keeps what it was given, sparse and private, over a close', async () => {
    let copy = await open();
    expect(states(copy)).toEqual(Array(5).fill('missing'));
    await put(copy, 1, 7);
    await put(copy, 4, 9);
    await copy.zero(2, 1);
    await put(copy, 3, 8, [{ startBytes: 512, lengthBytes: 1024 }]);
    expect(copy.presentBlocks).toBe(4);
    await copy.close();
    copy = await open();
    expect(states(copy)).toEqual(['missing', 'data', 'zero', 'bad', 'data']);
    expect(copy.badRanges()).toEqual([{ startBytes: 3 * BLOCK_BYTES + 512, lengthBytes: 1024 }]);
    expect(copy.block(1)).toMatchObject({ pass: 1, sha256: sum(blockOf(7)) });
    await copy.verifyAll();
    await copy.close();
    const raw = await fs.readFile(copy.rawPath);
    const expected = Buffer.concat([blockOf(0), blockOf(7), blockOf(0), blockOf(8), blockOf(9, TAIL)]);
    expect(raw.equals(expected)).toBe(true);
    for (const name of await fs.readdir(dir)) {
      expect((await fs.stat(path.join(dir, name))).mode & 0o777, name).toBe(0o600);
    }
    // one page per 4 KiB was not zero, so each block holds all its pieces of 64 KiB; the zero ones hold none
    expect((await fs.stat(copy.rawPath)).blocks * 512).toBeLessThan(2 * BLOCK_BYTES + 2 * TAIL + 64 * 1024);
  });

  test('the tree digest is the sum of the sums, zeros included', async () => {
    const copy = await open();
    await put(copy, 1, 7);
    await copy.zero(0, 1);
    const sums = [blockOf(0), blockOf(7), blockOf(0), blockOf(0), blockOf(0, TAIL)].map(sum);
    expect(copy.treeDigest()).toBe(createHash('sha256').update(Buffer.concat(sums)).digest('hex'));
    await copy.close();
  });

  test('a block that becomes zero, and zero becoming data, read as they should', async () => {
    const copy = await open();
    await put(copy, 0, 1);
    await put(copy, 1, 2);
    await copy.zero(0, 2);
    await copy.zero(1, 2);
    await put(copy, 1, 3);
    await put(copy, 4, 4);
    await copy.zero(4, 2);
    await copy.flush();
    await copy.verifyAll();
    const raw = await fs.readFile(copy.rawPath);
    expect(raw.subarray(0, BLOCK_BYTES).equals(blockOf(0))).toBe(true);
    expect(raw.subarray(BLOCK_BYTES, 2 * BLOCK_BYTES).equals(blockOf(3))).toBe(true);
    expect(raw.subarray(4 * BLOCK_BYTES).equals(blockOf(0, TAIL))).toBe(true);
    await copy.close();
  });

  test('what is being written over is missing until it is safe', async () => {
    const copy = await open();
    await put(copy, 0, 1);
    await copy.flush();
    await put(copy, 0, 2);
    // as another process would find it after a kill
    const other = await open();
    expect(other.state(0)).toBe('missing');
    await other.close();
    await copy.flush();
    const third = await open();
    expect(third.block(0).sha256).toEqual(sum(blockOf(2)));
    await third.close();
    await copy.close();
  });

  test('torn, moved and unknown records count as missing', async () => {
    const copy = await open();
    for (let i = 0; i < 5; i++) await put(copy, i, i + 1);
    await copy.close();
    const index = await fs.readFile(path.join(dir, 'sda.index'));
    await patch('sda.index', recordAt(0) + 20, Buffer.alloc(8)); // torn
    await patch('sda.index', recordAt(1), index.subarray(recordAt(2), recordAt(3))); // moved
    await patch('sda.index', recordAt(3), Buffer.from([99])); // a state nobody knows
    await patch('sda.index', recordAt(4) + 1, Buffer.from([77])); // another pass
    const again = await open();
    expect(states(again)).toEqual(['missing', 'missing', 'data', 'missing', 'missing']);
    expect(again.presentBlocks).toBe(1);
    await again.close();
  });

  test('bytes that changed: found when asked, and after another boot', async () => {
    const copy = await open();
    for (let i = 0; i < 5; i++) await put(copy, i, i + 1);
    await copy.close();
    await patch('sda.raw', 2 * BLOCK_BYTES + 100, Buffer.from([1]));
    let again = await open();
    expect(again.state(2)).toBe('data');
    await expect(again.verifyAll()).rejects.toMatchObject({
      code: 'DAMAGED',
      message: expect.stringContaining('block 2'),
    });
    await again.close();
    await patch('sda.index', 4096, Buffer.from('00000000-0000-0000-0000-000000000000'.padEnd(512)));
    again = await open();
    expect(states(again)).toEqual(['data', 'data', 'missing', 'data', 'data']);
    await again.close();
    // the boot is noted: bytes are not read again
    await patch('sda.raw', 100, Buffer.from([1]));
    again = await open();
    expect(again.state(0)).toBe('data');
    await again.close();
    again = await open({ verify: 'all' });
    expect(again.state(0)).toBe('missing');
    await again.close();
  });

  test('a raw file that is gone or cut loses its blocks; bytes nobody knows of are no hole', async () => {
    const copy = await open();
    await put(copy, 0, 1);
    await put(copy, 4, 2);
    await copy.zero(1, 1);
    await copy.close();
    await fs.truncate(copy.rawPath, 3 * BLOCK_BYTES);
    let again = await open();
    expect(states(again)).toEqual(['data', 'zero', 'missing', 'missing', 'missing']);
    await again.close();
    await fs.rm(copy.rawPath);
    again = await open();
    expect(states(again)).toEqual(['missing', 'zero', 'missing', 'missing', 'missing']);
    expect(again.isHole(3)).toBe(true);
    await again.close();
    await patch('sda.raw', 3 * BLOCK_BYTES, Buffer.from('garbage'));
    again = await open({ verify: 'all' });
    expect(again.isHole(3)).toBe(false);
    await again.zero(3, 1);
    await again.verifyAll();
    expect((await fs.readFile(copy.rawPath)).subarray(3 * BLOCK_BYTES).every((b) => b === 0)).toBe(true);
    await again.close();
  });

  test('a bad block without its list is missing, not good', async () => {
    const copy = await open();
    await put(copy, 0, 1, [{ startBytes: 0, lengthBytes: 512 }]);
    await copy.close();
    await fs.writeFile(path.join(dir, 'sda.bad.json'), '{"no": "list"}');
    const again = await open();
    expect(again.state(0)).toBe('missing');
    expect(again.badRanges()).toEqual([]);
    await again.close();
  });

  test('another disk, another size, no index: refused', async () => {
    await (await open()).close();
    for (const other of [
      { ...identity, sourceId: 'ssh://shop02\n/dev/sda' },
      { ...identity, sizeBytes: 512 },
    ]) {
      await expect(openDiskCopy(dir, 'sda', other)).rejects.toMatchObject({
        code: 'JOB_MISMATCH',
        message: expect.stringContaining('shop01'),
        hint: expect.any(String),
      });
    }
    await patch('sda.index', 0, Buffer.from('nonsense'));
    await expect(open()).rejects.toMatchObject({ code: 'JOB_TAMPERED' });
  });

  test('10 TiB cost nothing that is not stored', async () => {
    const huge = { sizeBytes: 10 * 1024 ** 4, sourceId: 'huge' };
    let copy = await openDiskCopy(dir, 'huge', huge);
    const data = blockOf(5);
    await copy.write({ index: 2_000_000, data, sha256: sum(data), pass: 1, bad: [] });
    await copy.close();
    copy = await openDiskCopy(dir, 'huge', huge, { verify: 'all' });
    expect(copy.presentBlocks).toBe(1);
    expect(copy.treeDigest()).toHaveLength(64);
    await copy.close();
    for (const name of ['huge.raw', 'huge.index']) {
      expect((await fs.stat(path.join(dir, name))).blocks * 512).toBeLessThanOrEqual(BLOCK_BYTES + 64 * 1024);
    }
  });
});
