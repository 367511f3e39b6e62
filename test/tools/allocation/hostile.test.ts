import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import * as path from 'node:path';
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { PortError } from '../../../core/errors.ts';
import { MIB } from '../../../core/sizes.ts';
import { crc32c } from '../../../tools/allocation/checksums.ts';
import { type AllocationMap, allocationMap, type DiskState } from '../../../tools/allocation/index.ts';
import { type ByteSource, bufferSource } from '../../../tools/image-format/reader.ts';
import { requires } from '../../support/requires.ts';
import { groupText, linear, lvmImage, sealLvm, volumeText } from './lvm-image.ts';

const folder = mkdtempSync('/tmp/port-image-allocation-');
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

function image(sizeBytes: number, program: string, args: readonly string[], input?: string): Buffer {
  const file = path.join(folder, 'disk.img');
  rmSync(file, { force: true });
  writeFileSync(file, '', { mode: 0o600 });
  truncateSync(file, sizeBytes);
  execFileSync(program, [...args, file], {
    // mkfs.xfs makes small file systems only for its own tests
    env: { ...process.env, ...XFS_SMALL, PATH: `${process.env.PATH ?? ''}:/usr/sbin:/sbin` },
    stdio: ['pipe', 'ignore', 'ignore'],
    ...(input === undefined ? {} : { input }),
  });
  return readFileSync(file);
}

/** Stretches of an image that are not zero, at most so many bytes each: where a change means something. */
function interesting(data: Buffer): number[] {
  const places: number[] = [];
  for (let at = 0; at < data.length; at += 512) {
    if (data.subarray(at, at + 512).some((byte) => byte !== 0)) places.push(at);
  }
  return places;
}

/** An image with a few changed bytes; the base is put back afterwards. */
function changed(base: Buffer, places: readonly number[]): fc.Arbitrary<[number, number][]> {
  const values = fc.oneof(fc.constantFrom(0, 1, 0x7f, 0x80, 0xff), fc.nat(255));
  const place = fc
    .tuple(fc.oneof(fc.nat(Math.min(24, places.length - 1)), fc.nat(places.length - 1)), fc.nat(511))
    .map(([i, offset]) => Math.min((places[i] ?? 0) + offset, base.length - 1));
  return fc.array(fc.tuple(place, values), { minLength: 1, maxLength: 6 });
}

/** What is wrong with a map, whatever the disk holds. Plain code: it runs a hundred thousand times. */
function faultOf(map: AllocationMap, sizeBytes: number): string | undefined {
  let end = -1;
  for (const range of map.ranges) {
    if (range.startBytes <= end || range.lengthBytes <= 0) return 'ranges do not ascend';
    end = range.startBytes + range.lengthBytes;
  }
  if (end > sizeBytes) return 'a range ends beyond the disk';
  if (map.parts.reduce((sum, part) => sum + part.sizeBytes, 0) !== sizeBytes) return 'parts are not the disk';
  // what a parser did not foresee shows as an error of the language
  const language = /undefined|not a function|out of range|Invalid|cannot mix|call stack|BigInt/i;
  const bad = map.parts.find((part) => language.test(part.note ?? '') || part.allocatedBytes < 0);
  return bad && `part ${bad.kind}: ${bad.note}`;
}

async function expectSound(source: ByteSource, state: DiskState): Promise<AllocationMap> {
  const map = await allocationMap(source, { state });
  const fault = faultOf(map, source.sizeBytes);
  if (fault !== undefined) throw new Error(fault);
  return map;
}

/** Puts the checksums of everything at these places right again, so that a change gets past them. */
type Seal = (data: Buffer, places: readonly number[]) => void;

const sealNothing: Seal = () => {};

const sealGpt: Seal = (data) => {
  const size = Math.min(data.readUInt32LE(512 + 12), 512);
  data.writeUInt32LE(crc32(data.subarray(1024, 1024 + 128 * 128)), 512 + 88);
  data.writeUInt32LE(0, 512 + 16);
  data.writeUInt32LE(crc32(data.subarray(512, 512 + size)), 512 + 16);
};

/** Nodes of 4 KiB. */
const sealBtrfs: Seal = (data, places) => {
  for (const place of places) {
    const block = data.subarray(Math.floor(place / 4096) * 4096).subarray(0, 4096);
    block.writeUInt32LE(~crc32c(~0, block.subarray(32)) >>> 0, 0);
  }
};

/** Version 5 with blocks and sectors of 4 KiB or 512 bytes: each kind has its checksum somewhere else. */
const sealXfs: Seal = (data, places) => {
  const sum = (start: number, length: number, at: number): void => {
    const block = data.subarray(start, start + length);
    block.writeUInt32LE(0, at);
    block.writeUInt32LE(~crc32c(~0, block) >>> 0, at);
  };
  for (const place of places) {
    const sector = Math.floor(place / 512) * 512;
    const magic = data.toString('latin1', sector, sector + 4);
    const start = Math.floor(place / 4096) * 4096;
    if (sector === 0) sum(0, 512, 224);
    else if (magic === 'XAGF') sum(sector, 512, 216);
    else if (data.toString('latin1', start, start + 4) === 'AB3B') sum(start, 4096, 52);
  }
};

const XFS_SMALL = { TEST_DIR: '/x', TEST_DEV: '/x', QA_CHECK_FS: '/x' };

/** The image with a swap space in each of these places. */
function withSwap(base: Buffer, ...places: number[]): Buffer {
  const swap = image(MIB, 'mkswap', []);
  for (const at of places) swap.copy(base, at, 0, 4096);
  return base;
}

const LVM = groupText(
  30,
  `${volumeText('a', [linear(0, 4, 2), linear(4, 2, 9)])} ${volumeText('b', [linear(0, 4, 12)])}`,
);

const BASES: readonly (readonly [
  name: string,
  missing: string | undefined,
  make: () => Buffer,
  seal: Seal,
])[] = [
  [
    'ext4',
    requires('mke2fs'),
    () => image(8 * MIB, 'mke2fs', ['-q', '-F', '-t', 'ext4', '-b', '1024']),
    sealNothing,
  ],
  [
    'ext4 without checksums',
    requires('mke2fs'),
    () =>
      image(8 * MIB, 'mke2fs', [
        ...['-q', '-F', '-t', 'ext4', '-b', '1024', '-g', '256'],
        ...['-O', '^metadata_csum,^uninit_bg,meta_bg,^resize_inode'],
      ]),
    sealNothing,
  ],
  ['swap', requires('mkswap'), () => image(256 * 1024, 'mkswap', []), sealNothing],
  [
    'gpt',
    requires('sfdisk'),
    () =>
      withSwap(
        image(8 * MIB, 'sfdisk', ['-q'], 'label: gpt\nstart=2048,size=2048\nstart=4096,size=2048\n'),
        MIB,
        2 * MIB,
      ),
    sealGpt,
  ],
  [
    'mbr',
    requires('sfdisk'),
    () => withSwap(image(8 * MIB, 'sfdisk', ['-q'], 'label: dos\n,1M\n,,E\n,1M\n,1M\n'), MIB, 3 * MIB),
    sealNothing,
  ],
  [
    'btrfs',
    requires('mkfs.btrfs'),
    () => image(16 * MIB, 'mkfs.btrfs', ['-q', '--mixed', '-n', '4096']),
    sealBtrfs,
  ],
  ['xfs', requires('mkfs.xfs'), () => image(32 * MIB, 'mkfs.xfs', ['-q', '-d', 'agcount=2']), sealXfs],
  [
    'xfs version 4',
    requires('mkfs.xfs'),
    () => image(32 * MIB, 'mkfs.xfs', ['-q', '-m', 'crc=0']),
    sealNothing,
  ],
  ['lvm', undefined, () => lvmImage(32 * MIB, LVM), sealLvm],
];

describe.each(BASES)('changed metadata: %s', (_name, missing, make, seal) => {
  test.skipIf(missing)('gives a map inside the disk, or all of it', { timeout: 240_000 }, async () => {
    const base = make();
    const pristine = Buffer.from(base);
    const places = interesting(base);
    const states = fc.constantFrom<DiskState>('offline', 'frozen', 'live', 'unheld');
    expect((await expectSound(bufferSource(base), 'offline')).allocatedBytes).toBeLessThan(base.length);
    let understood = 0;
    await fc.assert(
      fc.asyncProperty(changed(base, places), states, async (changes, state) => {
        for (const [at, value] of changes) base[at] = value;
        seal(
          base,
          changes.map(([at]) => at),
        );
        try {
          const map = await expectSound(bufferSource(base), state);
          if (map.allocatedBytes < base.length) understood += 1;
        } finally {
          for (const at of [...changes.map(([place]) => place), 0, 4096]) {
            const start = Math.floor(at / 4096) * 4096;
            pristine.copy(base, start, start, start + 4096);
          }
        }
      }),
      { numRuns: 10_000 },
    );
    // not all of them were stopped at the first checksum
    expect(understood).toBeGreaterThan(100);
    expect(base.equals(pristine)).toBe(true);
  });
});

describe('a disk that cannot be read', () => {
  const failing = (error: Error): ByteSource => ({
    name: 'disk',
    sizeBytes: MIB,
    read: () => Promise.reject(error),
  });

  test('counts whole where its sectors are bad', async () => {
    const map = await allocationMap(failing(new PortError('BAD_SECTORS', 'sector 0 cannot be read')));
    expect(map).toMatchObject({
      allocatedBytes: MIB,
      parts: [{ how: 'whole', note: 'sector 0 cannot be read' }],
    });
  });

  test('ends the map when the connection broke', async () => {
    const lost = new PortError('SOURCE_REMOTE', 'the connection broke', { temporary: true });
    await expect(allocationMap(failing(lost))).rejects.toBe(lost);
  });

  test('ends the map when it is interrupted', async () => {
    const signal = AbortSignal.abort();
    const map = allocationMap(bufferSource(Buffer.alloc(MIB)), { signal });
    await expect(map).rejects.toMatchObject({ code: 'INTERRUPTED' });
  });
});
