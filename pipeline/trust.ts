/** Whether what a job folder holds is still what its journal says. */
import { PortError } from '../core/errors.ts';
import { exists, sha256File } from '../core/files.ts';
import type { JobPaths, StageName } from '../core/stage.ts';
import type { Artifact, CaptureResult } from '../core/types.ts';
import { workDiskPath } from '../core/work-disks.ts';
import type { CustomizeResult } from '../stages/customize/index.ts';
import type { JobState } from './journal.ts';

/**
 * Stages whose files are gone and must be made again. Facts, work disk and images must have the digests of the journal.
 * Throws JOB_TAMPERED naming the file that changed.
 */
export async function stagesWithoutFiles(
  paths: JobPaths,
  state: JobState,
  signal: AbortSignal,
): Promise<StageName[]> {
  const lost: StageName[] = [];
  const check = async (stage: StageName, file: string, sha256: string | undefined): Promise<void> => {
    if (!(await exists(file))) {
      lost.push(stage);
    } else if (sha256 !== undefined && (await sha256File(file, signal)) !== sha256) {
      throw new PortError('JOB_TAMPERED', `${file} changed since it was written`, {
        hint: 'start a new job; this folder cannot be trusted',
      });
    }
  };
  const captured = (state.done.get('capture')?.result as CaptureResult | undefined)?.disks ?? [];
  if (state.done.has('capture') && captured.length === 0) lost.push('capture'); // by an older version
  const inspect = state.done.get('inspect');
  if (inspect !== undefined) await check('inspect', paths.facts, inspect.digest);
  // strip is the first stage of the session that made the work disks
  if (state.done.has('trim')) {
    const known = state.work?.disks;
    if (known === undefined) await check('strip', paths.work, state.work?.workSha256);
    for (const [index, { id }] of captured.entries()) {
      const work = known?.find((d) => d.disk === id);
      if (work !== undefined) await check('strip', workDiskPath(paths, index, id), work.sha256);
    }
  }
  const customized = state.done.get('customize')?.result as CustomizeResult | null | undefined;
  // what an older version left names one disk only
  if (customized && customized.disks === undefined) lost.push('customize');
  for (const disk of Object.values(customized?.disks ?? {})) await check('customize', disk, undefined);
  for (const { path, sha256 } of (state.done.get('encode')?.result ?? []) as Artifact[]) {
    await check('encode', path, sha256);
  }
  return lost;
}
