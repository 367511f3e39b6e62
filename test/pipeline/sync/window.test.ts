import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { DAY_MS, HOUR_MS, MINUTE_MS } from '../../../core/durations.ts';
import { closesInMs, isOpen, opensInMs } from '../../../pipeline/sync/window.ts';

const at = (text: string) => new Date(text);

test('a window of the day, its end not included', () => {
  const window = { from: '01:00', to: '06:00', timezone: 'UTC' };
  expect(isOpen(window, at('2026-08-21T00:59:59Z'))).toBe(false);
  expect(isOpen(window, at('2026-08-21T01:00:00Z'))).toBe(true);
  expect(isOpen(window, at('2026-08-21T05:59:59Z'))).toBe(true);
  expect(isOpen(window, at('2026-08-21T06:00:00Z'))).toBe(false);
});

test('a window over midnight', () => {
  const window = { from: '22:00', to: '06:00', timezone: 'UTC' };
  expect(isOpen(window, at('2026-08-21T21:59:00Z'))).toBe(false);
  expect(isOpen(window, at('2026-08-21T22:00:00Z'))).toBe(true);
  expect(isOpen(window, at('2026-08-22T00:00:00Z'))).toBe(true);
  expect(isOpen(window, at('2026-08-22T06:00:00Z'))).toBe(false);
  expect(closesInMs(window, at('2026-08-21T23:30:15Z'))).toBe(6.5 * HOUR_MS - 15_000);
  expect(opensInMs(window, at('2026-08-21T21:30:15Z'))).toBe(0.5 * HOUR_MS - 15_000);
  expect(closesInMs(window, at('2026-08-21T12:00:00Z'))).toBe(0);
  expect(opensInMs(window, at('2026-08-21T23:00:00Z'))).toBe(0);
});

test('the clock is that of the place', () => {
  const window = { from: '22:00', to: '06:00', timezone: 'Europe/Berlin' };
  expect(isOpen(window, at('2026-08-21T20:00:00Z'))).toBe(true);
  expect(isOpen(window, at('2026-01-21T20:00:00Z'))).toBe(false);
  expect(isOpen(window, at('2026-01-21T21:00:00Z'))).toBe(true);
  expect(isOpen({ ...window, timezone: 'Asia/Kathmandu' }, at('2026-01-21T16:15:00Z'))).toBe(true);
});

test('the night of 23 hours is an hour shorter, that of 25 an hour longer', () => {
  const window = { from: '01:00', to: '05:00', timezone: 'Europe/Berlin' };
  // 29 March 2026: 02:00 becomes 03:00; 25 October 2026: 03:00 becomes 02:00
  expect(closesInMs(window, at('2026-03-29T00:00:00Z'))).toBe(3 * HOUR_MS);
  expect(closesInMs(window, at('2026-10-24T23:00:00Z'))).toBe(5 * HOUR_MS);
});

test('a window that lies in the hour that is left out is closed that night, and opens the next', () => {
  const window = { from: '02:10', to: '02:50', timezone: 'Europe/Berlin' };
  const before = at('2026-03-29T00:30:00Z');
  expect(opensInMs(window, before)).toBe(at('2026-03-30T00:10:00Z').getTime() - before.getTime());
  expect(isOpen(window, at('2026-03-29T01:00:00Z'))).toBe(false);
});

test('in the hour that comes twice a window is open twice', () => {
  const window = { from: '02:10', to: '02:50', timezone: 'Europe/Berlin' };
  expect(isOpen(window, at('2026-10-25T00:20:00Z'))).toBe(true);
  expect(isOpen(window, at('2026-10-25T00:55:00Z'))).toBe(false);
  expect(isOpen(window, at('2026-10-25T01:20:00Z'))).toBe(true);
});

test('a window without end never closes', () => {
  const window = { from: '00:00', to: '00:00', timezone: 'UTC' };
  expect(isOpen(window, new Date())).toBe(true);
  expect(closesInMs(window, new Date())).toBe(Number.POSITIVE_INFINITY);
});

test('it closes and opens exactly when it says', () => {
  const time = fc
    .tuple(fc.nat(23), fc.nat(59))
    .map((parts) => parts.map((part) => String(part).padStart(2, '0')).join(':'));
  const window = fc.record({
    from: time,
    to: time,
    timezone: fc.constantFrom('UTC', 'Europe/Berlin', 'America/St_Johns', 'Australia/Lord_Howe'),
  });
  const now = fc.integer({ min: Date.UTC(2020, 0), max: Date.UTC(2030, 0) }).map((ms) => new Date(ms));
  fc.assert(
    fc.property(
      window.filter(({ from, to }) => from !== to),
      now,
      (one, when) => {
        const open = isOpen(one, when);
        const ms = open ? closesInMs(one, when) : opensInMs(one, when);
        expect(open ? opensInMs(one, when) : closesInMs(one, when)).toBe(0);
        expect(ms).toBeGreaterThan(0);
        expect(ms).toBeLessThanOrEqual(2 * DAY_MS);
        expect(isOpen(one, new Date(when.getTime() + ms))).toBe(!open);
        expect(isOpen(one, new Date(when.getTime() + ms - Math.min(ms, MINUTE_MS)))).toBe(open);
      },
    ),
    { numRuns: 100 },
  );
});
