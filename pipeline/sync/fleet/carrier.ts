/** Carries the tasks of a run by the queue: workers on any host do them, this process waits. */
import { randomUUID } from 'node:crypto';
import * as os from 'node:os';
import { PortError } from '../../../core/errors.ts';
import { pause } from '../../../core/pause.ts';
import type { SyncContext } from '../../../core/sync/types.ts';
import type { SyncFile, SyncTask, TaskCarrier, TaskResult } from '../perform-types.ts';
import { Enlistment, type Tell, type Wish } from './enlist.ts';
import {
  type ImageData,
  type ImageOutput,
  isSameTask,
  PARTS,
  type RunData,
  taskKey,
  withoutResult,
} from './jobs.ts';
import { Queue } from './queue.ts';
import { type EndedJob, endedOf, endedSince, jobsOf } from './table.ts';

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

/** All jobs are asked for by id so often, should one ever slip through the cheaper question. */
const SURE_SECONDS = 60;
/** A server that cannot be asked for so long is lost for this run. */
const LOST_SECONDS = 600;
/** What carries tasks by the queue. */
export class PgCarrier implements TaskCarrier {
  readonly #options: CarrierOptions;
  readonly #runId = randomUUID();
  readonly #jobs: Enlistment;
  readonly #results: TaskResult[] = [];
  /** Tasks whose result is known. */
  readonly #told = new Set<Wish>();
  /** Tasks that wait for no job: theirs was another one's, or is gone. */
  readonly #again = new Set<Wish>();

  constructor(options: CarrierOptions) {
    this.#options = options;
    this.#jobs = new Enlistment(options);
  }

  /** One with a queue of its own, which it closes when its run ends. Throws USAGE, QUEUE. */
  static async open(options: Omit<CarrierOptions, 'queue'> & { url: string }): Promise<TaskCarrier> {
    const queue = await Queue.open(options.url, { log: options.log, name: os.hostname(), role: 'run' });
    const carrier = new PgCarrier({ ...options, queue });
    return {
      run: async (tasks, onResult) => {
        try {
          return await carrier.run(tasks, onResult);
        } finally {
          await queue.close();
        }
      },
    };
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
    const wishes = tasks.map((task): Wish => {
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
    const tell: Tell = (wish, result) => {
      this.#told.add(wish);
      this.#results.push(result);
      onResult(wish.task, result);
    };
    try {
      await this.#patiently(() => this.#announce());
      await this.#patiently(() => this.#forgetDeadLetters(wishes));
      for (const wish of wishes) this.#again.add(wish);
      await this.#wait(tell);
    } catch (error) {
      if (signal.aborted) {
        await this.#giveUp();
        throw new PortError('INTERRUPTED', 'interrupted', { cause: error });
      }
      const told = queue.error(error);
      for (const wish of wishes.filter((one) => !this.#told.has(one)))
        tell(
          wish,
          withoutResult(wish.task, 'failed', {
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

  /** Does it again while the server is away, as long as a run waits for one. */
  async #patiently(work: () => Promise<void>): Promise<void> {
    const { queue, signal, log } = this.#options;
    const until = performance.now() + LOST_SECONDS * 1000;
    for (;;) {
      try {
        return await work();
      } catch (error) {
        const told = queue.error(error);
        if (signal.aborted || !told.temporary || performance.now() > until) throw told;
        log.debug('queue does not answer', { error: told.message });
      }
      await pause(queue.times.pollSeconds * 1000, signal);
    }
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
  async #forgetDeadLetters(wishes: readonly Wish[]): Promise<void> {
    const { queue, file } = this.#options;
    const keys = new Set(wishes.map(({ task }) => taskKey(file.config.sync, task)));
    const dead = await queue.boss.findJobs(PARTS.deadImage, {
      data: { sync: file.config.sync },
      limit: 100_000,
    });
    const ids = dead.filter(({ singletonKey }) => keys.has(singletonKey ?? '')).map(({ id }) => id);
    if (ids.length > 0) await queue.boss.deleteJob(PARTS.deadImage, ids);
  }

  async #wait(tell: Tell): Promise<void> {
    const { queue, signal, log } = this.#options;
    let since = '';
    let sureAt = 0;
    let answeredAt = performance.now();
    let isFirst = true;
    while (this.#jobs.waiting.size + this.#again.size > 0) {
      try {
        await this.#resubmit(tell);
        if (isFirst) void this.#warnWithoutWorkers();
        isFirst = false;
        const isSure = performance.now() >= sureAt;
        const { jobs, now } = await endedSince(queue.boss, PARTS.image, since);
        const ids = [...this.#jobs.waiting.keys()];
        const ended = isSure ? await endedOf(queue.boss, PARTS.image, ids) : jobs;
        if (isSure) {
          sureAt = performance.now() + SURE_SECONDS * 1000;
          await this.#findVanished(ids);
        }
        this.#take(ended, tell);
        since = now;
        answeredAt = performance.now();
      } catch (error) {
        const told = queue.error(error, 'asking for results');
        if (signal.aborted || !told.temporary || performance.now() - answeredAt > LOST_SECONDS * 1000)
          throw told;
        log.debug('queue does not answer', { error: told.message });
      }
      if (this.#jobs.waiting.size + this.#again.size > 0) await pause(queue.times.pollSeconds * 1000, signal);
    }
  }

  /** What fails half-way is gone on with later: each of them is still wanted. */
  async #resubmit(tell: Tell): Promise<void> {
    if (this.#again.size === 0) return;
    try {
      await this.#jobs.submit([...this.#again], tell);
      this.#again.clear();
    } finally {
      for (const wish of [...this.#told, ...[...this.#jobs.waiting.values()].flat()])
        this.#again.delete(wish);
    }
  }

  /** A job somebody deleted never ends: it is submitted again. */
  async #findVanished(ids: readonly string[]): Promise<void> {
    const known = new Set((await jobsOf(this.#options.queue.boss, PARTS.image, ids)).map(({ id }) => id));
    for (const id of ids) {
      if (known.has(id)) continue;
      for (const wish of this.#jobs.waiting.get(id) ?? []) this.#again.add(wish);
      this.#jobs.waiting.delete(id);
    }
  }

  #take(ended: readonly EndedJob[], tell: Tell): void {
    for (const job of ended) {
      const wishes = this.#jobs.waiting.get(job.id);
      if (wishes === undefined) continue;
      this.#jobs.waiting.delete(job.id);
      const did = (job.data as Partial<ImageData> | null)?.task;
      for (const wish of wishes) {
        const isOurs = job.runId === this.#runId;
        // Another run's job of the same key: what it did counts when it is what we want.
        if (!isOurs && (job.state === 'cancelled' || did === undefined || !isSameTask(did, wish.task)))
          this.#again.add(wish);
        else tell(wish, resultOf(job, wish.task));
      }
    }
  }

  async #warnWithoutWorkers(): Promise<void> {
    const { queue, warn } = this.#options;
    const has = await queue.hasWorkers().catch(() => true);
    if (!has && this.#jobs.waiting.size > 0)
      warn('no worker is connected to the queue; the images wait until one is started (port-image worker)');
  }

  /** What nobody has begun is taken back; what runs is finished by its worker. */
  async #giveUp(): Promise<void> {
    const { queue, log, whenInterrupted = 'cancel' } = this.#options;
    if (whenInterrupted === 'leave') return;
    try {
      const jobs = await jobsOf(queue.boss, PARTS.image, [...this.#jobs.own]);
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
