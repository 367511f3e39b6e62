/** Sync files of runs, as their texts in the queue say. */
import { PortError } from '../../../core/errors.ts';
import type { SyncFile } from '../perform-types.ts';
import { PARTS, RunData } from './jobs.ts';
import type { Queue } from './queue.ts';

/** Files kept read. */
const MOST = 32;

/** Reads each file once; the oldest are forgotten. */
export class RunFiles {
  readonly #queue: Queue;
  readonly #parse: (text: string, path: string) => SyncFile;
  readonly #files = new Map<string, SyncFile>();

  constructor(queue: Queue, parse: (text: string, path: string) => SyncFile) {
    this.#queue = queue;
    this.#parse = parse;
  }

  /** Throws QUEUE, CONFIG. */
  async of(runId: string): Promise<SyncFile> {
    const known = this.#files.get(runId);
    if (known !== undefined) return known;
    const rows = await this.#queue.boss.findJobs(PARTS.run, { id: runId }).catch((error: unknown) => {
      throw this.#queue.error(error, 'asking for the sync file');
    });
    const data = RunData.safeParse(rows[0]?.data);
    if (!data.success)
      throw new PortError('QUEUE', 'the sync file of this job is not in the queue any more', {
        hint: 'run the sync again; it submits its images anew',
      });
    const file = this.#parse(data.data.text, data.data.path);
    this.#files.set(runId, file);
    const [oldest] = this.#files.keys();
    if (this.#files.size > MOST && oldest !== undefined) this.#files.delete(oldest);
    return file;
  }
}
