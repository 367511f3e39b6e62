import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { run } from '../../../core/command.ts';
import { requires } from '../../support/requires.ts';
import { copyRanges, mapOf, mounted, treeDigest } from './proof.ts';

const missing =
  requires('mount', 'losetup', 'e2fsck', 'xfs_repair') ?? (process.getuid?.() === 0 ? undefined : 'not root');

let folder = '';
beforeAll(async () => {
  folder = await fs.mkdtemp('/var/tmp/port-image-allocation-');
});
afterAll(async () => {
  await fs.rm(folder, { recursive: true, force: true });
});

/** A stretch of a disk as a file: e2fsck and xfs_repair know no offsets. */
async function extract(disk: string, startBytes: number, sizeBytes: number): Promise<string> {
  const file = path.join(folder, 'part.img');
  await fs.rm(file, { force: true });
  await run('dd', [
    `if=${disk}`,
    `of=${file}`,
    'bs=1M',
    'conv=sparse',
    'iflag=skip_bytes,count_bytes',
    `skip=${startBytes}`,
    `count=${sizeBytes}`,
    'status=none',
  ]);
  return file;
}

describe.skipIf(missing)('a copy of what is mapped of a whole server', () => {
  test.for([
    ['bios-lvm', ['unpartitioned', 'ext4', 'lvm', 'ext4', 'swap', 'lvm-free', 'swap']],
    ['uefi-xfs', ['unpartitioned', 'fat', 'xfs', 'swap', 'unpartitioned']],
  ] as const)('%s', async ([name, kinds]) => {
    const built = await run('fixtures/servers/build', [name]);
    const disk = built.stdout.trim();
    const map = await mapOf(disk);
    expect(map.parts.map((part) => part.kind)).toEqual(kinds);
    const { size } = await fs.stat(disk);
    expect(map.parts.reduce((sum, part) => sum + part.sizeBytes, 0)).toBe(size);
    expect(map.allocatedBytes).toBeLessThan(size / 2);
    const copy = path.join(folder, 'disk.img');
    await copyRanges(disk, map.ranges, copy);
    let compared = 0;
    for (const { kind, startBytes, sizeBytes } of map.parts) {
      if (kind !== 'ext4' && kind !== 'xfs') continue;
      const place = `ro,offset=${startBytes},sizelimit=${sizeBytes}`;
      const part = await extract(copy, startBytes, sizeBytes);
      await (kind === 'xfs' ? run('xfs_repair', ['-n', part]) : run('e2fsck', ['-fn', part]));
      const wanted = await mounted(disk, place, treeDigest);
      expect(await mounted(copy, place, treeDigest)).toEqual(wanted);
      compared += wanted.length;
    }
    expect(compared).toBeGreaterThan(1000);
  });
});
