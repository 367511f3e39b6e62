/** What a stage is, and what it is given. */
import type * as z from 'zod';
import type { Facts } from './facts.ts';
import type { GuestSession } from './guest.ts';
import type { Log } from './log.ts';
import type { Platform } from './platform.ts';
import type { Request } from './request.ts';

/** Names of the stages, in the order of `convert`. */
export const STAGE_NAMES = [
  'capture',
  'inspect',
  'strip',
  'guest-drivers',
  'cloud-init',
  'network',
  'seal',
  'trim',
  'customize',
  'encode',
  'verify',
  'upload',
] as const;
/** Name of a stage. */
export type StageName = (typeof STAGE_NAMES)[number];

/** One change inside the guest, for the plan, the journal and the report. */
export interface Change {
  stage: StageName;
  /** Guest path or a short name of the thing changed. */
  path: string;
  /** `edit`, `create`, `remove`, `rename`, `install`, `rebuild`. */
  action: 'edit' | 'create' | 'remove' | 'rename' | 'install' | 'rebuild';
  /** Why, one sentence. */
  why: string;
  /** Content before, at most 4 KiB of text; absent in plans and for secrets. */
  before?: string;
  /** Content after, at most 4 KiB of text. */
  after?: string;
}

/** Progress of a stage. Totals may be unknown. */
export interface Progress {
  /** What is happening, short, present tense: `reading /srv/app`. */
  text?: string;
  doneBytes?: number;
  totalBytes?: number;
}

/** Paths of a job folder (see docs/job-folder.md). */
export interface JobPaths {
  dir: string;
  request: string;
  journal: string;
  facts: string;
  plan: string;
  capture: string;
  /** qcow2 overlay with all edits; exists only when its session closed cleanly. */
  work: string;
  data: string;
  out: string;
  logs: string;
  report: string;
  /** Scratch space of the running process; emptied when a run starts and ends. */
  tmp: string;
}

/** What every stage is given. */
export interface StageContext {
  readonly request: Request;
  readonly paths: JobPaths;
  /** Chosen platforms, in the order of `--to`. */
  readonly platforms: readonly Platform[];
  /** Facts another stage left in the journal (its `run` result), or undefined when it has not run. */
  result<T>(stage: StageName): T | undefined;
  /** `facts.json`. Throws BUG before inspect is done. */
  readonly facts: Facts;
  /** The open appliance session. Throws BUG outside the guest stages. */
  readonly guest: GuestSession;
  readonly signal: AbortSignal;
  readonly log: Log;
  progress(event: Progress): void;
  /** Records a change that was made (or, in `plan`, is intended). */
  change(change: Omit<Change, 'stage'>): void;
  /** Tells the user something that needs attention but stops nothing. */
  warn(text: string): void;
}

/**
 * One step of a conversion. `plan` changes nothing and proves access to what `run` will need; it records the intended
 * changes with `ctx.change`. `run` does exactly the plan, is idempotent and returns facts for the journal (JSON).
 */
export interface Stage<Plan = unknown, Result = unknown> {
  readonly name: StageName;
  /** One line for `stage --list`. */
  readonly summary: string;
  /** Stages whose results must be there. */
  readonly needs: readonly StageName[];
  /** True when the stage works in the appliance session. */
  readonly inGuest: boolean;
  /** Part of the request this stage reads (checked when the job is made). */
  readonly Options: z.ZodType;
  plan(ctx: StageContext): Promise<Plan>;
  run(ctx: StageContext, plan: Plan): Promise<Result>;
}
