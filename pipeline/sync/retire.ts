/**
 * Hiding and deleting what is old: last, and only what is still to go when the target is asked once more. A run may take hours; what was
 * there when it began says nothing about what is there now, and what was to come may not have come.
 */
import { asPortError, PortError } from '../../core/errors.ts';
import type { SyncOutcome, TargetImage } from '../../core/sync/types.ts';
import { type PerformOptions, performTask } from './perform.ts';
import type { SyncTask, TaskResult } from './perform-types.ts';
import { inPlace } from './places.ts';

/** What old versions are retired by. */
export interface RetireInput {
  /** All of the plan; what is no retirement is left alone. */
  tasks: readonly SyncTask[];
  /** What became of the others. */
  results: readonly TaskResult[];
  perform: PerformOptions;
  /** What retention would have go of a target now, as `retirementKey`. */
  judge: (target: string, images: readonly TargetImage[], now: Date) => ReadonlySet<string>;
  take: (task: SyncTask, result: TaskResult) => void;
}

/** Names what shall be done to which image. */
export function retirementKey({ verb, targetRef }: SyncTask['action']): string {
  return `${verb} ${targetRef}`;
}

/** Whether a task hides or deletes. */
export function isRetirement({ action }: SyncTask): boolean {
  return action.verb === 'hide' || action.verb === 'delete';
}

/** Does the retirements of a plan. Throws INTERRUPTED alone. */
export async function retireOld(input: RetireInput): Promise<void> {
  const { tasks, results, perform, judge, take } = input;
  // Only where everything of the series arrived; else the old version may be the one that is needed.
  const bad = new Set(
    results.flatMap(({ outcome: { action, result } }) =>
      result === 'failed' || result === 'deferred' || result === 'changed'
        ? [`${action.target}\0${action.series}`]
        : [],
    ),
  );
  const due = new Map<string, SyncTask[]>();
  for (const task of tasks.filter(isRetirement)) {
    const { target, series } = task.action;
    if (bad.has(`${target}\0${series}`)) {
      take(task, without(task, { result: 'deferred', message: 'the new version did not arrive' }));
      continue;
    }
    due.set(target, [...(due.get(target) ?? []), task]);
  }
  for (const [target, own] of due) {
    let now: readonly TargetImage[];
    let clock = new Date();
    try {
      const place = await perform.places.target(target);
      now = await place.list(inPlace(perform, target));
      clock = place.now?.() ?? clock;
    } catch (error) {
      if (perform.signal.aborted) throw new PortError('INTERRUPTED', 'interrupted', { cause: error });
      const { code, message, hint, temporary } = asPortError(error);
      for (const task of own) take(task, without(task, { result: 'failed', code, message, hint, temporary }));
      continue;
    }
    const wanted = judge(target, now, clock);
    const there = new Set(now.map(({ ref }) => ref));
    for (const task of own) {
      if (perform.signal.aborted) throw new PortError('INTERRUPTED', 'interrupted');
      const { action } = task;
      if (there.has(action.targetRef) && !wanted.has(retirementKey(action))) {
        const message = 'not done: what is there now is not what the plan saw';
        take(task, without(task, { result: 'changed', message }));
        continue;
      }
      take(task, await performTask(task, { ...perform, listed: new Map([[target, now]]) }));
    }
  }
}

/** The result of a task for which nothing was done. */
export function without(
  { action }: SyncTask,
  told: Pick<SyncOutcome, 'result' | 'message'> & Partial<SyncOutcome>,
): TaskResult {
  return {
    outcome: {
      action,
      sentBytes: 0,
      changedBytes: 0,
      dataBytes: 0,
      receivedBytes: 0,
      seconds: 0,
      attempts: 0,
      ...told,
    },
    dataSets: [],
  };
}
