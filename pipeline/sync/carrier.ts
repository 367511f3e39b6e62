/** Carries the tasks of a run in this process: images beside each other, and in each target no more at a time than it takes. */
import PQueue from 'p-queue';
import { PortError } from '../../core/errors.ts';
import type { SyncConfig } from '../../core/sync/config.ts';
import type { SyncTask, TaskCarrier, TaskResult } from './perform-types.ts';

/** What carries tasks here. */
export class ProcessCarrier implements TaskCarrier {
  readonly #images: PQueue;
  readonly #targets = new Map<string, PQueue>();
  readonly #perform: (task: SyncTask) => Promise<TaskResult>;
  readonly #hold: (task: SyncTask) => () => Promise<void>;
  readonly #signal: AbortSignal;

  /** `hold` keeps the image of a task open until what it returns is called. */
  constructor(
    config: SyncConfig,
    perform: (task: SyncTask) => Promise<TaskResult>,
    hold: (task: SyncTask) => () => Promise<void>,
    signal: AbortSignal,
  ) {
    this.#perform = perform;
    this.#hold = hold;
    this.#signal = signal;
    this.#images = new PQueue({ concurrency: config.limits.images });
    for (const [name, { lanes }] of Object.entries(config.targets))
      this.#targets.set(name, new PQueue({ concurrency: lanes }));
  }

  /** Throws INTERRUPTED alone, when every task under way has ended. */
  async run(
    tasks: readonly SyncTask[],
    onResult: (task: SyncTask, result: TaskResult) => void,
  ): Promise<TaskResult[]> {
    const results: TaskResult[] = [];
    const groups = [...byImage(tasks).values()].map((group) => () => this.#group(group, results, onResult));
    const ends = await Promise.allSettled(groups.map((group) => this.#images.add(group)));
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
    return results;
  }

  /** All targets of one image: it is read once for them. */
  async #group(
    tasks: readonly SyncTask[],
    results: TaskResult[],
    onResult: (task: SyncTask, result: TaskResult) => void,
  ): Promise<void> {
    const one = async (task: SyncTask): Promise<void> => {
      if (this.#signal.aborted) throw new PortError('INTERRUPTED', 'interrupted');
      const result = await this.#perform(task);
      results.push(result);
      onResult(task, result);
    };
    // A target whose lane is busy finds the image still here when its turn comes.
    const creation = tasks.find(({ action }) => action.verb === 'create');
    const release = creation === undefined ? undefined : this.#hold(creation);
    const ends = await Promise.allSettled(
      tasks.map((task) => {
        const lane = this.#targets.get(task.action.target);
        if (lane === undefined) throw new PortError('BUG', `no target ${task.action.target}`);
        return lane.add(() => one(task));
      }),
    );
    await release?.();
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
  }
}

function byImage(tasks: readonly SyncTask[]): Map<string, SyncTask[]> {
  const groups = new Map<string, SyncTask[]>();
  for (const task of tasks) {
    const { source, series, version } = task.action;
    const key = [source, series, version].join('\0');
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [task]);
    else group.push(task);
  }
  return groups;
}
