/** A pause that a signal ends early. */
import { setTimeout as sleep } from 'node:timers/promises';
import { asPortError } from './errors.ts';

/** Waits so many milliseconds. Throws INTERRUPTED when the signal fires before or meanwhile. */
export async function pause(ms: number, signal?: AbortSignal): Promise<void> {
  await sleep(ms, undefined, signal === undefined ? {} : { signal }).catch((error: unknown) => {
    throw asPortError(error);
  });
}
