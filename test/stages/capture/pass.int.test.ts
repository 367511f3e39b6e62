import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { run } from '../../../core/command.ts';
import { BLOCK_BYTES } from '../../../core/disk-source.ts';
import { type PassResult, runPass } from '../../../stages/capture/pass.ts';
import { openDiskCopy } from '../../../tools/disk-copy/index.ts';
import { requires } from '../../support/requires.ts';
import { blockOf } from '../../tools/disk-copy/disk-fixtures.ts';
import { FakeDisk } from './pass-disk.ts';

const missing = requires('qemu-img', 'fallocate');
const noMount =
  missing ?? requires('mount', 'umount') ?? (process.getuid?.() === 0 ? undefined : 'needs root');
const CHILD = path.join(import.meta.dirname, 'pass-child.ts');
const MIB = 1024 * 1024;

describe.skipIf(missing)('a pass in a process of its own', () => {
  let dir: string;
  beforeEach(async () => {
    dir = await fs.mkdtemp(path.join(tmpdir(), 'port-image-pass-'));
  });
  afterEach(() => fs.rm(dir, { recursive: true, force: true }));

  async function makeDisk(blocks: number): Promise<{ file: string; sizeBytes: number }> {
    const file = path.join(dir, 'disk.img');
    const handle = await fs.open(file, 'w');
    for (let i = 0; i < blocks; i++) {
      if (i % 7 !== 3) await handle.write(blockOf(i + 1), 0, BLOCK_BYTES, i * BLOCK_BYTES);
    }
    await handle.truncate(blocks * BLOCK_BYTES + 1000);
    await handle.close();
    return { file, sizeBytes: blocks * BLOCK_BYTES + 1000 };
  }
  function startChild(disk: { file: string; sizeBytes: number }): {
    child: ChildProcess;
    answer: Promise<string>;
  } {
    const child = spawn(
      process.execPath,
      [CHILD, disk.file, path.join(dir, 'copy'), String(disk.sizeBytes)],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    );
    const answer = (async () => {
      let text = '';
      for await (const piece of child.stdout ?? []) text += String(piece);
      return text;
    })();
    return { child, answer };
  }
  async function sha256(file: string): Promise<string> {
    return createHash('sha256')
      .update(await fs.readFile(file))
      .digest('hex');
  }

  test('killed ten times at any moment, then finished: the copy is the disk, and little was read twice', async () => {
    const disk = await makeDisk(60);
    const present: number[] = [];
    let kills = 0;
    for (; kills < 10; kills++) {
      const { child, answer } = startChild(disk);
      await sleep(250 + Math.random() * 350);
      child.kill('SIGKILL');
      if ((await answer) !== '') break; // it was done before
      const copy = await openDiskCopy(path.join(dir, 'copy'), 'sda', {
        sizeBytes: disk.sizeBytes,
        sourceId: disk.file,
      });
      present.push(copy.presentBlocks);
      // what the index says is there is there
      await copy.verifyAll();
      await copy.close();
    }
    const before = present.at(-1) ?? 0;
    const result = JSON.parse(await startChild(disk).answer) as PassResult;
    const copied = path.join(dir, 'copy', 'sda.raw');
    expect(await sha256(copied)).toBe(await sha256(disk.file));
    expect(present).toEqual([...present].sort((a, b) => a - b));
    // blocks of the index are never read again
    const used = Math.round(result.allocatedBytes / BLOCK_BYTES);
    expect(result.readBlocks).toBeLessThanOrEqual(used + 1 - Math.min(before, used));
    expect(kills).toBeGreaterThan(0);
  });

  test('a pass needs at most 64 MiB beyond what Node and the program need before it', async () => {
    const disk = await makeDisk(60);
    const { peakBytes } = JSON.parse(await startChild(disk).answer) as { peakBytes: number };
    const modules = ['stages/capture/pass.ts', 'tools/disk-copy/index.ts', 'tools/disk-sources/file.ts'];
    const root = path.join(import.meta.dirname, '../../..');
    const imports = modules.map((m) => `await import(${JSON.stringify(path.join(root, m))});`).join('');
    const { stdout } = await run(process.execPath, [
      '--input-type=module',
      '-e',
      `${imports}process.stdout.write(String(process.resourceUsage().maxRSS * 1024))`,
    ]);
    expect(peakBytes - Number(stdout)).toBeLessThan(64 * MIB);
  });
});

describe.skipIf(noMount)('a pass onto a small file system', () => {
  let dir: string;
  beforeEach(async () => {
    dir = await fs.mkdtemp(path.join(tmpdir(), 'port-image-small-'));
    await run('mount', ['-t', 'tmpfs', '-o', 'size=24m,mode=700', 'tmpfs', dir]);
  });
  afterEach(async () => {
    await run('umount', ['--lazy', '--', dir]);
    await fs.rmdir(dir);
  });

  test('no room: told before; room that goes away: one line, and it goes on from there', async () => {
    const disk = new FakeDisk([1, 2, 3, 4, 5]);
    const identity = { sizeBytes: disk.sizeBytes, sourceId: 'test' };
    const options = {
      open: disk.open,
      allocation: async () => ({ ranges: [{ startBytes: 0, lengthBytes: disk.sizeBytes }] }),
      pass: 1,
      mode: 'resume' as const,
    };
    const filler = path.join(dir, 'filler');
    await fs.writeFile(filler, Buffer.alloc(10 * MIB, 1));
    let copy = await openDiskCopy(dir, 'sda', identity);
    await expect(runPass({ ...options, copy })).rejects.toMatchObject({
      code: 'DISK_SPACE',
      message: expect.stringMatching(/^the copy of a disk of the test needs 20 MiB in /),
    });
    expect(disk.asked).toEqual([]);
    await fs.rm(filler);
    const greedy = async () => {
      const inner = await disk.open();
      return {
        ...inner,
        async *readBlocks(...[wanted, signal]: Parameters<typeof inner.readBlocks>) {
          for await (const answer of inner.readBlocks(wanted, signal)) {
            if (answer.index === 1) await fs.writeFile(filler, Buffer.alloc(10 * MIB, 1));
            yield answer;
          }
        },
      };
    };
    await expect(runPass({ ...options, copy, open: greedy })).rejects.toMatchObject({
      code: 'DISK_SPACE',
      message: `no space left on this machine for ${copy.rawPath}`,
      hint: expect.any(String),
    });
    await copy.close();
    await fs.rm(filler);
    copy = await openDiskCopy(dir, 'sda', identity);
    const before = copy.presentBlocks;
    expect(before).toBeGreaterThan(0);
    disk.asked.length = 0;
    await runPass({ ...options, copy });
    expect(disk.asked).toHaveLength(5 - before);
    await copy.verifyAll();
    expect(
      (await fs.readFile(copy.rawPath)).equals(Buffer.concat([1, 2, 3, 4, 5].map((n) => blockOf(n)))),
    ).toBe(true);
    await copy.close();
  });
});
