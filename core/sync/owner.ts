/** Owners of what is being made: `RUN@PLACE`. In one place (a state folder of a machine) only one run is alive. */

import { DAY_MS } from '../durations.ts';
import { PortError } from '../errors.ts';
import { printable } from '../text.ts';

/** What a killed run left is kept so long: a second night may still go on with it. */
export const LEFTOVER_MS = 2 * DAY_MS;

const placeOf = (owner: string): string => owner.slice(owner.indexOf('@') + 1);

/** Whether two runs are of one place: then the other one is dead. */
export function isSamePlace(left: string, right: string): boolean {
  return left.includes('@') && right.includes('@') && placeOf(left) === placeOf(right);
}

/** Whether a run gave a sign of life a short while ago. */
export function isAlive(aliveAt: string, staleAfterMs: number, nowMs = Date.now()): boolean {
  const since = nowMs - Date.parse(aliveAt);
  return Number.isFinite(since) && since < staleAfterMs;
}

/** Whether what it left must not be touched by `mine`. */
export function isBusy(
  { owner, aliveAt }: { owner: string; aliveAt: string },
  mine: string,
  staleAfterMs: number,
): boolean {
  return owner !== mine && !isSamePlace(owner, mine) && isAlive(aliveAt, staleAfterMs);
}

/** The error for what another run is at. */
export function busy(what: string, owner: string, cause?: unknown): PortError {
  const who = owner === '' ? 'another run' : printable(owner);
  return new PortError('SYNC_BUSY', `${printable(what)} is being made by ${who}`, {
    temporary: true,
    hint: 'the next run finds it there, or takes it over when the other one is dead',
    ...(cause === undefined ? {} : { cause }),
  });
}
