/** Tasks as jobs of the queue: new ones, and those another run submitted and left. */
import { randomUUID } from 'node:crypto';
import PQueue from 'p-queue';
import { PortError } from '../../../core/errors.ts';
import type { SyncFile, SyncTask, TaskResult } from '../perform-types.ts';
import { type ImageData, laneGroup, PARTS, taskKey, withoutResult } from './jobs.ts';
import { type Queue, RETURNS } from './queue.ts';
import { heldJobs } from './table.ts';

/** A task that shall be done. */
export interface Wish {
  task: SyncTask;
  data: ImageData;
  submits: number;
}

/** Told a task whose result is known. */
export type Tell = (wish: Wish, result: TaskResult) => void;

/** Jobs of one INSERT. */
const BATCH = 500;
/** Statements beside each other; the queue's own connections are few. */
const BESIDE = 3;
/** A task whose jobs keep vanishing is not submitted for ever. */
const MOST_SUBMITS = 5;

/** The jobs a run waits for. */
export class Enlistment {
  /** Tasks by the job they wait for; two tasks may wait for one job. */
  readonly waiting = new Map<string, Wish[]>();
  /** Jobs this run submitted or took over. */
  readonly own = new Set<string>();
  readonly #options: { queue: Queue; file: SyncFile; priority?: number | undefined; signal: AbortSignal };

  constructor(options: { queue: Queue; file: SyncFile; priority?: number | undefined; signal: AbortSignal }) {
    this.#options = options;
  }

  /** Submits them; tasks whose jobs vanish again and again fail. Throws INTERRUPTED, and what pg-boss throws. */
  async submit(wishes: readonly Wish[], tell: (wish: Wish, result: TaskResult) => void): Promise<void> {
    for (let at = 0; at < wishes.length; at += BATCH) {
      if (this.#options.signal.aborted) throw new PortError('INTERRUPTED', 'interrupted');
      await this.#submitBatch(wishes.slice(at, at + BATCH), tell);
    }
  }

  async #submitBatch(wishes: readonly Wish[], tell: (wish: Wish, result: TaskResult) => void): Promise<void> {
    const { queue, file, priority = 0 } = this.#options;
    const { targets, sync } = file.config;
    let open = new Map(wishes.map((wish) => [taskKey(sync, wish.task), wish]));
    const twins = wishes.filter((wish) => open.get(taskKey(sync, wish.task)) !== wish);
    for (; open.size > 0; ) {
      for (const [key, wish] of open) {
        if (wish.submits < MOST_SUBMITS) continue;
        open.delete(key);
        tell(wish, withoutResult(wish.task, 'failed', { code: 'QUEUE', message: 'its jobs keep vanishing' }));
      }
      const jobs = [...open].map(([key, { task, data }]) => ({
        id: randomUUID(),
        data,
        priority,
        singletonKey: key,
        group: laneGroup(sync, task.action.target, targets[task.action.target]?.lanes ?? 1),
        retryLimit: data.attempts - 1 + RETURNS,
      }));
      if (jobs.length === 0) break;
      const made = new Set(await queue.boss.insert(PARTS.image, jobs, { returnId: true }));
      // A server that was away is not a job that vanished.
      for (const wish of open.values()) wish.submits++;
      for (const { id, singletonKey } of jobs) {
        if (!made.has(id)) continue;
        this.own.add(id);
        this.#await(id, open.get(singletonKey));
        open.delete(singletonKey);
      }
      if (open.size > 0) open = await this.#join(open);
    }
    if (twins.length > 0) await this.#submitBatch(twins, tell);
  }

  /** Waits for jobs that are there already; returns the tasks whose jobs ended meanwhile. */
  async #join(open: Map<string, Wish>): Promise<Map<string, Wish>> {
    const { queue, priority = 0 } = this.#options;
    const held = await heldJobs(queue.boss, PARTS.image, [...open.keys()]);
    const rest = new Map(open);
    const lanes = new PQueue({ concurrency: BESIDE });
    await lanes.addAll(
      held.map(({ id, key, state, retryCount }) => async () => {
        const wish = open.get(key);
        if (wish === undefined) return;
        rest.delete(key);
        if (state !== 'active') {
          // what it went through for the run before does not count
          const data: ImageData = { ...wish.data, returns: retryCount };
          const retryLimit = retryCount + data.attempts - 1 + RETURNS;
          const { updated } = await queue.boss.update(PARTS.image, data, { id, priority, retryLimit });
          if (updated > 0) this.own.add(id);
        }
        this.#await(id, wish);
      }),
    );
    return rest;
  }

  #await(id: string, wish: Wish | undefined): void {
    if (wish === undefined) return;
    const known = this.waiting.get(id);
    if (known === undefined) this.waiting.set(id, [wish]);
    else known.push(wish);
  }
}
