import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { run } from '../../core/command.ts';
import { exportDisk } from '../../tools/qemu-storage-daemon.ts';
import { sourceDigest } from '../../tools/source-digest.ts';
import { requires } from '../support/requires.ts';

const MIB = 1024 * 1024;
const missing = requires('qemu-img');

describe.skipIf(missing)('sourceDigest', () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'port-image-digest-'));
  afterAll(() => rmSync(dir, { recursive: true, force: true }));
  const sparse = async (name: string, pieces: [number, Buffer][], size: number): Promise<string> => {
    const file = path.join(dir, name);
    const handle = await fs.open(file, 'w');
    for (const [offset, data] of pieces) await handle.write(data, 0, data.length, offset);
    await handle.truncate(size);
    await handle.close();
    return file;
  };

  test('a file without holes: the plain sha256', async () => {
    const data = Buffer.from(Array.from({ length: 9 * MIB + 17 }, (_, i) => (i % 251) + 1));
    const file = await sparse('plain, a:b', [[0, data]], data.length);
    await expect(sourceDigest(file)).resolves.toEqual({
      kind: 'plain',
      sha256: createHash('sha256').update(data).digest('hex'),
      readBytes: data.length,
    });
  });

  test('holes and stored zeros are the same; one changed byte, another place or size is not', async () => {
    const data = Buffer.alloc(300_000, 5);
    const a = await sparse('a', [[10 * MIB, data]], 40 * MIB);
    const stored = await sparse(
      'b',
      [
        [9 * MIB, Buffer.alloc(2 * MIB)],
        [10 * MIB, data],
      ],
      40 * MIB,
    );
    const moved = await sparse('c', [[11 * MIB, data]], 40 * MIB);
    const longer = await sparse('d', [[10 * MIB, data]], 41 * MIB);
    const changed = await sparse(
      'e',
      [
        [10 * MIB, data],
        [30 * MIB, Buffer.from([1])],
      ],
      40 * MIB,
    );
    const digests = await Promise.all(
      [a, stored, moved, longer, changed].map(
        async (f) => (await sourceDigest(f, { kind: 'blocks' })).sha256,
      ),
    );
    expect(digests[1]).toBe(digests[0]);
    expect(new Set(digests).size).toBe(4);
    expect((await sourceDigest(a)).kind).toBe('blocks');
  });

  test('a sparse 10 TiB disk costs seconds at most', async () => {
    const file = await sparse('huge', [[7 * 1024 ** 4, Buffer.alloc(MIB, 9)]], 10 * 1024 ** 4);
    const before = process.cpuUsage();
    const { kind, readBytes } = await sourceDigest(file);
    expect(kind).toBe('blocks');
    expect(readBytes).toBeLessThan(3 * MIB);
    // Not the clock: others may have the processor.
    expect(process.cpuUsage(before).user).toBeLessThan(5_000_000);
  });

  test('stops when told', async () => {
    const file = await sparse('stop', [[0, Buffer.alloc(MIB, 1)]], MIB);
    await expect(sourceDigest(file, { signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'INTERRUPTED',
    });
  });

  const noFuse =
    requires('qemu-storage-daemon', 'setpriv') ?? (process.getuid?.() === 0 ? undefined : 'needs root');
  test.skipIf(noFuse)(
    'an exported image reads like the raw disk, and the export leaves nothing',
    async () => {
      const data = Buffer.alloc(2 * MIB, 3);
      const raw = await sparse('raw', [[5 * MIB, data]], 64 * MIB);
      const image = { path: path.join(dir, 'im,age:x.vmdk'), format: 'vmdk' };
      await run('qemu-img', ['convert', '-f', 'raw', '-O', 'vmdk', raw, image.path]);
      const scratch = path.join(dir, 'scratch dir');
      await fs.mkdir(scratch);
      const exported = await exportDisk(image, scratch);
      const viaFuse = await sourceDigest(exported.path);
      expect(viaFuse).toEqual(await sourceDigest(raw));
      expect(viaFuse.kind).toBe('blocks');
      await expect(fs.writeFile(exported.path, 'x', { flag: 'r+' })).rejects.toThrow();
      await exported.stop();
      await exported.stop();
      await expect(fs.readdir(scratch)).resolves.toEqual([]);
      await expect(exportDisk({ path: raw, format: 'qcow2' }, scratch)).rejects.toMatchObject({
        code: 'PROGRAM_FAILED',
      });
      await expect(fs.readdir(scratch)).resolves.toEqual([]);
      const controller = new AbortController();
      await exportDisk(image, scratch, { signal: controller.signal });
      controller.abort();
      await expect.poll(() => fs.readdir(scratch), { timeout: 10_000 }).toEqual([]);
    },
  );
});
