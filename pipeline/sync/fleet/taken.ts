/** A job taken from the queue, and the ways to give it back. */
import type { JobResult, JobWithMetadata } from 'pg-boss';
import type { Log } from '../../../core/log.ts';
import { pause } from '../../../core/pause.ts';
import { type ImageData, LANE_TIERS, PARTS, type SyncData } from './jobs.ts';
import type { Queue } from './queue.ts';
import { takenBefore } from './table.ts';

/** A job as it was taken; `retryCount` names the attempt. */
export type Taken = Pick<
  JobWithMetadata<unknown>,
  'id' | 'name' | 'data' | 'retryCount' | 'retryLimit' | 'groupTier' | 'signal'
>;

/** A result is kept while the server is away, should it come back. */
const STORE_TRIES = 20;
const STORE_PAUSE_MS = 3_000;

/**
 * Whether this host took more of a target than its lanes. pg-boss counts them when a job is taken, and workers that take one in the
 * same instant do not see each other: who came last gives it back.
 */
export async function isTooMuch(queue: Queue, { id, groupTier }: Taken): Promise<boolean> {
  const lanes = LANE_TIERS[groupTier ?? ''] ?? 1;
  return (await takenBefore(queue.boss, PARTS.image, id).catch(() => 0)) >= lanes;
}

/** pg-boss settles a job once; with the server away for a moment the work would be done again elsewhere. Waits for it, for a while. */
export async function untilQueueAnswers(queue: Queue, signal: AbortSignal): Promise<void> {
  for (let tried = 0; tried < STORE_TRIES; tried++) {
    try {
      await queue.boss.getDb().executeSql('SELECT 1');
      return;
    } catch {
      await pause(STORE_PAUSE_MS, signal).catch(() => {});
    }
  }
}

/**
 * Gives the job to whoever is free, at once or some seconds `later`; that is no attempt. A job that is not ours any more is left
 * alone.
 */
export async function handBack(
  queue: Queue,
  job: Taken,
  options: { name: string; log: Log; later?: number | undefined; busySince?: number | undefined },
): Promise<JobResult> {
  const { name, log, later = 0, busySince } = options;
  const output = { host: name, message: 'handed back' };
  const { id, retryCount, retryLimit } = job;
  const result: JobResult = { id, status: 'failed', output };
  try {
    const answer = await queue.boss.fail(job.name, { id, retryCount }, output);
    if ((answer as { affected?: number }).affected === 0) return result;
    const data = job.data as ImageData | SyncData;
    await queue.boss.update(
      job.name,
      { ...data, returns: data.returns + 1, ...(busySince === undefined ? {} : { busySince }) },
      {
        id,
        retryLimit: retryLimit + 1,
        startAfter: later > 0 ? Math.ceil(later) : new Date(0),
      },
    );
  } catch (error) {
    log.warn('a job could not be handed back; it is found by its heartbeat', {
      error: queue.error(error).message,
    });
  }
  return result;
}
