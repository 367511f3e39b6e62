/** What a run tells its caller while it works. The command line draws it; tests collect it. */
import type { Change, Progress, StageName } from '../core/stage.ts';

/** An event of a run. */
export type RunEvent =
  | { event: 'stage-started'; stage: StageName; index: number; total: number }
  | { event: 'stage-skipped'; stage: StageName }
  | { event: 'progress'; stage: StageName; progress: Progress }
  | { event: 'change'; change: Change; intended: boolean }
  | { event: 'warning'; stage: StageName | undefined; text: string }
  | { event: 'stage-done'; stage: StageName; seconds: number }
  | { event: 'note'; text: string };

/** Receives events; must not throw. */
export type Listener = (event: RunEvent) => void;
