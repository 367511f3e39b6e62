/** Runs a sync by the clock until it is stopped, for containers and other places without a timer of the system. */
import { Cron } from 'croner';
import { asPortError, PortError } from '../../core/errors.ts';
import { formatSeconds } from '../../core/sizes.ts';
import { printable } from '../../core/text.ts';
import type { SyncFile } from './perform-types.ts';

/** How to run. */
export interface DaemonOptions {
  /** Ends it: at once when it waits, after the run that is under way (which is to end by the same signal) else. */
  signal: AbortSignal;
  say(line: string): void;
  /** One run. What it throws is told, and the next time comes all the same. */
  run(): Promise<void>;
}

type Schedule = NonNullable<SyncFile['config']['schedule']>;

/** Later than this a run is worth a word: the machine slept, or its clock was set. */
const LATE_MS = 60_000;
/** Of times that were missed no more are counted. */
const MOST_MISSED = 1000;

/** The next times of a schedule. */
export function nextTimes({ cron, timezone }: Schedule, count: number, from = new Date()): Date[] {
  const job = new Cron(cron, { timezone, paused: true, mode: '5-or-6-parts' });
  try {
    return job.nextRuns(count, from);
  } finally {
    job.stop();
  }
}

/** A time as the clock of the place shows it: `2026-11-27 01:30 GMT+1`. */
export function localTime(date: Date, timezone: string): string {
  const shown = Intl.DateTimeFormat('sv-SE', {
    timeZone: timezone,
    dateStyle: 'short',
    timeStyle: 'short',
  }).format(date);
  const parts = Intl.DateTimeFormat('en', { timeZone: timezone, timeZoneName: 'shortOffset' }).formatToParts(
    date,
  );
  return `${shown} ${parts.find(({ type }) => type === 'timeZoneName')?.value ?? timezone}`;
}

/**
 * Runs at the times of the file's schedule, never two at once: a time that comes while a run is under way is left out. Resolves when
 * the signal came and the last run ended. Throws CONFIG when the file has no schedule.
 */
export async function runDaemon(file: SyncFile, options: DaemonOptions): Promise<void> {
  const { sync, schedule } = file.config;
  if (schedule === undefined) {
    throw new PortError('CONFIG', `${printable(file.path)} has no schedule`, {
      hint: "add schedule: { cron: '30 1 * * *', timezone: Europe/Berlin }, or use a timer of the system (docs/sync.md)",
    });
  }
  const { signal, say } = options;
  let running: Promise<void> = Promise.resolve();
  let due: Date | null = null;
  const job = new Cron(
    schedule.cron,
    {
      timezone: schedule.timezone,
      mode: '5-or-6-parts',
      paused: true,
      protect: () => say(`${sync}: a time is left out, the run before is still under way`),
    },
    () => {
      if (signal.aborted) return;
      tellLate(due);
      running = once();
      return running;
    },
  );
  const tellLate = (planned: Date | null): void => {
    const now = new Date();
    if (planned === null || now.getTime() - planned.getTime() < LATE_MS) return;
    const missed = nextTimes(schedule, MOST_MISSED, planned).filter((time) => time <= now).length;
    const more =
      missed === 0 ? '' : `; ${missed} later ${missed === 1 ? 'time was' : 'times were'} missed as well`;
    say(`${sync}: begins ${formatSeconds((now.getTime() - planned.getTime()) / 1000)} late${more}`);
  };
  const once = async (): Promise<void> => {
    try {
      await options.run();
    } catch (error) {
      const { code, message } = asPortError(error);
      if (!signal.aborted) say(`${sync}: no run: ${printable(message)} [${code}]`);
    }
    if (!signal.aborted) tellNext();
  };
  const tellNext = (): void => {
    due = job.nextRun();
    say(due === null ? `${sync}: no further time` : `${sync}: next run ${localTime(due, schedule.timezone)}`);
  };
  tellNext();
  if (!signal.aborted) {
    job.resume();
    await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
  }
  job.stop();
  await running;
  say(`${sync}: stopped`);
}
