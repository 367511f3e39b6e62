/** What every step of encode is given. */
import type { StageContext } from '../../core/stage.ts';
import { type WorkDisk, workDisks } from '../../core/work-disks.ts';

/** Part of a stage's context; the signal ends when another output failed, too. */
export interface EncodeJob
  extends Pick<StageContext, 'request' | 'paths' | 'facts' | 'signal' | 'log' | 'progress' | 'warn'> {
  /** Scratch folder of this run of the stage. */
  readonly scratch: string;
  /** The disks to encode, the one the firmware starts from first. */
  readonly disks: readonly WorkDisk[];
}

/** The disks to encode: the customised ones where the user's commands ran on top of the work disks. */
export function disksToEncode(ctx: StageContext): WorkDisk[] {
  const customized = ctx.result<{ disks: Record<string, string> }>('customize');
  return workDisks(ctx.paths, ctx.facts).map((disk) => ({
    ...disk,
    path: customized?.disks[disk.id] ?? disk.path,
  }));
}
