/** A worker of a fleet: takes jobs, does them, and acknowledges each with its result. */
import type { JobResult, JobWithMetadata } from 'pg-boss';
import { asPortError } from '../../../core/errors.ts';
import { pause } from '../../../core/pause.ts';
import type { SyncContext, SyncReport } from '../../../core/sync/types.ts';
import { printable } from '../../../core/text.ts';
import type { SyncFile, SyncTask, TaskResult } from '../perform-types.ts';
import { HostBoard } from './host-board.ts';
import {
  ImageData,
  type ImageOutput,
  LANE_TIERS,
  PARTS,
  SyncData,
  type SyncOutput,
  withoutResult,
} from './jobs.ts';
import type { Queue } from './queue.ts';
import { RunFiles } from './run-files.ts';
import { handBack, isTooMuch, type Taken, untilQueueAnswers } from './taken.ts';

/** What a task is done with. */
export interface FleetContext extends SyncContext {
  /** `20260821T010000Z-ab12cd`, for marks in clouds. */
  run: string;
}

/** How a worker works. */
export interface WorkerOptions extends Pick<SyncContext, 'signal' | 'log' | 'warn'> {
  queue: Queue;
  /** Images at a time on this host. */
  lanes: number;
  /** Name of this host. */
  name: string;
  /** Reads the text of a sync file; throws CONFIG. */
  parse(text: string, path: string): SyncFile;
  /** Does a task; throws, or tells a failure that can heal by `temporary` in the outcome. One attempt. */
  perform(task: SyncTask, file: SyncFile, ctx: FleetContext): Promise<TaskResult>;
  /** Does a whole sync, its images by the queue; without it this worker takes none. */
  performSync?(file: SyncFile, data: SyncData, ctx: FleetContext): Promise<SyncReport>;
  /** Told when a job begins and ends, for people. */
  onJob?(line: string): void;
}

/** After a signal, what runs may go on so long, then is interrupted and handed back; both together stay below 10 s. */
const FINISH_MS = 4_000;
const HAND_BACK_MS = 4_000;
/** Lanes are counted again so long after a job was taken, when every job taken in the same instant can be seen. */
const LANE_SURE_MS = 2_000;
/** An image somebody else is at is waited for until that one counts as dead, and so long. */
const BUSY_MARGIN_MS = 120_000;
/** Whole syncs at a time; they only plan and wait. */
const SYNC_LANES = 2;

/** Works until the signal fires; resolves when nothing runs any more. Throws QUEUE when the queue cannot be used at all. */
export async function runWorker(options: WorkerOptions): Promise<void> {
  const worker = new Worker(options);
  await worker.start();
  await new Promise<void>((resolve) => {
    if (options.signal.aborted) resolve();
    else options.signal.addEventListener('abort', () => resolve(), { once: true });
  });
  await worker.drain();
}

class Worker {
  readonly #options: WorkerOptions;
  readonly #board: HostBoard;
  readonly #files: RunFiles;
  readonly #running = new Map<string, Promise<JobResult>>();
  readonly #attempts = new Map<string, Taken>();
  /** Fires when what runs shall stop. */
  readonly #stop = new AbortController();

  constructor(options: WorkerOptions) {
    this.#options = options;
    this.#files = new RunFiles(options.queue, options.parse);
    this.#board = new HostBoard(options.queue, { name: options.name, lanes: options.lanes });
  }

  async start(): Promise<void> {
    const { queue, lanes, performSync } = this.#options;
    await this.#board.show();
    for (let lane = 0; lane < lanes; lane++) await this.#lane(PARTS.image, (job) => this.#image(job));
    if (performSync !== undefined)
      for (let lane = 0; lane < SYNC_LANES; lane++)
        await this.#lane(PARTS.sync, (job) => this.#sync(job, performSync));
    this.#options.log.info('worker ready', { queue: queue.address.shown, lanes });
  }

  /** One job at a time. A lane that ended one asks for the next at once instead of with the next poll. */
  async #lane(part: string, work: (job: Taken) => Promise<JobResult>): Promise<void> {
    const { boss, times } = this.#options.queue;
    const lane = await boss.work(
      part,
      {
        perJobResults: true,
        includeMetadata: true,
        pollingIntervalSeconds: times.pollSeconds,
        notifyPollingIntervalSeconds: times.pollSeconds,
        heartbeatRefreshSeconds: Math.max(1, Math.floor(times.heartbeatSeconds / 4)),
        ...(part === PARTS.image ? { groupConcurrency: { default: 1, tiers: LANE_TIERS } } : {}),
      },
      async (jobs: JobWithMetadata<unknown>[]) => {
        const results = await Promise.all(jobs.map((job) => this.#tracked(job, work)));
        boss.notifyWorker(lane);
        return results;
      },
    );
  }

  async #tracked(job: Taken, work: (job: Taken) => Promise<JobResult>): Promise<JobResult> {
    this.#attempts.set(job.id, job);
    this.#board.began(job.id);
    const running = work(job);
    this.#running.set(job.id, running);
    try {
      return await running;
    } finally {
      this.#running.delete(job.id);
      this.#attempts.delete(job.id);
      this.#board.ended(job.id);
    }
  }

  #context(job: Taken, run: string, ...more: AbortSignal[]): FleetContext {
    const { log, warn } = this.#options;
    return {
      // also when the job was cancelled, or given to another worker because our heartbeat was not seen
      signal: AbortSignal.any([job.signal, this.#stop.signal, ...more]),
      log,
      warn,
      progress: () => {},
      run,
    };
  }

  async #image(job: Taken): Promise<JobResult> {
    const { queue, name, perform, onJob, log } = this.#options;
    const data = ImageData.safeParse(job.data);
    // An older or newer program made it; another worker may understand it.
    if (!data.success) return { id: job.id, status: 'failed', output: { message: 'unknown form of job' } };
    const { task, run, runId, attempts, returns } = data.data;
    const title = printable(
      `${task.action.verb} ${task.action.series} ${task.action.version} in ${task.action.target}`,
    );
    const untilFree = queue.times.pollSeconds * (1 + Math.random());
    if (await isTooMuch(queue, job)) return this.#handBack(job, `${title}: no lane free`, untilFree);
    const tooMuch = new AbortController();
    const ctx = this.#context(job, run, tooMuch.signal);
    const sure = setTimeout(() => {
      void isTooMuch(queue, job).then((is) => is && tooMuch.abort());
    }, LANE_SURE_MS);
    onJob?.(`${title}: begins`);
    let result: TaskResult;
    let temporary = false;
    try {
      result = await perform(task, await this.#files.of(runId), ctx);
      temporary = result.outcome.temporary === true;
    } catch (error) {
      if (ctx.signal.aborted) return this.#handBack(job, title, tooMuch.signal.aborted ? untilFree : 0);
      const known = asPortError(error);
      ({ temporary } = known);
      result = withoutResult(task, 'failed', known);
    } finally {
      clearTimeout(sure);
    }
    if (result.outcome.code === 'SYNC_BUSY') {
      // Most likely of a worker that died at this very job; when it has been silent for long enough it is taken over.
      const { staleAfter } = (await this.#files.of(runId)).config;
      const { busySince = Date.now() } = data.data;
      if (Date.now() - busySince < staleAfter + BUSY_MARGIN_MS)
        return this.#handBack(job, `${title}: somebody is at it`, queue.times.retrySeconds, busySince);
    }
    const attempt = job.retryCount + 1 - returns;
    result = { ...result, outcome: { ...result.outcome, attempts: attempt } };
    const output: ImageOutput = { host: name, result };
    const { outcome } = result;
    log.info('job ended', { job: job.id, result: outcome.result, code: outcome.code, attempt });
    onJob?.(
      `${title}: ${outcome.result}${outcome.message === undefined ? '' : `, ${printable(outcome.message)}`}`,
    );
    await untilQueueAnswers(queue, this.#stop.signal);
    if (outcome.result !== 'failed') return { id: job.id, status: 'completed', output };
    return { id: job.id, status: temporary && attempt < attempts ? 'failed' : 'deadletter', output };
  }

  async #sync(job: Taken, performSync: NonNullable<WorkerOptions['performSync']>): Promise<JobResult> {
    const { queue, name, parse, onJob } = this.#options;
    const data = SyncData.safeParse(job.data);
    if (!data.success) return { id: job.id, status: 'failed', output: { message: 'unknown form of job' } };
    const ctx = this.#context(job, job.id);
    const title = printable(`sync ${data.data.sync}`);
    onJob?.(`${title}: begins`);
    try {
      const report = await performSync(parse(data.data.text, data.data.path), data.data, ctx);
      if (ctx.signal.aborted) return await this.#handBack(job, title);
      const output: SyncOutput = { host: name, report };
      onJob?.(`${title}: ended with status ${report.exitStatus}`);
      await untilQueueAnswers(queue, this.#stop.signal);
      return { id: job.id, status: 'completed', output };
    } catch (error) {
      if (ctx.signal.aborted) return this.#handBack(job, title);
      const { code, message, hint, temporary } = asPortError(error);
      // Of a claim that was lost: the run of it has not stopped yet, here or in another program.
      if (code === 'JOB_LOCKED') return this.#handBack(job, `${title}: ${message}`, queue.times.retrySeconds);
      const output: SyncOutput = { host: name, error: { code, message, hint } };
      onJob?.(`${title}: failed, ${printable(message)}`);
      await untilQueueAnswers(queue, this.#stop.signal);
      return { id: job.id, status: temporary ? 'failed' : 'deadletter', output };
    }
  }

  async #handBack(job: Taken, title: string, later = 0, busySince?: number): Promise<JobResult> {
    const { queue, name, log, onJob } = this.#options;
    onJob?.(`${title}: handed back`);
    return handBack(queue, job, { later, busySince, name, log });
  }

  /** Takes no more jobs, lets what runs finish for a moment, then hands it back. */
  async drain(): Promise<void> {
    const { queue, log } = this.#options;
    const { boss } = queue;
    for (const part of [PARTS.image, PARTS.sync]) await boss.offWork(part, { wait: false }).catch(() => {});
    log.info('worker drains', { running: this.#running.size });
    const ended = async () => Promise.allSettled([...this.#running.values()]);
    await Promise.race([ended(), pause(FINISH_MS)]);
    this.#stop.abort();
    await Promise.race([ended(), pause(HAND_BACK_MS)]);
    // whoever does not listen to the signal loses the job all the same: this process ends
    await Promise.allSettled([...this.#attempts.values()].map((job) => this.#handBack(job, job.id)));
    await this.#board.remove();
  }
}
