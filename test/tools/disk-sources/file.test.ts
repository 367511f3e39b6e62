import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { BLOCK_BYTES, type BlockAnswer, type WantedBlock } from '../../../core/disk-source.ts';
import { tidyRanges } from '../../../stages/capture/pass-blocks.ts';
import { readAround } from '../../../tools/disk-sources/bad-sectors.ts';
import { openFileSource } from '../../../tools/disk-sources/file.ts';
import { readInOrder } from '../../../tools/disk-sources/read-ahead.ts';
import { requires } from '../../support/requires.ts';
import { blockOf, sum } from '../disk-copy/disk-fixtures.ts';

const missing = requires('qemu-img');

describe('a file as a disk', () => {
  let dir: string;
  beforeEach(async () => {
    dir = await fs.mkdtemp(path.join(tmpdir(), 'port-image-file-'));
  });
  afterEach(() => fs.rm(dir, { recursive: true, force: true }));

  test.skipIf(missing)('reads, tells its holes, answers blocks in order', async () => {
    const file = path.join(dir, "-a 'file',\n.img");
    const content = Buffer.concat([blockOf(1), blockOf(0), blockOf(3), blockOf(4).subarray(0, 1000)]);
    const handle = await fs.open(file, 'w');
    await handle.write(content, 0, BLOCK_BYTES, 0);
    await handle.write(content, 2 * BLOCK_BYTES, BLOCK_BYTES + 1000, 2 * BLOCK_BYTES);
    await handle.close();
    const disk = await openFileSource(file);
    expect(disk.name).not.toContain('\n');
    expect(disk.sizeBytes).toBe(content.length);
    expect((await disk.read(content.length - 10, 100)).equals(content.subarray(-10))).toBe(true);
    expect(await disk.read(content.length, 100)).toHaveLength(0);
    const stored = tidyRanges((await disk.dataRanges?.()) ?? [], disk.sizeBytes);
    expect(stored.map((r) => r.startBytes)).toEqual([0, 2 * BLOCK_BYTES]);
    const all = (lengthBytes: number) => [{ startBytes: 0, lengthBytes }];
    const wanted: WantedBlock[] = [
      { index: 0, lengthBytes: BLOCK_BYTES, parts: [{ startBytes: 4096, lengthBytes: 512 }] },
      { index: 1, lengthBytes: BLOCK_BYTES, parts: all(BLOCK_BYTES) },
      { index: 2, lengthBytes: BLOCK_BYTES, parts: all(BLOCK_BYTES), known: sum(blockOf(3)) },
      { index: 3, lengthBytes: 1000, parts: all(1000), known: sum(blockOf(3)) },
    ];
    const answers: BlockAnswer[] = [];
    for await (const answer of disk.readBlocks(wanted)) {
      if (answer.data) answers.push({ ...answer, data: Buffer.from(answer.data) });
      else answers.push(answer);
    }
    await disk.close();
    const part = Buffer.alloc(BLOCK_BYTES);
    content.copy(part, 4096, 4096, 4096 + 512);
    expect(answers.map((a) => [a.index, a.kind, a.sentBytes])).toEqual([
      [0, 'data', BLOCK_BYTES],
      [1, 'zero', 0],
      [2, 'same', 0],
      [3, 'data', 1000],
    ]);
    expect(answers[0]?.data?.equals(part)).toBe(true);
    expect(answers[0]?.sha256).toEqual(sum(part));
    expect(answers[3]?.data?.equals(content.subarray(-1000))).toBe(true);
  });

  test('a file that is cut while it is read is no disk of zeros', async () => {
    const file = path.join(dir, 'disk');
    await fs.writeFile(file, Buffer.alloc(8192, 1));
    const disk = await openFileSource(file);
    await fs.truncate(file, 4096);
    await expect(disk.read(0, 8192)).rejects.toMatchObject({ code: 'SOURCE_CHANGED' });
    await disk.close();
    await expect(openFileSource(dir)).rejects.toMatchObject({ code: 'NOT_A_DISK' });
  });
});

describe('unreadable sectors', () => {
  test('are found exactly, and nothing else is lost', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(fc.nat({ max: 63 }), { maxLength: 20 }),
        fc.integer({ min: 1, max: 64 * 512 }),
        async (sectors, length) => {
          const bad = new Set(sectors);
          const target = Buffer.alloc(length, 0xee);
          const found = await readAround(
            {
              async read(offset, into) {
                for (let at = offset; at < offset + into.length; at++) {
                  if (bad.has(Math.floor(at / 512))) throw new Error('EIO');
                  into[at - offset] = (at % 251) + 1;
                }
              },
              isUnreadable: () => true,
            },
            0,
            target,
          );
          const isBad = (at: number) =>
            found.some((r) => at >= r.startBytes && at < r.startBytes + r.lengthBytes);
          target.forEach((byte, at) => {
            const unreadable = bad.has(Math.floor(at / 512));
            if (isBad(at) !== unreadable || byte !== (unreadable ? 0 : (at % 251) + 1))
              throw new Error(`byte ${at}`);
          });
          found.forEach((r, i) => {
            const before = found[i - 1];
            if (before) expect(r.startBytes).toBeGreaterThan(before.startBytes + before.lengthBytes);
          });
        },
      ),
      { numRuns: 40 },
    );
  });

  test('another failure ends the reading', async () => {
    const reader = {
      read: async () => {
        throw new Error('gone');
      },
      isUnreadable: () => false,
    };
    await expect(readAround(reader, 0, Buffer.alloc(4096))).rejects.toThrow('gone');
  });
});

describe('reading ahead', () => {
  test('what is read is answered while the next wish is still waited for', async () => {
    let go = () => {};
    const held = new Promise<void>((resolve) => {
      go = resolve;
    });
    async function* wanted(): AsyncGenerator<WantedBlock> {
      yield { index: 0, lengthBytes: 512, parts: [{ startBytes: 0, lengthBytes: 512 }] };
      await held;
      yield { index: 1, lengthBytes: 512, parts: [{ startBytes: 0, lengthBytes: 512 }] };
    }
    const answers = readInOrder(async () => [], wanted());
    expect((await answers.next()).value).toMatchObject({ index: 0 });
    go();
    expect((await answers.next()).value).toMatchObject({ index: 1 });
    expect((await answers.next()).done).toBe(true);
  });

  test('a receiver that leaves leaves no read behind', async () => {
    let running = 0;
    const read = async () => {
      running++;
      await new Promise((resolve) => setTimeout(resolve, 5));
      running--;
      return [];
    };
    const wanted = Array.from({ length: 9 }, (_, index) => ({
      index,
      lengthBytes: 512,
      parts: [{ startBytes: 0, lengthBytes: 512 }],
    }));
    for await (const answer of readInOrder(read, wanted)) if (answer.index === 1) break;
    expect(running).toBe(0);
    await expect(readInOrder(read, wanted, AbortSignal.abort()).next()).rejects.toMatchObject({
      code: 'INTERRUPTED',
    });
  });
});
