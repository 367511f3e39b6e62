import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { run } from '../../../core/command.ts';
import { BLOCK_BYTES, type BlockAnswer } from '../../../core/disk-source.ts';
import { type Background, startBackground } from '../../../tools/background.ts';
import { openFileSource } from '../../../tools/disk-sources/file.ts';
import { requires } from '../../support/requires.ts';

const missing =
  requires('qemu-storage-daemon', 'setpriv', 'umount') ??
  (process.getuid?.() === 0 ? undefined : 'needs root');

describe.skipIf(missing)('a file the kernel cannot read everywhere', () => {
  let dir: string;
  let daemon: Background | undefined;
  beforeEach(async () => {
    dir = await fs.mkdtemp(path.join(tmpdir(), 'port-image-eio-'));
  });
  afterEach(async () => {
    await daemon?.stop();
    await run('umount', ['--lazy', '--', path.join(dir, 'shown')], { okStatus: [0, 1, 32] });
    await fs.rm(dir, { recursive: true, force: true });
  });

  test('unreadable places are told and zeros; a disk that is gone is no bad disk', async () => {
    const image = path.join(dir, 'image');
    const shown = path.join(dir, 'shown');
    const content = randomBytes(2 * BLOCK_BYTES);
    await fs.writeFile(image, content);
    await fs.writeFile(shown, '');
    const bad = BLOCK_BYTES + 16 * 4096;
    const file = { driver: 'file', filename: image, 'node-name': 'file', 'read-only': true };
    const inject = [{ event: 'none', iotype: 'read', errno: 5, sector: bad / 512, once: false }];
    const faulty = {
      driver: 'blkdebug',
      image: 'file',
      'node-name': 'disk',
      'read-only': true,
      'inject-error': inject,
    };
    const fuse = { type: 'fuse', id: 'disk', 'node-name': 'disk', mountpoint: shown, writable: false };
    daemon = startBackground('qemu-storage-daemon', [
      ...['--blockdev', JSON.stringify(file), '--blockdev', JSON.stringify(faulty)],
      ...['--export', JSON.stringify(fuse)],
    ]);
    await expect
      .poll(async () => (await fs.stat(shown)).size || daemon?.stderr(), { timeout: 20_000 })
      .toBe(content.length);
    const disk = await openFileSource(shown);
    const whole = (index: number) => ({
      index,
      lengthBytes: BLOCK_BYTES,
      parts: [{ startBytes: 0, lengthBytes: BLOCK_BYTES }],
    });
    const answers: BlockAnswer[] = [];
    for await (const answer of disk.readBlocks([whole(0), whole(1)])) {
      answers.push({ ...answer, data: Buffer.from(answer.data ?? []) });
    }
    // the kernel reads files by pages of 4 KiB
    expect(answers.map((a) => a.bad)).toEqual([[], [{ startBytes: 16 * 4096, lengthBytes: 4096 }]]);
    const expected = Buffer.from(content);
    expected.fill(0, bad, bad + 4096);
    expect(Buffer.concat(answers.map((a) => a.data ?? Buffer.alloc(0))).equals(expected)).toBe(true);
    await expect(disk.read(bad, 512)).rejects.toMatchObject({ code: 'BAD_SECTORS' });
    process.kill(daemon.pid ?? 0, 'SIGKILL');
    await daemon.exited;
    await expect(disk.read(bad, 512)).rejects.toMatchObject({ code: 'SOURCE_REMOTE', temporary: true });
    await disk.close();
  });
});
