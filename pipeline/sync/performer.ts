/** Does tasks of any sync in a process that takes them from elsewhere: places and images stay open from task to task. */
import { createHash } from 'node:crypto';
import * as path from 'node:path';
import { makeDir } from '../../core/files.ts';
import type { SyncContext } from '../../core/sync/types.ts';
import { lockFolder } from '../lock.ts';
import { Ledger } from './ledger.ts';
import { LocalDisks } from './local-disks.ts';
import { performTask } from './perform.ts';
import type { SyncFile, SyncTask, TaskResult } from './perform-types.ts';
import { placeOf } from './place.ts';
import { Places } from './places.ts';

interface Opened {
  places: Places;
  disks: LocalDisks;
  dir: string;
  users: number;
}

/** Files whose places stay open; one more closes those of the file that was not used for longest. */
const MOST_FILES = 8;

/** Does tasks in a state folder of its own, which nobody else may use. */
export class Performer {
  readonly #dir: string;
  readonly #ledger: Ledger;
  readonly #unlock: () => Promise<void>;
  readonly #signal: AbortSignal;
  readonly #place: string;
  readonly #files = new Map<string, Promise<Opened>>();

  private constructor(
    dir: string,
    ledger: Ledger,
    place: string,
    unlock: () => Promise<void>,
    signal: AbortSignal,
  ) {
    this.#dir = dir;
    this.#place = place;
    this.#ledger = ledger;
    this.#unlock = unlock;
    this.#signal = signal;
  }

  /** Takes the folder. Throws JOB_LOCKED, HOST_IO. */
  static async open(dir: string, signal: AbortSignal): Promise<Performer> {
    await makeDir(dir);
    const unlock = await lockFolder(dir);
    return new Performer(dir, await Ledger.open(dir), await placeOf(dir), unlock, signal);
  }

  /** Does one task, once: who handed it out tries again. Throws INTERRUPTED alone. */
  async perform(task: SyncTask, file: SyncFile, ctx: SyncContext & { run: string }): Promise<TaskResult> {
    const key = createHash('sha256').update(file.text).digest('hex');
    const known = this.#files.get(key) ?? this.#open(file);
    this.#files.delete(key);
    this.#files.set(key, known);
    const opened = await known;
    opened.users++;
    try {
      await this.#closeIdle();
      return await performTask(task, {
        ...ctx,
        owner: `${ctx.run}@${this.#place}`,
        file,
        places: opened.places,
        disks: opened.disks,
        stateDir: opened.dir,
        attempts: 1,
      });
    } finally {
      opened.users--;
    }
  }

  async #open(file: SyncFile): Promise<Opened> {
    const dir = path.join(this.#dir, 'syncs', file.config.sync);
    const disks = new LocalDisks({
      dir: path.join(dir, 'images'),
      bytesPerSecond: file.config.limits.downloadBytesPerSecond,
      remember: (digest, facts) => this.#ledger.rememberRaw(digest, facts),
    });
    await makeDir(dir);
    await disks.start();
    const places = new Places(file, {
      stateDir: dir,
      digests: this.#ledger.digests,
      owner: `worker@${this.#place}`,
      signal: this.#signal,
    });
    return { places, disks, dir, users: 0 };
  }

  async #closeIdle(): Promise<void> {
    for (const [key, pending] of this.#files) {
      if (this.#files.size <= MOST_FILES) return;
      const opened = await pending.catch(() => undefined);
      if (opened !== undefined && opened.users > 0) continue;
      this.#files.delete(key);
      await opened?.places.close();
    }
  }

  /** Ends connections and gives the folder back. */
  async close(): Promise<void> {
    for (const pending of this.#files.values()) await (await pending.catch(() => undefined))?.places.close();
    this.#files.clear();
    this.#ledger.close();
    await this.#unlock();
  }
}
