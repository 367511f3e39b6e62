import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import * as path from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { PortError } from '../../../core/errors.ts';
import { MIB } from '../../../core/sizes.ts';
import { allocationMap, type DiskState } from '../../../tools/allocation/index.ts';
import { type ByteSource, bufferSource } from '../../../tools/image-format/reader.ts';
import { requires } from '../../support/requires.ts';

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
    env: { ...process.env, PATH: `${process.env.PATH ?? ''}:/usr/sbin:/sbin` },
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

async function expectSound(source: ByteSource, state: DiskState): Promise<void> {
  const map = await allocationMap(source, { state });
  let end = -1;
  for (const range of map.ranges) {
    expect(range.startBytes).toBeGreaterThan(end);
    expect(range.lengthBytes).toBeGreaterThan(0);
    end = range.startBytes + range.lengthBytes;
  }
  expect(end).toBeLessThanOrEqual(source.sizeBytes);
  expect(map.parts.reduce((sum, part) => sum + part.sizeBytes, 0)).toBe(source.sizeBytes);
  for (const part of map.parts) {
    // what a parser did not foresee shows as an error of the language
    expect(part.note ?? '').not.toMatch(
      /undefined|not a function|out of range|Invalid|cannot|call stack|BigInt/i,
    );
    expect(part.allocatedBytes).toBeGreaterThanOrEqual(0);
  }
}

const BASES: readonly (readonly [string, string | undefined, () => Buffer])[] = [
  ['ext4', requires('mke2fs'), () => image(8 * MIB, 'mke2fs', ['-q', '-F', '-t', 'ext4', '-b', '1024'])],
  [
    'ext4 without checksums',
    requires('mke2fs'),
    () =>
      image(8 * MIB, 'mke2fs', [
        '-q',
        '-F',
        '-t',
        'ext4',
        '-O',
        '^metadata_csum,meta_bg,^resize_inode',
        '-g',
        '256',
        '-b',
        '1024',
      ]),
  ],
  ['swap', requires('mkswap'), () => image(256 * 1024, 'mkswap', [])],
  ['gpt', requires('sfdisk'), () => image(4 * MIB, 'sfdisk', ['-q'], 'label: gpt\n,1M\n,1M\n')],
  ['mbr', requires('sfdisk'), () => image(8 * MIB, 'sfdisk', ['-q'], 'label: dos\n,1M\n,,E\n,1M\n,1M\n')],
  ['btrfs', requires('mkfs.btrfs'), () => image(16 * MIB, 'mkfs.btrfs', ['-q', '--mixed', '-n', '4096'])],
];

describe.each(BASES)('changed metadata: %s', (_name, missing, make) => {
  test.skipIf(missing)('gives a map inside the disk, or all of it', { timeout: 120_000 }, async () => {
    const base = make();
    const places = interesting(base);
    const states = fc.constantFrom<DiskState>('offline', 'frozen', 'live');
    await expectSound(bufferSource(base), 'offline');
    await fc.assert(
      fc.asyncProperty(changed(base, places), states, async (changes, state) => {
        const before = changes.map(([at]) => base[at] ?? 0);
        for (const [at, value] of changes) base[at] = value;
        try {
          await expectSound(bufferSource(base), state);
        } finally {
          for (let i = changes.length - 1; i >= 0; i--) base[changes[i]?.[0] ?? 0] = before[i] ?? 0;
        }
      }),
      { numRuns: 2000 },
    );
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
