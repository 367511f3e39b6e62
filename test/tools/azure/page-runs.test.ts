import fc from 'fast-check';
import { expect, test } from 'vitest';
import { KIB, MIB } from '../../../core/sizes.ts';
import { covers } from '../../../tools/azure/page-proof.ts';
import { blocksOf, dataRuns, PAGE_BYTES, PUT_BYTES } from '../../../tools/azure/page-runs.ts';

const GRAIN = 4 * KIB;

test('runs hold every byte that is not zero, in order, and no long zeros', () => {
  fc.assert(
    fc.property(
      fc.array(fc.boolean(), { maxLength: 120 }),
      fc.integer({ min: 0, max: 7 }),
      (grains, pages) => {
        const data = Buffer.alloc(grains.length * GRAIN + pages * PAGE_BYTES);
        for (const [i, full] of grains.entries()) if (full) data.fill(1, i * GRAIN + 100, i * GRAIN + 101);
        if (pages > 0) data.fill(1, data.length - 1);
        const runs = dataRuns(data);
        const rest = Buffer.from(data);
        let end = 0;
        for (const [i, { startBytes, lengthBytes }] of runs.entries()) {
          expect(startBytes % PAGE_BYTES).toBe(0);
          expect(lengthBytes % PAGE_BYTES).toBe(0);
          // neighbours are apart, or they would be one
          if (i > 0) expect(startBytes - end).toBeGreaterThanOrEqual(64 * KIB);
          end = startBytes + lengthBytes;
          rest.fill(0, startBytes, end);
        }
        expect(end).toBeLessThanOrEqual(data.length);
        expect(rest.every((byte) => byte === 0)).toBe(true);
      },
    ),
    { numRuns: 50 },
  );
});

test('blocks hold all extents once, never cross a border, and are pages', () => {
  const extent = fc.record({
    startBytes: fc.integer({ min: 0, max: 20 * MIB }),
    lengthBytes: fc.integer({ min: 1, max: 9 * MIB }),
  });
  fc.assert(
    fc.property(extent, extent, (a, gap) => {
      const end = 40 * MIB;
      const second = {
        startBytes: a.startBytes + a.lengthBytes + gap.startBytes + PAGE_BYTES,
        lengthBytes: gap.lengthBytes,
      };
      const blocks = blocksOf(
        [
          { ...a, data: true },
          { ...second, data: true },
          { startBytes: 0, lengthBytes: end, data: false },
        ],
        end,
      );
      const covered = (at: number) =>
        [...blocks.values()].flat().filter((p) => p.startBytes <= at && at < p.startBytes + p.lengthBytes)
          .length;
      for (const one of [a, second])
        for (const at of [one.startBytes, one.startBytes + one.lengthBytes - 1])
          if (at < end) expect(covered(at)).toBe(1);
      for (const [index, parts] of blocks)
        for (const part of parts) {
          expect(part.startBytes % PAGE_BYTES).toBe(0);
          expect(part.lengthBytes % PAGE_BYTES).toBe(0);
          expect(part.startBytes).toBeGreaterThanOrEqual(index * PUT_BYTES);
          expect(part.startBytes + part.lengthBytes).toBeLessThanOrEqual((index + 1) * PUT_BYTES);
        }
    }),
  );
});

test('a run is covered by one range that holds all of it', () => {
  const ranges = [
    { startBytes: 0, lengthBytes: 512 },
    { startBytes: 4096, lengthBytes: 4096 },
  ];
  const is = (startBytes: number, lengthBytes: number) => covers(ranges, { startBytes, lengthBytes });
  expect([is(0, 512), is(4096, 4096), is(5120, 512)]).toEqual([true, true, true]);
  expect([is(0, 1024), is(512, 512), is(8192, 512), is(3584, 1024)]).toEqual([false, false, false, false]);
  expect(covers([], { startBytes: 0, lengthBytes: 1 })).toBe(false);
});
