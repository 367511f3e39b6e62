import { mkdtempSync, rmSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { run } from '../../../core/command.ts';
import { PortError } from '../../../core/errors.ts';
import type { SourceFormat } from '../../../core/request.ts';
import { gate } from '../../../stages/capture/gate.ts';
import * as qemuImg from '../../../tools/qemu-img.ts';
import { requires } from '../../support/requires.ts';

const missing = requires('qemu-img', 'mke2fs', 'sfdisk', 'prlimit');

const KINDS: readonly [label: string, format: SourceFormat, options: string[]][] = [
  ['qcow2 v2', 'qcow2', ['-o', 'compat=0.10']],
  ['qcow2 v3', 'qcow2', []],
  ['qcow2 zlib', 'qcow2', ['-c']],
  ['qcow2 zstd', 'qcow2', ['-c', '-o', 'compression_type=zstd']],
  ['qcow2 512-byte clusters', 'qcow2', ['-o', 'cluster_size=512']],
  ['qcow2 2 MiB clusters', 'qcow2', ['-o', 'cluster_size=2M']],
  ['qcow2 subclusters', 'qcow2', ['-o', 'extended_l2=on']],
  ['qcow2 metadata preallocated', 'qcow2', ['-o', 'preallocation=metadata']],
  ['vmdk sparse', 'vmdk', ['-o', 'subformat=monolithicSparse']],
  ['vmdk stream', 'vmdk', ['-o', 'subformat=streamOptimized']],
  ['vhd dynamic', 'vpc', ['-o', 'subformat=dynamic']],
  ['vhd fixed', 'vpc', ['-o', 'subformat=fixed,force_size=on']],
  ['vhdx dynamic', 'vhdx', []],
  ['vhdx fixed', 'vhdx', ['-o', 'subformat=fixed']],
  ['vdi dynamic', 'vdi', []],
  ['vdi static', 'vdi', ['-o', 'static=on']],
];

describe.skipIf(missing)('every source format', () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'port-image-formats-'));
  const base = { path: path.join(dir, 'base.raw'), format: 'raw' };

  beforeAll(async () => {
    await fs.writeFile(base.path, '');
    await fs.truncate(base.path, 48 * 1024 * 1024);
    await run('sfdisk', ['-q', base.path], { input: 'label: dos\n2048,,83,*\n' });
    await run('mke2fs', ['-q', '-t', 'ext4', '-E', 'offset=1048576', '-d', 'core', base.path, '47M']);
    const handle = await fs.open(base.path, 'r+');
    const noise = Buffer.from(Array.from({ length: 3_000_000 }, (_, i) => (i * i * 31 + (i >> 7)) & 255));
    await handle.write(noise, 0, noise.length, 40 * 1024 * 1024 - 100);
    await handle.close();
  }, 60_000);
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  test('raw', async () => {
    await expect(gate(base.path, { tmp: dir })).resolves.toMatchObject({
      format: 'raw',
      virtualBytes: 48 << 20,
    });
  });

  test.each(KINDS)(
    '%s: accepted, stands below an overlay, equal; cut anywhere, refused',
    async (label, format, options) => {
      const file = path.join(dir, `${label}, a:b.img`);
      await run('qemu-img', ['convert', '-f', 'raw', '-O', format, ...options, base.path, file]);
      const image = await gate(file, { tmp: dir });
      expect(image.format).toBe(format);
      const overlay = { path: path.join(dir, 'overlay.qcow2'), format: 'qcow2' };
      const out = { path: path.join(dir, 'out.qcow2'), format: 'qcow2' };
      await qemuImg.createOverlay(image, overlay.path);
      await qemuImg.convert(overlay, out, { compress: true, formatOptions: { compression_type: 'zstd' } });
      await expect(qemuImg.compare(base, out)).resolves.toBe(true);

      const { size } = await fs.stat(file);
      const places = [0.02, 0.3, 0.5, 0.77, 0.95].map((share) => Math.floor(size * share));
      const copy = `${file}.cut`;
      for (const at of [...places, size - 65_536]) {
        await run('cp', ['--sparse=always', '--', file, copy]);
        await fs.truncate(copy, at);
        const error = await gate(copy, { tmp: dir }).catch((e: unknown) => e);
        expect((error as PortError).code, `cut at ${at} of ${size}`).toBe('DAMAGED');
        expect(error).toBeInstanceOf(PortError);
      }
      await Promise.all([file, copy, overlay.path, out.path].map((f) => fs.rm(f, { force: true })));
    },
    60_000,
  );
});
