/** Whether what a job folder holds is still what its journal says. */
import { PortError } from '../core/errors.ts';
import { exists, sha256File } from '../core/files.ts';
import type { JobPaths, StageName } from '../core/stage.ts';
import type { Artifact } from '../core/types.ts';
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
  const inspect = state.done.get('inspect');
  if (inspect !== undefined) await check('inspect', paths.facts, inspect.digest);
  // strip is the first stage of the session that made the work disk
  if (state.done.has('trim')) await check('strip', paths.work, state.work?.workSha256);
  const customized = state.done.get('customize')?.result as { disk: string } | null | undefined;
  if (customized) await check('customize', customized.disk, undefined);
  for (const { path, sha256 } of (state.done.get('encode')?.result ?? []) as Artifact[]) {
    await check('encode', path, sha256);
  }
  return lost;
}
