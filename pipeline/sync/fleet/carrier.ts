/** Carries the tasks of a run by the queue: workers on any host do them, this process waits. */
import { randomUUID } from 'node:crypto';
import PQueue from 'p-queue';
import { PortError } from '../../../core/errors.ts';
import { pause } from '../../../core/pause.ts';
import type { SyncContext } from '../../../core/sync/types.ts';
import type { SyncFile, SyncTask, TaskCarrier, TaskResult } from '../perform-types.ts';
import {
  type ImageData,
  type ImageOutput,
  isSameTask,
  laneGroup,
  PARTS,
  type RunData,
  taskKey,
  withoutResult,
} from './jobs.ts';
import { type Queue, RETURNS } from './queue.ts';
import { type EndedJob, endedOf, endedSince, heldJobs, jobsOf } from './table.ts';

/** How a run uses the queue. */
export interface CarrierOptions extends Pick<SyncContext, 'signal' | 'log' | 'warn'> {
  queue: Queue;
  file: SyncFile;
  /** `20260821T010000Z-ab12cd`. */
  run: string;
  /** Larger is sooner; 0 by default. */
  priority?: number | undefined;
  /** What becomes of jobs nobody has begun when the run is interrupted; `leave` where another host goes on with it. */
  whenInterrupted?: 'cancel' | 'leave';
}

/** Jobs of one INSERT. */
const BATCH = 500;
/** Statements beside each other; the queue's own connections are few. */
const BESIDE = 3;
/** All jobs are asked for by id so often, should one ever slip through the cheaper question. */
const SURE_SECONDS = 60;
/** A server that cannot be asked for so long is lost for this run. */
const LOST_SECONDS = 600;
/** A task whose jobs keep vanishing is not submitted for ever. */
const MOST_SUBMITS = 5;

interface Entry {
  task: SyncTask;
  data: ImageData;
  submits: number;
}

/** What carries tasks by the queue. */
export class PgCarrier implements TaskCarrier {
  readonly #options: CarrierOptions;
  readonly #runId = randomUUID();
  /** Tasks by the job they wait for; two tasks may wait for one job. */
  readonly #waiting = new Map<string, Entry[]>();
  /** Jobs this run submitted or took over. */
  readonly #own = new Set<string>();
  readonly #results: TaskResult[] = [];

  constructor(options: CarrierOptions) {
    this.#options = options;
  }

  /**
   * Throws INTERRUPTED alone. Jobs a run that died left are taken over: what waits gets this run's file and task, what runs is
   * waited for, and done again only when it was something else.
   */
  async run(
    tasks: readonly SyncTask[],
    onResult: (task: SyncTask, result: TaskResult) => void,
  ): Promise<TaskResult[]> {
    const { queue, signal, file } = this.#options;
    const { sync } = file.config;
    const entries = tasks.map((task): Entry => {
      const data: ImageData = {
        schema: 'port-image/queue-image/1',
        runId: this.#runId,
        run: this.#options.run,
        sync,
        attempts: file.config.limits.attempts,
        returns: 0,
        task,
      };
      return { task, data, submits: 0 };
    });
    const tell = (entry: Entry, result: TaskResult): void => {
      this.#results.push(result);
      onResult(entry.task, result);
    };
    try {
      await this.#announce();
      await this.#forgetDeadLetters(entries);
      await this.#submit(entries, tell);
      void this.#warnWithoutWorkers();
      await this.#wait(tell);
    } catch (error) {
      if (signal.aborted) {
        await this.#giveUp();
        throw new PortError('INTERRUPTED', 'interrupted', { cause: error });
      }
      const told = queue.error(error);
      const open = new Set([...this.#waiting.values()].flat());
      if (this.#results.length === 0 && open.size === 0) for (const entry of entries) open.add(entry);
      for (const entry of open)
        tell(
          entry,
          withoutResult(entry.task, 'failed', {
            code: told.code,
            message: told.message,
            hint: 'workers may go on without this run; run it again and it finds what they did',
          }),
        );
    } finally {
      await queue.boss
        .complete(PARTS.run, this.#runId, { ended: true }, { includeQueued: true })
        .catch(() => {});
    }
    return this.#results;
  }

  async #announce(): Promise<void> {
    const { queue, file, run } = this.#options;
    const data: RunData = {
      schema: 'port-image/queue-run/1',
      sync: file.config.sync,
      run,
      host: queue.name,
      path: file.path,
      text: file.text,
    };
    await queue.boss.send(PARTS.run, data, { id: this.#runId });
  }

  /** A dead letter of what is tried again now says nothing any more. */
  async #forgetDeadLetters(entries: readonly Entry[]): Promise<void> {
    const { queue, file } = this.#options;
    const keys = new Set(entries.map(({ task }) => taskKey(file.config.sync, task)));
    const dead = await queue.boss.findJobs(PARTS.deadImage, {
      data: { sync: file.config.sync },
      limit: 100_000,
    });
    const ids = dead.filter(({ singletonKey }) => keys.has(singletonKey ?? '')).map(({ id }) => id);
    if (ids.length > 0) await queue.boss.deleteJob(PARTS.deadImage, ids);
  }

  async #submit(entries: readonly Entry[], tell: (entry: Entry, result: TaskResult) => void): Promise<void> {
    for (let at = 0; at < entries.length; at += BATCH) {
      if (this.#options.signal.aborted) throw new PortError('INTERRUPTED', 'interrupted');
      await this.#submitBatch(entries.slice(at, at + BATCH), tell);
    }
  }

  async #submitBatch(
    entries: readonly Entry[],
    tell: (entry: Entry, result: TaskResult) => void,
  ): Promise<void> {
    const { queue, file, priority = 0 } = this.#options;
    const { targets, sync } = file.config;
    let open = new Map(entries.map((entry) => [taskKey(sync, entry.task), entry]));
    const twins = entries.filter((entry) => open.get(taskKey(sync, entry.task)) !== entry);
    for (; open.size > 0; ) {
      for (const [key, entry] of open) {
        if (entry.submits++ < MOST_SUBMITS) continue;
        open.delete(key);
        tell(
          entry,
          withoutResult(entry.task, 'failed', { code: 'QUEUE', message: 'its jobs keep vanishing' }),
        );
      }
      const jobs = [...open].map(([key, { task, data }]) => ({
        id: randomUUID(),
        data,
        priority,
        singletonKey: key,
        group: laneGroup(sync, task.action.target, targets[task.action.target]?.lanes ?? 1),
        retryLimit: data.attempts - 1 + RETURNS,
      }));
      const made = new Set(await queue.boss.insert(PARTS.image, jobs, { returnId: true }));
      for (const { id, singletonKey } of jobs) {
        if (!made.has(id)) continue;
        this.#own.add(id);
        this.#await(id, open.get(singletonKey));
        open.delete(singletonKey);
      }
      if (open.size > 0) open = await this.#join(open);
    }
    if (twins.length > 0) await this.#submitBatch(twins, tell);
  }

  /** Waits for jobs that are there already; returns the tasks whose jobs ended meanwhile. */
  async #join(open: Map<string, Entry>): Promise<Map<string, Entry>> {
    const { queue, priority = 0 } = this.#options;
    const held = await heldJobs(queue.boss, PARTS.image, [...open.keys()]);
    const rest = new Map(open);
    const lanes = new PQueue({ concurrency: BESIDE });
    await lanes.addAll(
      held.map(({ id, key, state, retryCount }) => async () => {
        const entry = open.get(key);
        if (entry === undefined) return;
        rest.delete(key);
        if (state !== 'active') {
          // what it went through for the run before does not count
          const data: ImageData = { ...entry.data, returns: retryCount };
          const retryLimit = retryCount + data.attempts - 1 + RETURNS;
          const { updated } = await queue.boss.update(PARTS.image, data, { id, priority, retryLimit });
          if (updated > 0) this.#own.add(id);
        }
        this.#await(id, entry);
      }),
    );
    return rest;
  }

  #await(id: string, entry: Entry | undefined): void {
    if (entry === undefined) return;
    const known = this.#waiting.get(id);
    if (known === undefined) this.#waiting.set(id, [entry]);
    else known.push(entry);
  }

  async #wait(tell: (entry: Entry, result: TaskResult) => void): Promise<void> {
    const { queue, signal, log } = this.#options;
    let since = '';
    let sureAt = 0;
    let answeredAt = performance.now();
    while (this.#waiting.size > 0) {
      try {
        const isSure = performance.now() >= sureAt;
        const { jobs, now } = await endedSince(queue.boss, PARTS.image, since);
        const ids = [...this.#waiting.keys()];
        const ended = isSure ? await endedOf(queue.boss, PARTS.image, ids) : jobs;
        if (isSure) {
          sureAt = performance.now() + SURE_SECONDS * 1000;
          await this.#findVanished(ids, tell);
        }
        await this.#take(ended, tell);
        since = now;
        answeredAt = performance.now();
      } catch (error) {
        const told = queue.error(error, 'asking for results');
        if (signal.aborted || !told.temporary || performance.now() - answeredAt > LOST_SECONDS * 1000)
          throw told;
        log.debug('queue does not answer', { error: told.message });
      }
      if (this.#waiting.size > 0) await pause(queue.times.pollSeconds * 1000, signal);
    }
  }

  /** A job somebody deleted never ends: it is submitted again. */
  async #findVanished(
    ids: readonly string[],
    tell: (entry: Entry, result: TaskResult) => void,
  ): Promise<void> {
    const known = new Set((await jobsOf(this.#options.queue.boss, PARTS.image, ids)).map(({ id }) => id));
    const again: Entry[] = [];
    for (const id of ids) {
      if (known.has(id)) continue;
      again.push(...(this.#waiting.get(id) ?? []));
      this.#waiting.delete(id);
    }
    if (again.length > 0) await this.#submit(again, tell);
  }

  async #take(ended: readonly EndedJob[], tell: (entry: Entry, result: TaskResult) => void): Promise<void> {
    const again: Entry[] = [];
    for (const job of ended) {
      const entries = this.#waiting.get(job.id);
      if (entries === undefined) continue;
      this.#waiting.delete(job.id);
      const did = (job.data as Partial<ImageData> | null)?.task;
      for (const entry of entries) {
        const isOurs = job.runId === this.#runId;
        // Another run's job of the same key: what it did counts when it is what we want.
        if (!isOurs && (job.state === 'cancelled' || did === undefined || !isSameTask(did, entry.task)))
          again.push(entry);
        else tell(entry, resultOf(job, entry.task));
      }
    }
    if (again.length > 0) await this.#submit(again, tell);
  }

  async #warnWithoutWorkers(): Promise<void> {
    const { queue, warn } = this.#options;
    const has = await queue.hasWorkers('image').catch(() => true);
    if (!has && this.#waiting.size > 0)
      warn('no worker is connected to the queue; the images wait until one is started (port-image worker)');
  }

  /** What nobody has begun is taken back; what runs is finished by its worker. */
  async #giveUp(): Promise<void> {
    const { queue, log, whenInterrupted = 'cancel' } = this.#options;
    if (whenInterrupted === 'leave') return;
    try {
      const jobs = await jobsOf(queue.boss, PARTS.image, [...this.#own]);
      const ids = jobs
        .filter(({ state, runId }) => runId === this.#runId && (state === 'created' || state === 'retry'))
        .map(({ id }) => id);
      if (ids.length > 0) await queue.boss.cancel(PARTS.image, ids);
      log.info('cancelled in the queue', { jobs: ids.length });
    } catch (error) {
      log.warn('waiting jobs stay in the queue', { error: queue.error(error).message });
    }
  }
}

/** The result a job left, or what is known of a job that left none. */
function resultOf(job: EndedJob, task: SyncTask): TaskResult {
  if (job.state === 'cancelled')
    return withoutResult(task, 'deferred', { message: 'cancelled in the queue', attempts: job.retryCount });
  const { result, host } = (job.output ?? {}) as Partial<ImageOutput>;
  if (result?.outcome !== undefined) {
    return { ...result, outcome: { ...result.outcome, action: task.action } };
  }
  return withoutResult(task, 'failed', {
    code: 'QUEUE',
    message: `${job.retryCount + 1} workers died or were stopped at it${host === undefined ? '' : `, the last on ${host}`}`,
    hint: 'see the logs of the workers: memory and disk of their machines',
    attempts: job.retryCount + 1,
  });
}
