/** Puts a run's report beside those of earlier nights: JSON, page, index and metrics. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { makeDir, writeFileAtomic, writeJson } from '../../../core/files.ts';
import type { SyncReport } from '../../../core/sync/types.ts';
import { indexPage } from './index-page.ts';
import { metricsOf } from './metrics.ts';
import { runPage } from './page.ts';

/** Nights the index shows. */
export const INDEX_RUNS = 60;
/** Reports of older runs are removed: more than a year of nights. */
const MOST_RUNS = 400;
/** Names of runs sort by time. */
const RUN_NAME = /^\d{8}T\d{6}Z-[0-9a-f]{6}$/;

/** Writes what is of this run alone. Throws HOST_IO, DISK_SPACE. */
export async function writeReport(stateDir: string, report: SyncReport): Promise<void> {
  const dir = path.join(stateDir, 'runs', report.run);
  await makeDir(dir);
  await writeJson(path.join(dir, 'report.json'), report);
  await writeFileAtomic(path.join(dir, 'report.html'), runPage(report));
}

/** Writes everything. `earlier` are runs before this one, newest first. Throws HOST_IO, DISK_SPACE. */
export async function writeRun(
  stateDir: string,
  report: SyncReport,
  earlier: readonly SyncReport[] = [],
): Promise<void> {
  await writeReport(stateDir, report);
  const runs = path.join(stateDir, 'runs');
  const all = [report, ...earlier.filter((other) => other.run !== report.run)].slice(0, INDEX_RUNS);
  await writeFileAtomic(path.join(stateDir, 'index.html'), indexPage(all));
  await writeFileAtomic(path.join(stateDir, 'metrics.prom'), metricsOf(all));
  const names = (await fs.readdir(runs)).filter((name) => RUN_NAME.test(name)).sort();
  for (const name of names.slice(0, -MOST_RUNS))
    await fs.rm(path.join(runs, name), { recursive: true, force: true });
}
