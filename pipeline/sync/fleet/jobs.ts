/** What travels in the queue: names of its parts, the form of jobs and of their results. */
import * as z from 'zod';
import type { SyncReport } from '../../../core/sync/types.ts';
import { parsedJson } from '../../../core/text.ts';
import type { SyncTask, TaskResult } from '../perform-types.ts';

/** Schema of the database all of it is in. */
export const SCHEMA = 'port_image';

/** Parts of the queue. `KIND.dead` holds what failed for good, with its cause. */
export const PARTS = {
  /** One image for one target. */
  image: 'port-image.image',
  /** A whole sync: planned by a worker, which then waits for its images. */
  sync: 'port-image.sync',
  /** What is common to the images of a run: the sync file. Nobody fetches from it. */
  run: 'port-image.run',
  /** What each worker does right now, for `queue status`. Nobody fetches from it. */
  host: 'port-image.host',
  deadImage: 'port-image.image.dead',
  deadSync: 'port-image.sync.dead',
} as const;

/** Kinds of job somebody works on. */
export const KINDS = ['image', 'sync'] as const;
/** Kind of job. */
export type Kind = (typeof KINDS)[number];
/** Where dead letters of a kind are. */
export const DEAD: Readonly<Record<Kind, string>> = { image: PARTS.deadImage, sync: PARTS.deadSync };

/** Most lanes of a target; one tier for each number, since pg-boss limits groups by tier. */
const MOST_LANES = 16;
/** Running jobs of one target, over all hosts, by the tier its jobs carry. */
export const LANE_TIERS: Readonly<Record<string, number>> = Object.fromEntries(
  Array.from({ length: MOST_LANES }, (_, i) => [`lanes-${i + 1}`, i + 1]),
);

const Task = z.custom<SyncTask>((value) => {
  const { action, wantedDigest, carryData } = (value ?? {}) as Partial<SyncTask>;
  const texts = [
    action?.verb,
    action?.target,
    action?.source,
    action?.series,
    action?.version,
    action?.targetRef,
  ];
  return (
    texts.every((text) => typeof text === 'string') &&
    typeof wantedDigest === 'string' &&
    typeof carryData === 'boolean'
  );
}, 'not a task');

/** What is common to the images of a run. */
export const RunData = z.object({
  schema: z.literal('port-image/queue-run/1'),
  sync: z.string(),
  /** `20260821T010000Z-ab12cd`. */
  run: z.string(),
  /** Who waits for the results. */
  host: z.string(),
  path: z.string(),
  text: z.string(),
});
/** What is common to the images of a run. */
export type RunData = z.infer<typeof RunData>;

/** One image for one target. */
export const ImageData = z.object({
  schema: z.literal('port-image/queue-image/1'),
  /** Id of the job in `port-image.run`. */
  runId: z.string(),
  run: z.string(),
  sync: z.string(),
  /** Attempts for failures that can heal. */
  attempts: z.int().min(1),
  /** Times it was taken and given back undone: not attempts of ours. */
  returns: z.int().min(0),
  /** Milliseconds since 1970: since when another one's half-made image keeps it waiting. */
  busySince: z.number().optional(),
  task: Task,
});
/** One image for one target. */
export type ImageData = z.infer<typeof ImageData>;

/** A whole sync. */
export const SyncData = z.object({
  schema: z.literal('port-image/queue-sync/1'),
  sync: z.string(),
  path: z.string(),
  text: z.string(),
  returns: z.int().min(0),
  only: z.array(z.string()).optional(),
});
/** A whole sync. */
export type SyncData = z.infer<typeof SyncData>;

/** What a worker does right now. */
export const HostData = z.object({
  name: z.string(),
  pid: z.number(),
  lanes: z.number(),
  startedAt: z.string(),
  jobs: z.array(z.object({ id: z.string(), startedAt: z.string() })),
});
/** What a worker does right now. */
export type HostData = z.infer<typeof HostData>;

/** Result of an image's job. */
export interface ImageOutput {
  host: string;
  result: TaskResult;
}

/** Result of a sync's job. */
export interface SyncOutput {
  host: string;
  report?: SyncReport;
  error?: { code: string; message: string; hint?: string | undefined };
}

/** The key of a task: of two jobs with one key only one waits or runs. */
export function taskKey(sync: string, { action }: Pick<SyncTask, 'action'>): string {
  return `${sync}/${action.target}/${action.series}/${action.version}`;
}

/** The group of a target: its lanes count over all hosts. */
export function laneGroup(sync: string, target: string, lanes: number): { id: string; tier: string } {
  return { id: `${sync}/${target}`, tier: `lanes-${Math.min(Math.max(lanes, 1), MOST_LANES)}` };
}

/** Whether two tasks ask for the same; their reasons may differ. */
export function isSameTask(a: SyncTask, b: SyncTask): boolean {
  const core = ({ action: { why: _, ...action }, ...task }: SyncTask) => ({ ...task, action });
  // PostgreSQL keeps JSON in an order of its own
  return canonical(core(a)) === canonical(core(b));
}

function canonical(value: unknown): string {
  return JSON.stringify(parsedJson(JSON.stringify(value)), (_key, item: unknown) =>
    typeof item === 'object' && item !== null && !Array.isArray(item)
      ? Object.fromEntries(Object.entries(item).sort(([a], [b]) => (a < b ? -1 : 1)))
      : item,
  );
}

/** A task that did not come to an end, as an outcome. */
export function withoutResult(
  task: SyncTask,
  result: TaskResult['outcome']['result'],
  told: { code?: string; message: string; hint?: string | undefined; attempts?: number },
): TaskResult {
  return {
    outcome: {
      action: task.action,
      result,
      sentBytes: 0,
      changedBytes: 0,
      dataBytes: 0,
      receivedBytes: 0,
      seconds: 0,
      attempts: told.attempts ?? 0,
      ...(told.code === undefined ? {} : { code: told.code }),
      message: told.message,
      ...(told.hint === undefined ? {} : { hint: told.hint }),
    },
    dataSets: [],
  };
}
