import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createWriteStream, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { afterAll, describe, expect, test } from 'vitest';
import { GIB, MIB } from '../../core/sizes.ts';
import type { LocalDisk } from '../../core/sync/types.ts';
import { listGceTar } from '../../tools/gce-tar.ts';
import { gceTarStream } from '../../tools/gce-tar-stream.ts';
import { requires } from '../support/requires.ts';
import { type DiskChange, diskFile } from '../support/sync-input.ts';

describe.skipIf(requires('tar', 'qemu-img'))('GCE tarball as a stream', () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'port-image-gce-stream-'));
  const signal = new AbortController().signal;
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  async function written(disk: LocalDisk, name: string, bytes: number): Promise<string> {
    const file = path.join(dir, name);
    await pipeline(Readable.from(gceTarStream(disk, bytes, { signal })), createWriteStream(file));
    return file;
  }
  const some = (...numbers: number[]): DiskChange => Object.fromEntries(numbers.map((n) => [n, 'random']));

  test.each([
    ['nothing', {}, 48 * MIB],
    ['its begin and its end', some(0, 1, 47), 48 * MIB],
    [
      'more holes than a header and a block have room for',
      some(
        ...Array(31)
          .fill(0)
          .map((_, i) => i * 3),
      ),
      93 * MIB,
    ],
    ['an end that is no whole block', some(3, 40), 40 * MIB + 1536],
    ['a size that octal digits have no room for', some(0, 7), 8 * MIB, 9 * GIB],
  ] as const)(
    'GNU tar unpacks the disk, filled up to whole GiB: %s',
    async (name, change, bytes, whole: number = GIB) => {
      const disk = await diskFile(path.join(dir, 'disk'), bytes, change);
      const file = await written(disk, 'a.tar.gz', whole);
      expect(await listGceTar(file, signal), name).toEqual([
        { kind: '-', name: 'disk.raw', sizeBytes: whole },
      ]);
      const out = path.join(dir, 'out');
      mkdirSync(out);
      execFileSync('tar', ['-xzf', file, '-C', out]);
      const unpacked = path.join(out, 'disk.raw');
      execFileSync('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', unpacked, disk.rawPath]);
      expect((await fs.stat(unpacked)).size).toBe(whole);
      expect((await fs.stat(unpacked)).blocks * 512).toBeLessThan(40 * MIB);
      rmSync(out, { recursive: true });
      const digest = async (f: string) =>
        createHash('sha256')
          .update(await fs.readFile(f))
          .digest('hex');
      expect(await digest(await written(disk, 'b.tar.gz', whole))).toBe(await digest(file));
    },
  );

  test('a disk that is not the one that was read ends it', async () => {
    const disk = await diskFile(path.join(dir, 'disk'), 8 * MIB, some(1, 5));
    await diskFile(disk.rawPath, 8 * MIB, some(1, 5));
    await expect(written(disk, 'c.tar.gz', GIB)).rejects.toMatchObject({ code: 'SOURCE_CHANGED' });
  });
});
