/** Signs of life on what is being made, so that no other run takes it for dead. */

import { isoDate } from '../../../core/sync/dates.ts';
import { busy } from '../../../core/sync/owner.ts';
import type { CreateInput } from '../../../core/sync/types.ts';
import type { Ec2 } from '../../../tools/aws/ec2.ts';
import { snapshotsWith } from '../../../tools/aws/ec2-published.ts';
import { tagOf } from '../marks.ts';
import { ALIVE_TAG, ID_TAG, OWNER_TAG } from './marks.ts';

/** So many signs fit into the time after which a run is taken for dead. */
const SIGNS = 5;

/**
 * Works while the things of `ids` show signs of life. When another run has taken them over the work ends with SYNC_BUSY.
 * `work` gets a signal of its own.
 */
export async function withHeartbeat<T>(
  ec2: Ec2,
  input: CreateInput,
  mark: string,
  ids: ReadonlySet<string>,
  onSign: () => Promise<void>,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const lost = new AbortController();
  let taker = '';
  let sign: Promise<void> = Promise.resolve();
  const beat = async (): Promise<void> => {
    const things = [...ids];
    if (things.length === 0) return;
    const snapshots = await snapshotsWith(ec2, { [ID_TAG]: mark });
    const ours = snapshots.find(({ SnapshotId = '' }) => ids.has(SnapshotId));
    const owner = ours === undefined ? input.owner : (tagOf(ours, OWNER_TAG) ?? '');
    if (owner !== input.owner) {
      taker = owner;
      lost.abort();
      return;
    }
    await ec2.tag(things, { [ALIVE_TAG]: isoDate(new Date()) });
    await onSign();
  };
  const timer = setInterval(
    () => {
      sign = sign.then(beat).catch((error: unknown) => {
        if (!input.signal.aborted) input.log.warn('no sign of life', { error: (error as Error).message });
      });
    },
    Math.max(200, input.staleAfterMs / SIGNS),
  );
  try {
    return await work(AbortSignal.any([input.signal, lost.signal]));
  } catch (error) {
    if (lost.signal.aborted && !input.signal.aborted) throw busy(input.identity.series, taker, error);
    throw error;
  } finally {
    clearInterval(timer);
    await sign;
  }
}
