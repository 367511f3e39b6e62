import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { GIB, MIB } from '../../core/sizes.ts';
import { diskOf } from '../../tools/container-disk.ts';
import { listGceTar, writeGceTar } from '../../tools/gce-tar.ts';
import * as qemuImg from '../../tools/qemu-img.ts';
import { exportDisk } from '../../tools/qemu-storage-daemon.ts';
import { requires } from '../support/requires.ts';

describe.skipIf(requires('tar', 'qemu-img', 'qemu-storage-daemon'))('GCE tarball', () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'port-image-gce-'));
  const raw = { path: path.join(dir, 'plain'), format: 'raw' };
  const signal = new AbortController().signal;
  afterAll(() => rmSync(dir, { recursive: true, force: true }));
  beforeAll(async () => {
    const handle = await fs.open(raw.path, 'w');
    // 96 MiB that cannot be compressed take more than a second, in which the clock of the FUSE export goes on
    for (const at of [5, 700, 900]) await handle.write(randomBytes(32 * MIB), 0, 32 * MIB, at * MIB);
    await handle.truncate(GIB);
    await handle.close();
  });

  async function written(): Promise<string> {
    const target = path.join(dir, 'disk.tar.gz');
    await fs.writeFile(target, '', { mode: 0o600 });
    const disk = await exportDisk(raw, dir, { signal });
    try {
      await writeGceTar(path.dirname(disk.path), target, { signal, tmp: dir });
    } finally {
      await disk.stop();
    }
    return target;
  }

  test('packed from a FUSE export: one member, equal bit by bit, holes kept', async () => {
    const target = await written();
    expect((await fs.stat(target)).size).toBeLessThan(98 * MIB);
    expect(await listGceTar(target, signal)).toEqual([{ kind: '-', name: 'disk.raw', sizeBytes: GIB }]);
    const disk = await diskOf({ path: target, format: 'raw', container: 'gce-tar' }, dir, { signal });
    expect(await qemuImg.compare(raw, disk)).toBe(true);
    expect((await fs.stat(disk.path)).blocks * 512).toBeLessThan(100 * MIB);
    await disk.close();
    await expect(fs.stat(disk.path)).rejects.toMatchObject({ code: 'ENOENT' });
  });

  test('what tar cannot read is told in its words, and nothing of it stays', async () => {
    const before = await fs.readdir(dir);
    const target = path.join(dir, 'none.tar.gz');
    await fs.writeFile(target, '');
    await expect(writeGceTar(path.join(dir, 'nowhere'), target, { signal, tmp: dir })).rejects.toMatchObject({
      code: 'PROGRAM_FAILED',
      message: expect.stringMatching(/nowhere/) as string,
    });
    await fs.rm(target);
    expect((await fs.readdir(dir)).sort()).toEqual(before.sort());
  });
});
