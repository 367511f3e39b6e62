import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { DAY_MS, formatDuration, parseDuration } from '../../core/durations.ts';

const limits = { what: '--expires', minMs: 60_000, maxMs: 365 * DAY_MS };

test.each([
  ['90s', 90_000],
  ['30m', 1_800_000],
  ['24h', 86_400_000],
  ['7d', 604_800_000],
  [' 1h ', 3_600_000],
  ['365d', 365 * DAY_MS],
])('%s', (text, ms) => expect(parseDuration(text, limits)).toBe(ms));

test.each([
  '',
  '5',
  'h',
  '1.5h',
  '-1h',
  '1 h',
  '1w',
  '1h30m',
  '0x1h',
  '1e3s',
  '٣h',
  '9999999999s',
  '24H',
  '\u001b[31m1h',
])('%j is refused as no duration, in printable words', (text) => {
  expect(() => parseDuration(text, limits)).toThrow(
    expect.objectContaining({ code: 'USAGE', message: expect.stringMatching(/^--expires: .*no duration$/) }),
  );
  try {
    parseDuration(text, limits);
  } catch (error) {
    expect((error as Error).message).not.toMatch(/[\u0000-\u001f]/);
  }
});

test.each([
  ['59s', /too short; it may be 1m to 365d/],
  ['0d', /too short/],
  ['366d', /too long/],
  ['999999999d', /too long/],
])('%s is out of bounds', (text, message) => expect(() => parseDuration(text, limits)).toThrow(message));

test('what formatDuration prints is read back as the same value', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 999_999_999 }), (seconds) => {
      const text = formatDuration(seconds * 1000);
      expect(parseDuration(text, { what: 'x', minMs: 0, maxMs: Number.MAX_SAFE_INTEGER })).toBe(
        seconds * 1000,
      );
    }),
  );
});

test('any text either is a duration within the bounds or is refused with USAGE', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.stringMatching(/^\d{1,12}[smhdw]?$/)), (text) => {
      try {
        const ms = parseDuration(text, limits);
        expect(ms).toBeGreaterThanOrEqual(limits.minMs);
        expect(ms).toBeLessThanOrEqual(limits.maxMs);
      } catch (error) {
        expect(error).toMatchObject({ code: 'USAGE' });
      }
    }),
  );
});
