import fc from 'fast-check';
import { expect, test } from 'vitest';
import { compareVersions } from '../../../core/sync/versions.ts';

test.each([
  ['1.9', '1.10'],
  ['2026.08.20', '2026.08.21'],
  ['20260821T010203Z', '20260821T010204Z'],
  ['v2', 'v10'],
  ['1.0', '1.0.1'],
  ['9', '10'],
  ['1', 'a'],
  ['99999999999999999999', '100000000000000000000'],
])('%s is older than %s', (older, newer) => {
  expect(compareVersions(older, newer)).toBeLessThan(0);
  expect(compareVersions(newer, older)).toBeGreaterThan(0);
});

test('the order is total and the same whichever way it is asked', () => {
  const word = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._+-]{0,12}$/);
  fc.assert(
    fc.property(word, word, word, (a, b, c) => {
      expect(Math.sign(compareVersions(a, b))).toBe(-Math.sign(compareVersions(b, a)) || 0);
      expect(compareVersions(a, b) === 0).toBe(a === b);
      if (compareVersions(a, b) <= 0 && compareVersions(b, c) <= 0)
        expect(compareVersions(a, c)).toBeLessThanOrEqual(0);
    }),
    { numRuns: 3000 },
  );
});
