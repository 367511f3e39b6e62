import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Manifest, segmentKey } from '../../../core/data-set.ts';
import { planGarbage, pointerEnd } from '../../../pipeline/data/gc-plan.ts';

const NOW = Date.parse('2030-01-10T00:00:00Z');
const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const sha = 'a'.repeat(64);

function manifestOf(id: string, segments: number): Manifest {
  return {
    schema: 'port-image/data-set/1',
    id,
    path: '/srv',
    bytes: 1,
    allocatedBytes: 1,
    files: 1,
    entryCount: 1,
    entries: { key: 'entries.jsonl.zst', bytes: 1, sha256: sha },
    compression: 'zstd',
    segments: Array.from({ length: segments }, (_, i) => ({
      key: segmentKey(i + 1),
      bytes: 1,
      tarBytes: 1,
      sha256: sha,
      entries: 1,
    })),
    segmentsSha256: sha,
  };
}
const object = (key: string, ageMs: number | undefined, bytes = 10) => ({
  key,
  bytes,
  ...(ageMs === undefined ? {} : { modifiedMs: NOW - ageMs }),
});
const base = { id: 'a', nowMs: NOW, olderThanMs: DAY };

test('a set without manifest goes when even its newest object is old', () => {
  const old = [object('a/segments/000001.tar.zst', 3 * DAY), object('a/segments/000002.tar.zst', 2 * DAY)];
  const plan = planGarbage({ ...base, objects: old, manifest: undefined });
  expect(plan).toMatchObject({ whole: true, kept: undefined });
  expect(plan.garbage.map((g) => g.key)).toEqual(old.map((o) => o.key));
  const young = planGarbage({
    ...base,
    objects: [...old, object('a/segments/000003.tar.zst', HOUR)],
    manifest: undefined,
  });
  expect(young).toMatchObject({ garbage: [], whole: false, kept: expect.stringContaining('young') });
  const unknown = planGarbage({
    ...base,
    objects: [...old, object('a/segments/000003.tar.zst', undefined)],
    manifest: undefined,
  });
  expect(unknown.garbage).toEqual([]);
});

test('beside a manifest only old objects it does not name go', () => {
  const objects = [
    object('a/manifest.json', 9 * DAY),
    object('a/segments/000001.tar.zst', 9 * DAY),
    object('a/segments/000002.tar.zst', 9 * DAY),
    object('a/segments/000003.tar.zst', HOUR),
    object('a/segments.sha256', 9 * DAY),
    object('a/entries.jsonl.zst', 9 * DAY),
  ];
  const plan = planGarbage({ ...base, objects, manifest: manifestOf('a', 1) });
  expect(plan.garbage.map((g) => g.key)).toEqual(['a/segments/000002.tar.zst']);
  expect(plan.kept).toContain('1 objects');
});

test('a folder somebody keeps something else in is no data set', () => {
  const theirs = [object('alice/docs/thesis.txt', 9 * DAY), object('alice/segments/000001.tar.zst', 9 * DAY)];
  expect(planGarbage({ ...base, id: 'alice', objects: theirs, manifest: undefined })).toMatchObject({
    garbage: [],
    whole: false,
    kept: expect.stringContaining('docs/thesis.txt'),
  });
  const hidden = [{ ...object('alice/.x.0123456789ab.tmp', 9 * DAY), upload: 'x' }];
  for (const leftovers of [[], hidden]) {
    const empty = { ...base, objects: [], leftovers, manifest: undefined };
    expect(planGarbage({ ...empty, id: 'alice' })).toMatchObject({ garbage: [], whole: false });
    expect(planGarbage({ ...empty, id: 'shop01-srv-0123456789' }).whole).toBe(true);
  }
});

test('a running job, and a manifest nobody can read, keep everything', () => {
  const objects = [object('a/segments/000009.tar.zst', 9 * DAY), object('a/manifest.json', 9 * DAY)];
  for (const manifest of [undefined, manifestOf('a', 1)]) {
    expect(planGarbage({ ...base, objects, manifest, inUse: 'job' })).toMatchObject({
      garbage: [],
      kept: 'job',
    });
  }
  expect(planGarbage({ ...base, objects, manifest: 'unreadable' })).toMatchObject({ garbage: [] });
});

test('stored provision documents go when their URLs are expired', () => {
  const random = 'f'.repeat(32);
  const ended = `provision/2030-01-05T101112Z-${random}.json`;
  const valid = `provision/2030-01-20T101112Z-${random}.json`;
  expect(pointerEnd(ended)).toBe(Date.parse('2030-01-05T10:11:12Z'));
  expect(pointerEnd('provision/2030-99-05T101112Z-x.json')).toBeUndefined();
  const objects = [
    object('a/manifest.json', 9 * DAY),
    object(`a/${ended}`, 9 * DAY),
    object(`a/${valid}`, 9 * DAY),
  ];
  const plan = planGarbage({ ...base, objects, manifest: manifestOf('a', 0) });
  expect(plan.garbage).toMatchObject([{ key: `a/${ended}`, why: expect.stringContaining('expired') }]);
});

test('whatever a store lists: nothing the manifest names, nothing young, nothing of another set is garbage', () => {
  const name = fc.constantFrom(
    'manifest.json',
    'segments.sha256',
    'entries.jsonl.zst',
    'segments/000001.tar.zst',
    'segments/000002.tar.zst',
    'segments/000003.tar.zst',
    'other',
    `provision/2030-01-09T000000Z-${'0'.repeat(32)}.json`,
    `provision/2031-01-09T000000Z-${'0'.repeat(32)}.json`,
  );
  const listed = fc.uniqueArray(
    fc.record({
      set: fc.constantFrom('a', 'ab', 'b'),
      name,
      age: fc.option(fc.integer({ min: -DAY, max: 10 * DAY }), { nil: undefined }),
    }),
    { selector: (o) => `${o.set}/${o.name}` },
  );
  fc.assert(
    fc.property(
      listed,
      fc.integer({ min: -1, max: 3 }),
      fc.boolean(),
      fc.nat(3 * DAY),
      (rows, segments, used, limit) => {
        const objects = rows.map((r) => object(`${r.set}/${r.name}`, r.age));
        const manifest = segments < 0 ? undefined : manifestOf('a', segments);
        const plan = planGarbage({
          id: 'a',
          objects,
          manifest,
          inUse: used ? 'job' : undefined,
          nowMs: NOW,
          olderThanMs: limit,
        });
        const named = new Set(
          manifest === undefined
            ? []
            : [
                'manifest.json',
                'segments.sha256',
                manifest.entries.key,
                ...manifest.segments.map((s) => s.key),
              ],
        );
        if (used) expect(plan.garbage).toEqual([]);
        for (const { key } of plan.garbage) {
          const row = rows.find((r) => `${r.set}/${r.name}` === key);
          expect(row?.set).toBe('a');
          expect(row?.name).not.toBe('other');
          expect(named.has(row?.name ?? '')).toBe(false);
          expect(row?.age ?? 0).toBeGreaterThan(limit);
          if (manifest !== undefined) expect(pointerEnd(row?.name ?? '') ?? 0).toBeLessThanOrEqual(NOW);
        }
        // and what is old, unnamed and unused does go
        if (!used && manifest !== undefined) {
          const left = rows.filter(
            (r) =>
              r.set === 'a' &&
              /^segments\/.*zst$/.test(r.name) &&
              !named.has(r.name) &&
              (r.age ?? 0) > limit &&
              !plan.garbage.some((g) => g.key === `a/${r.name}`),
          );
          expect(left).toEqual([]);
        }
      },
    ),
  );
});
