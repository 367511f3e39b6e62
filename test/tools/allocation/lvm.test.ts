import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import * as path from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { MIB } from '../../../core/sizes.ts';
import { type AllocationMap, allocationMap } from '../../../tools/allocation/index.ts';
import { bufferSource } from '../../../tools/image-format/reader.ts';
import { requires } from '../../support/requires.ts';
import { groupText, linear, lvmImage, volumeText } from './lvm-image.ts';

const folder = mkdtempSync('/tmp/port-image-lvm-');
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

const EXTENTS = 30;
const PV_BYTES = (EXTENTS + 1) * MIB + 4096;

async function mapOf(volumes: string, textAt?: number): Promise<AllocationMap> {
  return await allocationMap(bufferSource(lvmImage(PV_BYTES, groupText(EXTENTS, volumes), textAt)));
}

function kinds(map: AllocationMap): string[] {
  return map.parts.map((part) => `${part.kind} ${Math.round(part.sizeBytes / MIB)}`);
}

test('free extents are skipped, the rest of the physical volume is kept', async () => {
  const map = await mapOf(volumeText('a', [linear(0, 4, 2)]));
  expect(kinds(map)).toEqual(['lvm 1', 'unknown 4', 'lvm-free 2', 'lvm-free 24']);
  expect(map.ranges).toEqual([
    { startBytes: 0, lengthBytes: MIB },
    { startBytes: 3 * MIB, lengthBytes: 4 * MIB },
    { startBytes: 31 * MIB, lengthBytes: 4096 },
  ]);
});

test('metadata that goes round the end of its ring is read', async () => {
  expect(kinds(await mapOf('', 65536 - 100))).toEqual(['lvm 1', 'lvm-free 30']);
});

test.skipIf(requires('mke2fs'))('a file system in pieces out of order keeps all its content', async () => {
  const file = path.join(folder, 'fs.img');
  writeFileSync(file, '');
  truncateSync(file, 12 * MIB);
  const content = path.join(import.meta.dirname, '../../../tools/allocation');
  execFileSync('mke2fs', ['-q', '-F', '-t', 'ext4', '-b', '1024', '-d', content, file], {
    env: { PATH: `${process.env.PATH}:/usr/sbin:/sbin` },
  });
  const inner = readFileSync(file);
  const volume = volumeText('root', [linear(0, 5, 20), linear(5, 3, 1), linear(8, 4, 10)]);
  const pv = lvmImage(PV_BYTES, groupText(EXTENTS, volume));
  const places = [
    [0, 5, 20],
    [5, 3, 1],
    [8, 4, 10],
  ] as const;
  for (const [start, count, at] of places) inner.copy(pv, (at + 1) * MIB, start * MIB, (start + count) * MIB);
  const map = await allocationMap(bufferSource(pv));
  expect(map.parts[1]).toMatchObject({ kind: 'ext4', how: 'bitmap', note: 'logical volume data/root' });
  expect(map.parts[1]?.allocatedBytes).toBeLessThan(4 * MIB);
  const copy = Buffer.alloc(PV_BYTES);
  for (const { startBytes, lengthBytes } of map.ranges)
    pv.copy(copy, startBytes, startBytes, startBytes + lengthBytes);
  // free blocks of a new file system are zeros, so the copy of the volume must be equal to the last byte
  const joined = Buffer.concat(
    places.map(([, count, at]) => copy.subarray((at + 1) * MIB, (at + 1 + count) * MIB)),
  );
  expect(joined.equals(inner)).toBe(true);
});

test.each([
  [
    'striped',
    volumeText('s', [
      'start_extent = 0 extent_count = 8 type = "striped" stripe_count = 2 stripes = ["pv0", 0, "pv0", 10]',
    ]),
  ],
  ['on another disk too', volumeText('s', [linear(0, 4, 0), linear(4, 9, 0, 'pv1'), linear(13, 4, 10)])],
  [
    'part of a pool',
    `${volumeText('s', [linear(0, 8, 0)], '["READ", "WRITE"]')}
    ${volumeText('pool', ['start_extent = 0 extent_count = 8 type = "thin-pool" pool = "s" metadata = "s"'])}`,
  ],
  [
    'named by a snapshot',
    `${volumeText('s', [linear(0, 8, 0)])}
    ${volumeText('snapshot0', ['start_extent = 0 extent_count = 8 type = "snapshot" origin = "s" cow_store = "x"'], '[]')}`,
  ],
])('a volume that is %s counts whole, free extents do not', async (_, volumes) => {
  const map = await mapOf(volumes);
  expect(map.parts[1]).toMatchObject({ kind: 'lvm-volume', how: 'whole', sizeBytes: 8 * MIB });
  expect(map.allocatedBytes).toBe(9 * MIB + 4096);
});

test.each([
  ['shared extents', `${volumeText('a', [linear(0, 4, 2)])} ${volumeText('b', [linear(0, 4, 5)])}`],
  ['an extent beyond the end', volumeText('a', [linear(0, 4, 28)])],
  ['a hole in a volume', volumeText('a', [linear(0, 4, 2), linear(5, 4, 12)])],
  [
    'a volume being moved',
    volumeText('pvmove0', [
      'start_extent = 0 extent_count = 4 type = "mirror" mirrors = ["pv0", 0, "pv1", 0]',
    ]),
  ],
  ['a name twice', `${volumeText('a', [linear(0, 1, 0)])} ${volumeText('a', [linear(0, 1, 2)])}`],
  ['no end', 'a {'],
  ['comments without end', `a ${'#'.repeat(50_000)}`],
])('metadata with %s: all counts', async (_, volumes) => {
  const map = await mapOf(volumes);
  expect(map.parts).toMatchObject([{ kind: 'lvm', how: 'whole', allocatedBytes: PV_BYTES }]);
  expect(map.parts[0]?.note).toBeDefined();
});
