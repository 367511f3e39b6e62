/** Which blocks a snapshot shows: the journal of its upload, kept on this machine and beside the data sets of the target. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { buffer } from 'node:stream/consumers';
import { makeDir, writeFileAtomic } from '../../../core/files.ts';
import type { SyncContext } from '../../../core/sync/types.ts';
import { readBlockJournal, type SnapshotRecord, writeBlockRecord } from '../../../tools/aws/block-journal.ts';
import type { Store } from '../../stores/store.ts';

/** First part of the keys in the store. */
const STORE_ID = 'sync-blocks';
/** 64 TiB in lines of some 55 bytes. */
const MOST_BYTES = 8 * 1024 ** 3;

/** Records of a target, by the mark of the image. */
export class Records {
  readonly #dir: string;
  readonly #store: Store | undefined;
  readonly #region: string;

  constructor(stateDir: string, region: string, store: Store | undefined) {
    this.#dir = path.join(stateDir, `aws-${region}`);
    this.#region = region;
    this.#store = store;
  }

  /** Whether another host finds them as well. */
  get isShared(): boolean {
    return this.#store !== undefined;
  }

  /** Of this machine; the folder is made. */
  async file(mark: string): Promise<string> {
    await makeDir(this.#dir);
    return path.join(this.#dir, `${mark}.blocks`);
  }

  #key(mark: string): string {
    return `${STORE_ID}/aws-${this.#region}/${mark}.blocks`;
  }

  /** The record of a snapshot, from here or the store; undefined when neither has one of that very snapshot. */
  async of(mark: string, snapshot: string, ctx: SyncContext): Promise<SnapshotRecord | undefined> {
    const file = await this.file(mark);
    const here = await readBlockJournal(file);
    if (here?.snapshot === snapshot) return here;
    if (this.#store === undefined) return undefined;
    try {
      const key = this.#key(mark);
      const found = await this.#store.head(key);
      if (found === undefined || found.bytes > MOST_BYTES) return undefined;
      await writeFileAtomic(file, await buffer(await this.#store.get(key, { signal: ctx.signal })));
    } catch (error) {
      ctx.signal.throwIfAborted();
      ctx.log.info('no list of blocks from the store', { error: (error as Error).message });
      return undefined;
    }
    const fetched = await readBlockJournal(file);
    return fetched?.snapshot === snapshot ? fetched : undefined;
  }

  /** Keeps a record that was made otherwise than by an upload. */
  async write(mark: string, record: SnapshotRecord): Promise<void> {
    await writeBlockRecord(await this.file(mark), record);
  }

  /** Puts this machine's record into the store. A failure costs bytes in a later night, nothing else. */
  async share(mark: string, ctx: SyncContext): Promise<void> {
    if (this.#store === undefined) return;
    try {
      const content = await fs.readFile(await this.file(mark));
      const pieces = async function* () {
        yield content;
      };
      await this.#store.put(this.#key(mark), pieces, { bytes: content.length, signal: ctx.signal });
    } catch (error) {
      ctx.signal.throwIfAborted();
      ctx.warn(`the list of blocks is not kept in the store: ${(error as Error).message}`);
    }
  }

  /** Forgets one. */
  async drop(mark: string): Promise<void> {
    await fs.rm(await this.file(mark), { force: true });
    await this.#store?.remove(this.#key(mark)).catch(() => {});
  }

  async close(): Promise<void> {
    await this.#store?.close?.();
  }
}
