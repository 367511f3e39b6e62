/** What the engine and whatever carries its actions (this process, or a queue) agree on. */
import type { SyncConfig } from '../../core/sync/config.ts';
import type {
  DataSetOutcome,
  SyncAction,
  SyncImage,
  SyncOutcome,
  WantedImage,
} from '../../core/sync/types.ts';

/** A sync file as it was read. */
export interface SyncFile {
  /** Absolute path; for messages only. */
  path: string;
  /** Its text. A worker elsewhere reads this, not the file. */
  text: string;
  config: SyncConfig;
}

/** One image for one target, with everything that is needed to do it anywhere. JSON, no secrets. */
export interface SyncTask {
  action: SyncAction;
  /** As the source listed it; undefined for `hide` and `delete`. */
  image?: SyncImage | undefined;
  wanted?: WantedImage | undefined;
  wantedDigest: string;
  /** Whether the data sets of the image are carried along. */
  carryData: boolean;
}

/** What became of a task. */
export interface TaskResult {
  outcome: SyncOutcome;
  dataSets: DataSetOutcome[];
}

/** Carries tasks. The engine hands all of a run over and waits. */
export interface TaskCarrier {
  /**
   * Does every task once, each in its own time; a failure is a result, never an exception, but for INTERRUPTED. Tasks of one image
   * should be done near each other: the image is read once for all of them. `onResult` is told each as it ends.
   */
  run(
    tasks: readonly SyncTask[],
    onResult: (task: SyncTask, result: TaskResult) => void,
  ): Promise<TaskResult[]>;
}
