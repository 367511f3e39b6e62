/** Which jobs of this machine work with a data set: what one of them still needs must not be removed. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { type DataSetSummary, dataSetId } from '../../core/data-set.ts';
import { PortError } from '../../core/errors.ts';
import type { Request } from '../../core/request.ts';
import { openStore } from '../../drivers/stores/index.ts';
import { jobsHome, openJob } from '../job.ts';
import { type JournalEntry, parseJournal, replay } from '../journal.ts';
import { lockFolder } from '../lock.ts';

/** A job that is not done. */
export interface OpenJob {
  dir: string;
  /** A process works in it now. */
  running: boolean;
  store: string;
  /** What the ids of its data sets begin with; one made for another path differs behind it. */
  head: string;
  /** Ids its journal names. */
  ids: ReadonlySet<string>;
}

/** The readable part all data sets of an image's name begin with: an id is that, the path and ten hex digits. */
function headOf(request: Request): string {
  return dataSetId(request.name, '/', '').replace(/-?[0-9a-f]{10}$/, '');
}

/** The store as it names itself: `swift:` has a default prefix, a folder may be written in several ways. */
function storeUrl(url: string): string {
  try {
    return openStore(url).url;
  } catch {
    return url;
  }
}

async function isRunning(dir: string): Promise<boolean> {
  try {
    await (await lockFolder(dir))();
    return false;
  } catch (error) {
    if (error instanceof PortError && error.code === 'JOB_LOCKED') return true;
    // a folder we may not write to is at least not ours to run
    return false;
  }
}

/** Jobs below the jobs' home that did not end. Folders that are no jobs are passed over. */
export async function openJobs(home: string = jobsHome()): Promise<OpenJob[]> {
  const names = await fs.readdir(home).catch(() => [] as string[]);
  const jobs: OpenJob[] = [];
  for (const name of names.sort()) {
    const job = await openJob(path.join(home, name)).catch(() => undefined);
    if (job === undefined || job.request.strip === 'none') continue;
    let entries: JournalEntry[] = [];
    try {
      entries = parseJournal(await fs.readFile(job.paths.journal, 'utf8'));
    } catch {
      // no journal yet, or one that is broken: the job counts as not done
    }
    const state = replay(entries);
    const running = await isRunning(job.paths.dir);
    if (state.finished && !running) continue;
    const sets = (state.done.get('strip')?.result ?? []) as Partial<DataSetSummary>[];
    jobs.push({
      dir: job.paths.dir,
      running,
      store: storeUrl(job.request.store),
      head: headOf(job.request),
      ids: new Set(Array.isArray(sets) ? sets.flatMap((s) => s.id ?? []) : []),
    });
  }
  return jobs;
}

/** The jobs among these that may be working with a data set of this store. */
export function jobsUsing(jobs: readonly OpenJob[], storeUrl: string, id: string): OpenJob[] {
  return jobs.filter(
    (job) =>
      job.store === storeUrl &&
      (job.ids.has(id) || (job.ids.size === 0 && (job.head === '' || id.startsWith(`${job.head}-`)))),
  );
}
