import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { BLOCK_BYTES, type ByteRange, type DiskSource } from '../../../core/disk-source.ts';
import { PortError } from '../../../core/errors.ts';
import { type PassOptions, requireFewBad, runPass } from '../../../stages/capture/pass.ts';
import { intersection, tidyRanges, usedBlocks } from '../../../stages/capture/pass-blocks.ts';
import { type DiskCopy, openDiskCopy } from '../../../tools/disk-copy/index.ts';
import { openFileSource } from '../../../tools/disk-sources/file.ts';
import { requires } from '../../support/requires.ts';
import { blockOf } from '../../tools/disk-copy/disk-fixtures.ts';
import { FakeDisk } from './pass-disk.ts';

const missing = requires('qemu-img', 'fallocate');
const FAST = { firstDelayMs: 1, maxDelayMs: 5 };
const whole = (disk: { sizeBytes: number }): ByteRange[] => [{ startBytes: 0, lengthBytes: disk.sizeBytes }];

describe.skipIf(missing)('a pass', () => {
  let dir: string;
  const copies: DiskCopy[] = [];
  beforeEach(async () => {
    dir = await fs.mkdtemp(path.join(tmpdir(), 'port-image-pass-'));
  });
  afterEach(async () => {
    for (const copy of copies.splice(0)) await copy.close().catch(() => {});
    await fs.rm(dir, { recursive: true, force: true });
  });

  const openCopy = async (disk: { sizeBytes: number }): Promise<DiskCopy> => {
    const copy = await openDiskCopy(dir, 'sda', { sizeBytes: disk.sizeBytes, sourceId: 'test' });
    copies.push(copy);
    return copy;
  };
  const pass = (disk: FakeDisk, copy: DiskCopy, more: Partial<PassOptions> = {}) =>
    runPass({
      open: disk.open,
      copy,
      allocation: async () => ({ ranges: whole(disk) }),
      pass: 1,
      mode: 'resume',
      retry: FAST,
      ...more,
    });
  const expectEqual = async (disk: FakeDisk, copy: DiskCopy, ranges: ByteRange[]) => {
    const parts = new Map([...usedBlocks(tidyRanges(ranges, disk.sizeBytes))].map((b) => [b.index, b.parts]));
    const raw = await fs.readFile(copy.rawPath);
    expect(raw.length).toBe(disk.sizeBytes);
    for (let i = 0; i < disk.seeds.length; i++) {
      const found = raw.subarray(i * BLOCK_BYTES, i * BLOCK_BYTES + disk.lengthOf(i));
      expect(found.equals(disk.expected(i, parts.get(i) ?? [])), `block ${i}`).toBe(true);
    }
    await copy.verifyAll();
  };

  test('the first brings what is in use, the second what changed', async () => {
    const disk = new FakeDisk([1, 2, 0, 4, 5], 4 * BLOCK_BYTES + 1536);
    const copy = await openCopy(disk);
    const used = [
      { startBytes: 0, lengthBytes: 3 * BLOCK_BYTES },
      { startBytes: 4 * BLOCK_BYTES, lengthBytes: 1536 },
    ];
    const allocation = async () => ({ ranges: used });
    const first = await pass(disk, copy, { allocation });
    expect(first).toMatchObject({
      pass: 1,
      diskBytes: disk.sizeBytes,
      allocatedBytes: 3 * BLOCK_BYTES + 1536,
      readBlocks: 4,
      changedBlocks: 3,
      zeroBlocks: 1,
      sameBlocks: 0,
      sentBytes: 2 * BLOCK_BYTES + 1536,
      badRanges: [],
      reconnects: 0,
      treeSha256: copy.treeDigest(),
    });
    await expectEqual(disk, copy, used);
    disk.seeds[1] = 22;
    const second = await pass(disk, copy, { allocation, pass: 2, mode: 'full' });
    expect(second).toMatchObject({ readBlocks: 4, changedBlocks: 1, sameBlocks: 3, sentBytes: BLOCK_BYTES });
    await expectEqual(disk, copy, used);
    expect(disk.closed).toBe(disk.opened);
  });

  test('what is no longer in use becomes zeros', async () => {
    const disk = new FakeDisk([1, 2, 3]);
    const copy = await openCopy(disk);
    await pass(disk, copy);
    const used = [{ startBytes: 0, lengthBytes: BLOCK_BYTES + 4096 }];
    const second = await pass(disk, copy, {
      pass: 2,
      mode: 'full',
      allocation: async () => ({ ranges: used }),
    });
    expect(second).toMatchObject({ readBlocks: 2, changedBlocks: 2 });
    await expectEqual(disk, copy, used);
    expect((await fs.stat(copy.rawPath)).blocks * 512).toBeLessThan(2.5 * BLOCK_BYTES);
  });

  test('a cut connection costs the block in flight', async () => {
    const disk = new FakeDisk([1, 2, 3, 4, 5]);
    const copy = await openCopy(disk);
    disk.faults.cutAt.add(2).add(3);
    disk.faults.endAt.add(5);
    const result = await pass(disk, copy);
    expect(result.reconnects).toBe(3);
    expect(disk.asked).toEqual([0, 1, 2, 2, 2, 3, 3, 4]);
    expect(disk.opened).toBe(4);
    await expectEqual(disk, copy, whole(disk));
  });

  test('a source that ends after an answer, as if that were all, is opened again', async () => {
    const disk = new FakeDisk([1, 2, 3]);
    const copy = await openCopy(disk);
    const open = async (): Promise<DiskSource> => {
      const inner = await disk.open();
      return {
        ...inner,
        async *readBlocks(wanted) {
          for await (const answer of inner.readBlocks(wanted)) {
            yield answer;
            if (disk.opened < 3) return;
          }
        },
      };
    };
    expect((await pass(disk, copy, { open })).reconnects).toBe(2);
    await expectEqual(disk, copy, whole(disk));
  });

  test('a stopped pass goes on where it was', async () => {
    const disk = new FakeDisk([1, 2, 3, 4]);
    let copy = await openCopy(disk);
    const controller = new AbortController();
    const open = async (): Promise<DiskSource> => {
      const inner = await disk.open();
      return {
        ...inner,
        async *readBlocks(wanted, signal) {
          for await (const answer of inner.readBlocks(wanted, signal)) {
            if (answer.index === 2) controller.abort();
            signal?.throwIfAborted();
            yield answer;
          }
        },
      };
    };
    await expect(pass(disk, copy, { open, signal: controller.signal })).rejects.toMatchObject({
      code: 'INTERRUPTED',
    });
    await copy.close();
    copy = await openCopy(disk);
    disk.asked.length = 0;
    const told: number[] = [];
    const result = await pass(disk, copy, { onProgress: (done) => told.push(done) });
    expect(disk.asked).toEqual([2, 3]);
    expect(result.readBlocks).toBe(2);
    expect(told.at(0)).toBe(2 * BLOCK_BYTES);
    expect(told.at(-1)).toBe(disk.sizeBytes);
    await expectEqual(disk, copy, whole(disk));
    // a full pass of the same number trusts nothing an earlier run read
    disk.asked.length = 0;
    await pass(disk, copy, { mode: 'full' });
    expect(disk.asked).toEqual([0, 1, 2, 3]);
  });

  test('a source that stays away ends the pass; what is no accident ends it at once', async () => {
    const disk = new FakeDisk([1]);
    const copy = await openCopy(disk);
    const away = async () => {
      disk.opened++;
      throw new PortError('SOURCE_REMOTE', 'no route to host', { temporary: true });
    };
    const errors: string[] = [];
    const retry = { ...FAST, giveUpMs: 60, onRetry: (error: PortError) => void errors.push(error.message) };
    await expect(pass(disk, copy, { open: away, retry })).rejects.toMatchObject({
      message: 'no route to host',
    });
    expect(disk.opened).toBeGreaterThan(2);
    expect(errors).toHaveLength(disk.opened - 1);
    disk.opened = 0;
    const refused = async () => {
      disk.opened++;
      throw new PortError('SOURCE_REMOTE', 'permission denied');
    };
    await expect(pass(disk, copy, { open: refused })).rejects.toMatchObject({ message: 'permission denied' });
    expect(disk.opened).toBe(1);
    const other = new FakeDisk([1, 2]);
    await expect(pass(disk, copy, { open: other.open })).rejects.toMatchObject({ code: 'SOURCE_CHANGED' });
  });

  test('a block damaged on its way is asked for again once', async () => {
    const disk = new FakeDisk([1, 2, 3]);
    const copy = await openCopy(disk);
    disk.faults.damage.set(1, 1);
    await pass(disk, copy);
    expect(disk.asked).toEqual([0, 1, 2, 1]);
    await expectEqual(disk, copy, whole(disk));
    disk.seeds[2] = 33;
    disk.faults.damage.set(2, 2);
    await expect(pass(disk, copy, { pass: 2, mode: 'full' })).rejects.toMatchObject({
      code: 'SOURCE_REMOTE',
      temporary: false,
      message: expect.stringContaining('block 2'),
    });
    expect(copy.block(2).state).toBe('data');
  });

  test.each<[string, (answer: Record<string, unknown>) => unknown]>([
    ['another block', (a) => ({ ...a, index: 7 })],
    ['bad parts outside', (a) => ({ ...a, bad: [{ startBytes: BLOCK_BYTES, lengthBytes: 512 }] })],
    ['bad parts twice', (a) => ({ ...a, bad: Array(2).fill({ startBytes: 0, lengthBytes: 512 }) })],
    ['too few bytes', (a) => ({ ...a, data: Buffer.alloc(512) })],
    ['same as nothing', (a) => ({ ...a, kind: 'same', data: undefined })],
    ['zero with the sum of data', (a) => ({ ...a, kind: 'zero', data: undefined })],
    ['no data', (a) => ({ ...a, data: undefined })],
  ])('a source that answers nonsense is refused: %s', async (_, twist) => {
    const disk = new FakeDisk([1, 2]);
    const copy = await openCopy(disk);
    const open = async (): Promise<DiskSource> => {
      const inner = await disk.open();
      return {
        ...inner,
        async *readBlocks(wanted) {
          for await (const answer of inner.readBlocks(wanted)) yield twist({ ...answer }) as typeof answer;
        },
      };
    };
    await expect(pass(disk, copy, { open })).rejects.toMatchObject({
      code: 'SOURCE_REMOTE',
      temporary: false,
    });
    expect(copy.presentBlocks).toBe(0);
  });

  test('bad sectors are told, never good, and healed by a later pass', async () => {
    const disk = new FakeDisk([1, 2, 0, 4]);
    const copy = await openCopy(disk);
    disk.faults.bad.set(1, [
      { startBytes: 0, lengthBytes: 512 },
      { startBytes: 8192, lengthBytes: 1024 },
    ]);
    disk.faults.bad.set(2, [{ startBytes: BLOCK_BYTES - 512, lengthBytes: 512 }]);
    disk.faults.bad.set(3, [{ startBytes: 0, lengthBytes: 512 }]);
    const { badRanges } = await pass(disk, copy);
    expect(badRanges).toEqual([
      { startBytes: BLOCK_BYTES, lengthBytes: 512 },
      { startBytes: BLOCK_BYTES + 8192, lengthBytes: 1024 },
      { startBytes: 3 * BLOCK_BYTES - 512, lengthBytes: 1024 },
    ]);
    expect([1, 2, 3].map((i) => copy.state(i))).toEqual(['bad', 'bad', 'bad']);
    expect(() => requireFewBad('/dev/sda on shop01', badRanges, 3)).not.toThrow();
    expect(() => requireFewBad('/dev/sda on shop01', badRanges, 2)).toThrow(
      expect.objectContaining({
        code: 'BAD_SECTORS',
        message: `/dev/sda on shop01: 2.5 KiB in 3 places cannot be read, at byte ${BLOCK_BYTES}, ${BLOCK_BYTES + 8192}, ${3 * BLOCK_BYTES - 512}`,
      }),
    );
    disk.faults.bad.clear();
    const second = await pass(disk, copy, { pass: 2, mode: 'full' });
    expect(second.badRanges).toEqual([]);
    expect([0, 1, 2, 3].map((i) => copy.state(i))).toEqual(['data', 'data', 'zero', 'data']);
    await expectEqual(disk, copy, whole(disk));
    // a block that was good and is bad now is bad
    disk.faults.bad.set(0, [{ startBytes: 512, lengthBytes: 512 }]);
    expect((await pass(disk, copy, { pass: 3, mode: 'full' })).badRanges).toEqual([
      { startBytes: 512, lengthBytes: 512 },
    ]);
  });

  test('a disk that dies does not turn the copy of it into zeros', async () => {
    const disk = new FakeDisk(Array.from({ length: 40 }, (_, i) => i + 1));
    const copy = await openCopy(disk);
    await pass(disk, copy);
    for (let i = 4; i < 40; i++) disk.faults.bad.set(i, [{ startBytes: 0, lengthBytes: BLOCK_BYTES }]);
    await expect(pass(disk, copy, { pass: 2, mode: 'full' })).rejects.toMatchObject({
      code: 'BAD_SECTORS',
      message: expect.stringContaining('does not answer any more'),
    });
    expect([3, 36, 39].map((i) => copy.state(i))).toEqual(['data', 'data', 'data']);
  });

  test('too little room here is told before anything is read', async () => {
    const sizeBytes = 2 ** 50;
    const copy = await openDiskCopy(dir, 'sda', { sizeBytes: 64 * 1024 ** 4, sourceId: 'test' }).catch(
      () => undefined,
    );
    if (copy === undefined) return; // this file system holds no files of that size
    copies.push(copy);
    const disk = new FakeDisk([], 64 * 1024 ** 4);
    const ranges = [{ startBytes: 0, lengthBytes: Math.min(sizeBytes, disk.sizeBytes) }];
    await expect(pass(disk, copy, { allocation: async () => ({ ranges }) })).rejects.toMatchObject({
      code: 'DISK_SPACE',
    });
    expect(disk.asked).toEqual([]);
  });

  test('a limit holds back what is asked for', async () => {
    const disk = new FakeDisk([1, 2, 3]);
    const copy = await openCopy(disk);
    const limitBytesPerSecond = 40 * BLOCK_BYTES;
    const { seconds } = await pass(disk, copy, { limitBytesPerSecond });
    // two blocks had to wait for the one before: a lower bound, however slow the machine
    expect(seconds).toBeGreaterThan(2 / 40 - 0.005);
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 50);
    const slow = { limitBytesPerSecond: 1000, pass: 2, mode: 'full' as const, signal: controller.signal };
    await expect(pass(disk, copy, slow)).rejects.toMatchObject({ code: 'INTERRUPTED' });
  });

  test('a file as a disk: holes are not read, 10 TiB cost what is stored', async () => {
    const file = path.join(dir, 'im age,a:b.img');
    const handle = await fs.open(file, 'w');
    const at = [0, 5 * 1024 ** 4, 10 * 1024 ** 4 - BLOCK_BYTES];
    for (const [i, offset] of at.entries()) await handle.write(blockOf(i + 1), 0, BLOCK_BYTES, offset);
    await handle.truncate(10 * 1024 ** 4);
    await handle.close();
    const sizeBytes = 10 * 1024 ** 4;
    const copy = await openCopy({ sizeBytes });
    const open = () => openFileSource(file);
    const allocation = async () => ({ ranges: whole({ sizeBytes }) });
    const result = await runPass({ open, copy, allocation, pass: 1, mode: 'full' });
    expect(result).toMatchObject({
      readBlocks: 3,
      sentBytes: 3 * BLOCK_BYTES,
      allocatedBytes: 3 * BLOCK_BYTES,
    });
    const raw = await fs.open(copy.rawPath);
    for (const [i, offset] of at.entries()) {
      const { buffer } = await raw.read(Buffer.alloc(BLOCK_BYTES), 0, BLOCK_BYTES, offset);
      expect(buffer.equals(blockOf(i + 1))).toBe(true);
    }
    await raw.close();
    expect((await fs.stat(copy.rawPath)).blocks * 512).toBeLessThan(4 * BLOCK_BYTES);
  });

  test('whatever changes, breaks and stops: the copy equals the disk', async () => {
    const blocks = 5;
    const sizeBytes = (blocks - 1) * BLOCK_BYTES + 5120;
    const range = fc.record({
      startBytes: fc.nat({ max: sizeBytes - 1 }),
      lengthBytes: fc.integer({ min: 1, max: 2 * BLOCK_BYTES }),
    });
    const round = fc.record({
      seeds: fc.array(fc.nat({ max: 3 }), { minLength: blocks, maxLength: blocks }),
      used: fc.array(range, { maxLength: 4 }),
      cuts: fc.uniqueArray(fc.nat({ max: 8 }), { maxLength: 3 }),
      stopAt: fc.option(fc.nat({ max: blocks }), { nil: undefined }),
      damaged: fc.option(fc.nat({ max: blocks - 1 }), { nil: undefined }),
      bad: fc.uniqueArray(fc.nat({ max: blocks - 1 }), { maxLength: 2 }),
    });
    let run = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(round, { minLength: 1, maxLength: 3 }), async (rounds) => {
        const disk = new FakeDisk(Array(blocks).fill(0), sizeBytes);
        const name = `run${run++}`;
        const identity = { sizeBytes, sourceId: 'test' };
        let copy = await openDiskCopy(dir, name, identity);
        for (const [i, { seeds, used, cuts, stopAt, damaged, bad }] of rounds.entries()) {
          seeds.forEach((seed, k) => {
            disk.seeds[k] = seed;
          });
          disk.answered = 0;
          Object.assign(disk.faults, { cutAt: new Set(cuts), bad: new Map(), damage: new Map() });
          const tidy = tidyRanges(used, sizeBytes);
          const parts = new Map([...usedBlocks(tidy)].map((b) => [b.index, b.parts]));
          for (const k of bad) {
            const [first] = parts.get(k) ?? [];
            if (first) disk.faults.bad.set(k, [{ ...first, lengthBytes: Math.min(512, first.lengthBytes) }]);
          }
          if (damaged !== undefined) disk.faults.damage.set(damaged, 1);
          const options: Partial<PassOptions> = { pass: i + 1, mode: i === 0 ? 'resume' : 'full' };
          const allocation = async () => ({ ranges: used });
          if (stopAt !== undefined) {
            const failing = async (): Promise<DiskSource> => {
              const inner = await disk.open();
              let left = stopAt;
              return {
                ...inner,
                async *readBlocks(wanted) {
                  for await (const answer of inner.readBlocks(wanted)) {
                    if (left-- === 0) throw new PortError('INTERRUPTED', 'stopped');
                    yield answer;
                  }
                },
              };
            };
            await pass(disk, copy, { ...options, allocation, open: failing }).catch((error: PortError) => {
              if (error.code !== 'INTERRUPTED') throw error;
            });
            await copy.close();
            copy = await openDiskCopy(dir, name, identity);
          }
          const result = await pass(disk, copy, { ...options, allocation });
          await expectEqual(disk, copy, used);
          expect(result.badRanges.length).toBe(disk.faults.bad.size);
          expect(result.treeSha256).toBe(copy.treeDigest());
        }
        await copy.close();
        await fs.rm(copy.rawPath);
      }),
      { numRuns: 12 },
    );
  });
});

describe('ranges', () => {
  const size = 100 * 512 + 100;
  const ranges = fc.array(
    fc.record({ startBytes: fc.integer({ min: -600, max: size + 600 }), lengthBytes: fc.nat({ max: 9000 }) }),
    { maxLength: 8 },
  );
  const covered = (list: readonly ByteRange[], at: number) =>
    list.some((r) => at >= r.startBytes && at < r.startBytes + r.lengthBytes);

  test('tidy ranges hold the same sectors, in order, not touching', () => {
    fc.assert(
      fc.property(ranges, (list) => {
        const tidy = tidyRanges(list, size);
        tidy.forEach((r, i) => {
          const before = tidy[i - 1];
          expect(r.startBytes % 512).toBe(0);
          expect(r.lengthBytes).toBeGreaterThan(0);
          expect(r.startBytes + r.lengthBytes).toBeLessThanOrEqual(size);
          if (before) expect(r.startBytes).toBeGreaterThan(before.startBytes + before.lengthBytes);
        });
        for (let sector = 0; sector * 512 < size; sector++) {
          const bytes = [...Array(Math.min(512, size - sector * 512)).keys()].map((b) => sector * 512 + b);
          const wanted = list.some(
            (r) =>
              r.lengthBytes > 0 &&
              r.startBytes < sector * 512 + 512 &&
              r.startBytes + r.lengthBytes > sector * 512,
          );
          expect(bytes.every((b) => covered(tidy, b))).toBe(wanted);
        }
      }),
      { numRuns: 50 },
    );
  });

  test('an intersection is what lies in both', () => {
    fc.assert(
      fc.property(ranges, ranges, (a, b) => {
        const [left, right] = [tidyRanges(a, size), tidyRanges(b, size)];
        const both = intersection(left, right);
        for (let at = 0; at < size; at += 256) {
          expect(covered(both, at)).toBe(covered(left, at) && covered(right, at));
        }
      }),
    );
  });
});
