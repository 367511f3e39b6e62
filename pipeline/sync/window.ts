/** The hours in which images are begun. Wall time of a place, so it knows nights, and days of 23 and 25 hours. */

import { DAY_MS, MINUTE_MS } from '../../core/durations.ts';
import type { SyncConfig } from '../../core/sync/config.ts';

/** A window of the configuration. `to` does not belong to it; one that ends before it begins goes over midnight. */
export type Window = NonNullable<SyncConfig['window']>;

const CLOCKS = new Map<string, Intl.DateTimeFormat>();

/** Minutes since midnight on the clock of a place. */
function minutesAt(timezone: string, date: Date): number {
  let clock = CLOCKS.get(timezone);
  if (clock === undefined) {
    // making one costs a hundred times what asking it does
    clock = new Intl.DateTimeFormat('en-GB', {
      timeZone: timezone,
      hour: '2-digit',
      minute: '2-digit',
      hourCycle: 'h23',
    });
    CLOCKS.set(timezone, clock);
  }
  const [hour = '', minute = ''] = clock.format(date).split(':');
  return Number(hour) * 60 + Number(minute);
}

function minutesOf(time: string): number {
  return Number(time.slice(0, 2)) * 60 + Number(time.slice(3, 5));
}

/** Whether an image may be begun at this time. */
export function isOpen({ from, to, timezone }: Window, now: Date): boolean {
  const at = minutesAt(timezone, now);
  const begin = minutesOf(from);
  const end = minutesOf(to);
  if (begin === end) return true;
  return begin < end ? at >= begin && at < end : at >= begin || at < end;
}

/** Milliseconds until the clock leaves the window; 0 when it is closed, Infinity when it never closes. */
export function closesInMs(window: Window, now: Date): number {
  return untilMs(window, now, false);
}

/** Milliseconds until the clock enters the window; 0 when it is open. */
export function opensInMs(window: Window, now: Date): number {
  return untilMs(window, now, true);
}

/**
 * Looks minute by minute: what a clock shows is no function of the time that could be turned around, for it jumps. Two days are
 * enough, as every window is left and entered once in each.
 */
function untilMs(window: Window, now: Date, wanted: boolean): number {
  if (isOpen(window, now) === wanted) return 0;
  const first = MINUTE_MS - (now.getTime() % MINUTE_MS);
  for (let ms = first; ms <= 2 * DAY_MS; ms += MINUTE_MS)
    if (isOpen(window, new Date(now.getTime() + ms)) === wanted) return ms;
  return Number.POSITIVE_INFINITY;
}
