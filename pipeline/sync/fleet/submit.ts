/** Whole syncs as jobs: now, or by the clock. A worker plans them and hands their images to the queue. */
import { Cron } from 'croner';
import { PortError } from '../../../core/errors.ts';
import { pause } from '../../../core/pause.ts';
import { printable } from '../../../core/text.ts';
import type { SyncFile } from '../perform-types.ts';
import { PARTS, type SyncData, type SyncOutput } from './jobs.ts';
import type { Queue } from './queue.ts';
import { endedOf, heldJobs, jobsOf } from './table.ts';

/** A sync in the queue. */
export interface Submitted {
  id: string;
  /** False when this sync was in the queue already; that one is meant. */
  isNew: boolean;
  /** Waits for its end. Throws QUEUE when the server is away or the job vanished, INTERRUPTED. */
  wait(signal: AbortSignal): Promise<SyncOutput>;
}

const TRIES = 5;

function dataOf(file: SyncFile, only: readonly string[] | undefined): SyncData {
  return {
    schema: 'port-image/queue-sync/1',
    sync: file.config.sync,
    path: file.path,
    text: file.text,
    returns: 0,
    ...(only === undefined ? {} : { only: [...only] }),
  };
}

/** Puts a sync into the queue; one of its name waits or runs at a time. Throws QUEUE. */
export async function submitSync(
  queue: Queue,
  file: SyncFile,
  options: { priority?: number | undefined; only?: readonly string[] | undefined },
): Promise<Submitted> {
  const { sync } = file.config;
  try {
    for (let tried = 0; tried < TRIES; tried++) {
      const id = await queue.boss.send(PARTS.sync, dataOf(file, options.only), {
        singletonKey: sync,
        priority: options.priority ?? 0,
      });
      if (id !== null) return submitted(queue, id, true);
      const [held] = await heldJobs(queue.boss, PARTS.sync, [sync]);
      if (held !== undefined) return submitted(queue, held.id, false);
    }
  } catch (error) {
    throw queue.error(error);
  }
  throw new PortError('QUEUE', `the sync ${sync} could not be submitted: its jobs come and go`, {
    temporary: true,
  });
}

function submitted(queue: Queue, id: string, isNew: boolean): Submitted {
  return { id, isNew, wait: (signal) => waitFor(queue, id, signal) };
}

async function waitFor(queue: Queue, id: string, signal: AbortSignal): Promise<SyncOutput> {
  for (;;) {
    const [known, [ended]] = await Promise.all([
      jobsOf(queue.boss, PARTS.sync, [id]),
      endedOf(queue.boss, PARTS.sync, [id]),
    ]).catch((error: unknown) => {
      throw queue.error(error, 'asking for the result');
    });
    if (known.length === 0 && ended === undefined)
      throw new PortError('QUEUE', 'the sync was deleted from the queue');
    if (ended?.state === 'cancelled') throw new PortError('QUEUE', 'the sync was cancelled in the queue');
    if (ended !== undefined) {
      const output = ended.output as SyncOutput | null;
      if (output?.report !== undefined || output?.error !== undefined) return output;
      throw new PortError('QUEUE', `${ended.retryCount + 1} workers died or were stopped at this sync`, {
        hint: 'see the logs of the workers',
      });
    }
    await pause(queue.times.pollSeconds * 1000, signal);
  }
}

/**
 * Puts a sync into the queue whenever the clock says so; a worker must be alive then, or the newest missed time is made up when
 * one starts. Throws USAGE for a pattern that is none, QUEUE.
 */
export async function scheduleSync(
  queue: Queue,
  file: SyncFile,
  when: { cron: string; timezone: string; priority?: number | undefined },
): Promise<Date | undefined> {
  let next: Date | undefined;
  try {
    const clock = new Cron(when.cron, { timezone: when.timezone, paused: true });
    next = clock.nextRun() ?? undefined;
    clock.stop();
  } catch (error) {
    throw new PortError(
      'USAGE',
      `not a time pattern: ${printable(when.cron)} in ${printable(when.timezone)}`,
      {
        cause: error,
        hint: "such as '30 1 * * *' with --timezone Europe/Berlin",
      },
    );
  }
  const { sync } = file.config;
  try {
    await queue.boss.schedule(PARTS.sync, when.cron, dataOf(file, undefined), {
      tz: when.timezone,
      key: sync,
      singletonKey: sync,
      priority: when.priority ?? 0,
      missed: 'once',
    });
  } catch (error) {
    throw queue.error(error);
  }
  return next;
}

/** Ends a schedule; false when there was none. Throws QUEUE. */
export async function unscheduleSync(queue: Queue, sync: string): Promise<boolean> {
  try {
    const known = (await queue.boss.getSchedule(PARTS.sync, sync)) !== null;
    if (known) await queue.boss.unschedule(PARTS.sync, sync);
    return known;
  } catch (error) {
    throw queue.error(error);
  }
}
