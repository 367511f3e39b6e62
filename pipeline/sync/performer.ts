/** Does tasks of any sync in a process that takes them from elsewhere: places and images stay open from task to task. */
import { createHash } from 'node:crypto';
import * as path from 'node:path';
import { HOUR_MS } from '../../core/durations.ts';
import { makeDir } from '../../core/files.ts';
import type { SyncContext } from '../../core/sync/types.ts';
import { lockFolder } from '../lock.ts';
import { InTurn } from './in-turn.ts';
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

/** How often copies nobody came back for are looked for: a worker lives for months. */
const TIDY_MS = HOUR_MS;

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
  /** By the name of the sync: files of one sync share its folder. */
  readonly #disks = new Map<string, Promise<LocalDisks>>();
  readonly #turns = new InTurn();
  #tidiedAt = performance.now();

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
    const { target, series, version } = task.action;
    // A task that was taken from us may be given to us again before we have stopped.
    const name = [file.config.sync, target, series, version].join('\0');
    return this.#turns.run(name, ctx.signal, () => this.#perform(task, file, ctx));
  }

  async #perform(task: SyncTask, file: SyncFile, ctx: SyncContext & { run: string }): Promise<TaskResult> {
    const key = createHash('sha256').update(file.text).digest('hex');
    const known = this.#files.get(key) ?? this.#open(file);
    this.#files.delete(key);
    this.#files.set(key, known);
    let opened: Opened;
    try {
      opened = await known;
    } catch (error) {
      // A full disk may be emptied: the next task tries again.
      if (this.#files.get(key) === known) this.#files.delete(key);
      throw error;
    }
    opened.users++;
    try {
      await this.#closeIdle();
      await this.#tidy();
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
    const { sync, limits } = file.config;
    const dir = path.join(this.#dir, 'syncs', sync);
    const opening = this.#disks.get(sync) ?? this.#openDisks(dir);
    this.#disks.set(sync, opening);
    let disks: LocalDisks;
    try {
      disks = await opening;
    } catch (error) {
      if (this.#disks.get(sync) === opening) this.#disks.delete(sync);
      throw error;
    }
    disks.limit(limits.downloadBytesPerSecond);
    const places = new Places(file, {
      stateDir: dir,
      digests: this.#ledger.digests,
      owner: `worker@${this.#place}`,
      signal: this.#signal,
    });
    return { places, disks, dir, users: 0 };
  }

  async #openDisks(dir: string): Promise<LocalDisks> {
    const disks = new LocalDisks({
      dir: path.join(dir, 'images'),
      remember: (digest, facts) => this.#ledger.rememberRaw(digest, facts),
    });
    await makeDir(dir);
    await disks.start();
    return disks;
  }

  async #tidy(): Promise<void> {
    if (performance.now() - this.#tidiedAt < TIDY_MS) return;
    this.#tidiedAt = performance.now();
    for (const opening of this.#disks.values()) await (await opening.catch(() => undefined))?.removeOld();
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
