/** Which tasks of a run wait for which. */
import { compareVersions } from '../../core/sync/versions.ts';
import type { SyncTask } from './perform-types.ts';

/**
 * Tasks in groups to be done one after the other: of each series older versions first, since clouds tell the newest image of a name
 * by when it was made.
 */
export function waves(tasks: readonly SyncTask[]): SyncTask[][] {
  const versions = new Map<string, Set<string>>();
  for (const { action } of tasks)
    versions.set(action.series, (versions.get(action.series) ?? new Set()).add(action.version));
  const places = new Map<string, number>();
  for (const [series, all] of versions)
    for (const [at, version] of [...all].sort(compareVersions).entries())
      places.set(`${series}\0${version}`, at);
  const found: SyncTask[][] = [];
  for (const task of tasks) {
    const at = places.get(`${task.action.series}\0${task.action.version}`) ?? 0;
    const wave = found[at] ?? [];
    found[at] = wave;
    wave.push(task);
  }
  return found;
}
