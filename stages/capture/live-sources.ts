/** Sources that are read through a connection, by kind. */
import type { Source } from '../../core/source.ts';
import type { CaptureContext } from './context.ts';
import type { LiveSource } from './live.ts';
import { openMachineSource } from './machine.ts';

/** A source that is copied block by block. */
export type LiveKind = Extract<Source, { kind: 'ssh' | 'host' | 'nbd' | 'ebs' }>;

/** Whether a source is copied block by block. */
export function isLive(source: Source): source is LiveKind {
  return source.kind === 'ssh' || source.kind === 'host' || source.kind === 'nbd' || source.kind === 'ebs';
}

/** Opens a live source; the caller closes it. Throws SOURCE_REMOTE. */
export async function openLiveSource(ctx: CaptureContext, source: LiveKind): Promise<LiveSource> {
  if (source.kind === 'ssh' || source.kind === 'host') return openMachineSource(ctx, source);
  throw new Error('later');
}
