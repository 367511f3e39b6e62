/** Owners of what is being made: `RUN@PLACE`. In one place (a state folder of a machine) only one run is alive. */

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
