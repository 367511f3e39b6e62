import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { run } from '../../../core/command.ts';
import { MIB } from '../../../core/sizes.ts';
import { requires } from '../../support/requires.ts';
import { age, copyRanges, mapOf, mounted, treeDigest, usedBytes } from './proof.ts';

const missing =
  requires('mke2fs', 'e2fsck', 'debugfs', 'mkfs.xfs', 'xfs_repair', 'mount', 'losetup', 'fsfreeze') ??
  (process.getuid?.() === 0 ? undefined : 'not root');

let folder = '';
beforeAll(async () => {
  folder = await fs.mkdtemp('/var/tmp/port-image-allocation-');
});
afterAll(async () => {
  await fs.rm(folder, { recursive: true, force: true });
});

const SIZE = 600 * MIB;

async function makeImage(name: string, make: readonly string[]): Promise<string> {
  const image = path.join(folder, `${name}.img`);
  await fs.rm(image, { force: true });
  await fs.writeFile(image, '');
  await fs.truncate(image, SIZE);
  const [program = '', ...args] = make;
  await run(program, [...args, image]);
  return image;
}

function check(image: string, kind: string): readonly [string, string[]] {
  if (kind === 'xfs') return ['xfs_repair', ['-n', image]];
  if (kind === 'btrfs') return ['btrfs', ['check', '--check-data-csum', image]];
  return ['e2fsck', ['-fn', image]];
}

const EXT = ['mke2fs', '-q', '-F'];
const VARIANTS: readonly (readonly [name: string, kind: string, make: readonly string[]])[] = [
  ['ext4', 'ext4', [...EXT, '-t', 'ext4']],
  ['ext4, 1 KiB blocks, no flex_bg', 'ext4', [...EXT, '-t', 'ext4', '-b', '1024', '-O', '^flex_bg,^64bit']],
  ['ext4, meta_bg', 'ext4', [...EXT, '-t', 'ext4', '-b', '1024', '-O', 'meta_bg,^resize_inode']],
  ['ext4, bigalloc', 'ext4', [...EXT, '-t', 'ext4', '-O', 'bigalloc', '-C', '65536']],
  [
    'ext4, bigalloc, 1 KiB blocks',
    'ext4',
    [...EXT, '-t', 'ext4', '-b', '1024', '-O', 'bigalloc', '-C', '8192'],
  ],
  ['ext4, crc16', 'ext4', [...EXT, '-t', 'ext4', '-O', 'uninit_bg,^metadata_csum,^64bit']],
  ['ext4, sparse_super2', 'ext4', [...EXT, '-t', 'ext4', '-O', 'sparse_super2,^resize_inode']],
  ['ext4, no journal', 'ext4', [...EXT, '-t', 'ext4', '-O', '^has_journal,inline_data']],
  ['ext4, small groups', 'ext4', [...EXT, '-t', 'ext4', '-g', '2048', '-O', 'metadata_csum_seed']],
  ['ext3', 'ext4', [...EXT, '-t', 'ext3']],
  ['ext2, 1 KiB blocks', 'ext4', [...EXT, '-t', 'ext2', '-b', '1024']],
  ['ext2, first revision', 'ext4', [...EXT, '-t', 'ext2', '-r', '0', '-O', 'none']],
  ['xfs', 'xfs', ['mkfs.xfs', '-q']],
  ['xfs, 1 KiB blocks, many groups', 'xfs', ['mkfs.xfs', '-q', '-b', 'size=1024', '-d', 'agcount=8']],
  ['xfs, 4 KiB sectors, rmap', 'xfs', ['mkfs.xfs', '-q', '-s', 'size=4096', '-m', 'rmapbt=1,reflink=1']],
  ['xfs, log with a stripe', 'xfs', ['mkfs.xfs', '-q', '-l', 'su=256k']],
  ['btrfs', 'btrfs', ['mkfs.btrfs', '-q']],
  ['btrfs, single metadata', 'btrfs', ['mkfs.btrfs', '-q', '-m', 'single', '-O', '^no-holes']],
  ['btrfs, mixed', 'btrfs', ['mkfs.btrfs', '-q', '--mixed', '-n', '4096']],
];

describe.skipIf(missing)('a copy of what is mapped', () => {
  test.for(VARIANTS)('is the whole file system: %s', async ([, kind, make]) => {
    if (kind === 'btrfs' && requires('mkfs.btrfs')) return;
    const image = await makeImage('disk', make);
    const used = await mounted(image, 'rw', async (at) => {
      await age(at);
      return await usedBytes(at, SIZE);
    });
    const map = await mapOf(image);
    expect(map.parts).toMatchObject([{ kind }]);
    expect(map.parts[0]?.note).toBeUndefined();
    // not more than what is in use: fragments are widened to 4 KiB, and btrfs counts neither both copies nor its own reserves
    expect(map.allocatedBytes).toBeLessThanOrEqual(used * 1.05 + 2 * MIB);
    const copy = path.join(folder, 'copy.img');
    await copyRanges(image, map.ranges, copy);
    const [program, args] = check(copy, kind);
    await run(program, args);
    const wanted = await mounted(image, 'ro', treeDigest);
    expect(wanted.length).toBeGreaterThan(500);
    expect(await mounted(copy, 'ro', treeDigest)).toEqual(wanted);
  });

  // kernels no longer mount version 4: mkfs.xfs itself puts files into it
  test('is the whole file system: xfs, version 4', async () => {
    const proto = path.join(folder, 'proto');
    const big = path.join(folder, 'big');
    await fs.writeFile(big, Buffer.alloc(20 * MIB, 'some content'));
    const files = Array.from({ length: 200 }, (_, i) => `file${i} ---644 0 0 ${i === 7 ? big : proto}`);
    await fs.writeFile(proto, `/\n0 0\nd--755 0 0\n${files.join('\n')}\n$\n`);
    const image = await makeImage('disk', ['mkfs.xfs', '-q', '-m', 'crc=0', '-p', proto]);
    const map = await mapOf(image);
    expect(map.parts).toMatchObject([{ kind: 'xfs', how: 'btree' }]);
    expect(map.allocatedBytes).toBeLessThan(110 * MIB);
    const copy = path.join(folder, 'copy.img');
    await copyRanges(image, map.ranges, copy);
    await run('xfs_repair', ['-n', copy]);
    // nothing was ever deleted, so what is free is zeros
    await run('cmp', [image, copy]);
  });

  test('and this proof fails when a bitmap calls used blocks free', async () => {
    const image = await makeImage('negative', [...EXT, '-t', 'ext2', '-b', '4096']);
    await mounted(image, 'rw', async (at) => await age(at, 300));
    const { stdout } = await run('debugfs', ['-R', 'bmap "round 1/file 0" 8', image]);
    const block = Number(stdout);
    expect(block).toBeGreaterThan(0);
    const handle = await fs.open(image, 'r+');
    const descriptor = Buffer.alloc(32);
    const at = 4096 + Math.floor(block / 32768) * 32;
    await handle.read(descriptor, 0, 32, at);
    const bitmapAt = descriptor.readUInt32LE(0) * 4096 + Math.floor((block % 32768) / 8);
    const byte = Buffer.alloc(1);
    await handle.read(byte, 0, 1, bitmapAt);
    const freed = byte.readUInt8(0).toString(2).replaceAll('0', '').length;
    await handle.write(Buffer.from([0]), 0, 1, bitmapAt);
    // the change alone contradicts the count, so all is read
    expect((await mapOf(image)).parts).toMatchObject([{ how: 'whole', allocatedBytes: SIZE }]);
    descriptor.writeUInt16LE(descriptor.readUInt16LE(12) + freed, 12);
    await handle.write(descriptor, 0, 32, at);
    await handle.close();
    const map = await mapOf(image);
    expect(map.parts).toMatchObject([{ how: 'bitmap' }]);
    const copy = path.join(folder, 'copy.img');
    await copyRanges(image, map.ranges, copy);
    const wanted = await mounted(image, 'ro', treeDigest);
    expect(await mounted(copy, 'ro', treeDigest)).not.toEqual(wanted);
  });
});

describe.skipIf(missing)('a file system in use', () => {
  test.skipIf(requires('mkfs.btrfs'))('btrfs does not tell that it is: it counts whole', async () => {
    const image = await makeImage('unheld', ['mkfs.btrfs', '-q']);
    expect((await mapOf(image, 'offline')).parts).toMatchObject([{ kind: 'btrfs', how: 'btree' }]);
    expect((await mapOf(image, 'unheld')).parts).toMatchObject([{ kind: 'btrfs', how: 'whole' }]);
  });

  test.for([
    ['ext4', [...EXT, '-t', 'ext4']],
    ['xfs', ['mkfs.xfs', '-q']],
  ] as const)('%s: frozen it is mapped and complete, not frozen it counts whole', async ([kind, make]) => {
    const image = await makeImage('frozen', make);
    const copy = path.join(folder, 'copy.img');
    const wanted = await mounted(image, 'rw', async (at) => {
      await age(at, 300);
      expect((await mapOf(image, 'offline')).parts).toMatchObject([{ kind, how: 'whole' }]);
      expect((await mapOf(image, 'live')).allocatedBytes).toBeLessThan(SIZE / 2);
      await run('fsfreeze', ['-f', at]);
      try {
        const map = await mapOf(image, 'frozen');
        expect(map.allocatedBytes).toBeLessThan(SIZE / 2);
        const uuid = map.parts[0]?.uuid ?? '';
        expect(await mapOf(image, { frozen: new Set([uuid]) })).toEqual(map);
        if (kind === 'xfs') {
          // another one on the disk was frozen, not this
          expect((await mapOf(image, { frozen: new Set() })).parts).toMatchObject([{ how: 'whole' }]);
        }
        await copyRanges(image, map.ranges, copy);
      } finally {
        await run('fsfreeze', ['-u', at]);
      }
      return await treeDigest(at);
    });
    expect(await mounted(copy, 'rw', treeDigest)).toEqual(wanted);
    const [program, args] = check(copy, kind);
    await run(program, args);
  });
});
