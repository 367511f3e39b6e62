/** Durations as people write them on a command line. */
import { PortError } from './errors.ts';
import { printable } from './text.ts';

/** One minute in milliseconds. */
export const MINUTE_MS = 60_000;
/** One hour in milliseconds. */
export const HOUR_MS = 60 * MINUTE_MS;
/** One day in milliseconds. */
export const DAY_MS = 24 * HOUR_MS;

const UNITS: Readonly<Record<string, number>> = { s: 1000, m: MINUTE_MS, h: HOUR_MS, d: DAY_MS };

/** Bounds of a duration, and what to call it in a message. */
export interface DurationLimits {
  /** The flag it came from: `--expires`. */
  what: string;
  minMs: number;
  maxMs: number;
}

/** `90s`, `30m`, `24h` or `7d` in milliseconds. Throws USAGE for another form or a value out of bounds. */
export function parseDuration(text: string, limits: DurationLimits): number {
  const { what, minMs, maxMs } = limits;
  const [, count, unit] = /^(\d{1,9})([smhd])$/.exec(text.trim()) ?? [];
  const factor = unit === undefined ? undefined : UNITS[unit];
  if (count === undefined || factor === undefined) {
    throw new PortError('USAGE', `${what}: ${printable(text).slice(0, 60)} is no duration`, {
      hint: 'a whole number and a unit: 90s, 30m, 24h, 7d',
    });
  }
  const ms = Number(count) * factor;
  if (ms < minMs || ms > maxMs) {
    throw new PortError(
      'USAGE',
      `${what}: ${printable(text)} is ${ms < minMs ? 'too short' : 'too long'}; it may be ${formatDuration(minMs)} to ${formatDuration(maxMs)}`,
    );
  }
  return ms;
}

/** The shortest form `parseDuration` reads back as the same value; whole seconds. */
export function formatDuration(ms: number): string {
  const seconds = Math.round(ms / 1000);
  for (const [unit, factor] of [
    ['d', DAY_MS],
    ['h', HOUR_MS],
    ['m', MINUTE_MS],
  ] as const) {
    const size = factor / 1000;
    if (seconds > 0 && seconds % size === 0) return `${seconds / size}${unit}`;
  }
  return `${seconds}s`;
}
