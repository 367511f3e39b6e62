/** The unfinished file of a download and the note beside it: what it holds the start of, and how much is surely on the disk. */
import { createHash, type Hash } from 'node:crypto';
import { constants } from 'node:fs';
import * as fs from 'node:fs/promises';
import * as z from 'zod';
import { FILE_MODE, renameDurable, writeFull, writeJson } from '../../core/files.ts';
import { MIB } from '../../core/sizes.ts';
import { nonZeroRuns } from '../disk-copy/zeros.ts';
import type { ContentFacts } from './types.ts';

/** After so many bytes the file is flushed: a lost power costs no more than this. */
export const SYNC_BYTES = 64 * MIB;
const PIECE_BYTES = MIB;

const Note = z.object({
  identity: z.string().describe('hash of the source; the URL itself may be a secret'),
  sizeBytes: z.number().int().positive().optional(),
  validator: z.string().optional(),
  syncedBytes: z.number().int().min(0).describe('flushed to the disk'),
  bootId: z.string().describe('of the boot that wrote it: within it, unflushed bytes are safe too'),
});
type Note = z.infer<typeof Note>;

async function bootId(): Promise<string> {
  return (await fs.readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
}

/** A file that grows from its start; zeros become holes. */
export class PartFile {
  readonly #handle: fs.FileHandle;
  readonly #part: string;
  readonly #note: string;
  readonly #identity: string;
  readonly #algorithms: readonly string[];
  readonly #boot: string;
  #hashes: Hash[];
  readonly #piece = Buffer.allocUnsafeSlow(PIECE_BYTES);
  #filled = 0;
  #written = 0;
  #syncedBytes = 0;
  facts: ContentFacts;

  private constructor(
    handle: fs.FileHandle,
    place: { part: string; identity: string; boot: string },
    facts: ContentFacts,
    algorithms: readonly string[],
  ) {
    this.#handle = handle;
    this.#part = place.part;
    this.#note = `${place.part}.json`;
    this.#identity = place.identity;
    this.#boot = place.boot;
    this.facts = facts;
    this.#algorithms = algorithms;
    this.#hashes = algorithms.map((name) => createHash(name));
  }

  /**
   * Opens `target.part`. What an earlier run left is kept when it is of the same source, size and validator, and is read
   * again for the digests. Without a validator nothing is kept unless `keepAnyway`: then a digest tells in the end.
   */
  static async open(
    target: string,
    identity: string,
    facts: ContentFacts,
    options: { algorithms: readonly string[]; keepAnyway: boolean; signal: AbortSignal | undefined },
  ): Promise<PartFile> {
    const part = `${target}.part`;
    const boot = await bootId();
    const note = await readNote(`${part}.json`);
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW;
    const handle = await fs.open(part, flags, FILE_MODE);
    try {
      await handle.chmod(FILE_MODE);
      const file = new PartFile(handle, { part, identity, boot }, facts, options.algorithms);
      const isSame =
        note?.identity === identity &&
        note.sizeBytes === facts.sizeBytes &&
        note.validator === facts.validator &&
        (facts.validator !== undefined || options.keepAnyway);
      const { size } = await handle.stat();
      const held = isSame ? Math.min(size, note.bootId === boot ? size : note.syncedBytes) : 0;
      // more than the whole: not what we wrote
      const kept = held > (facts.sizeBytes ?? held) ? 0 : held;
      await handle.truncate(kept);
      await file.#readAgain(kept, options.signal);
      await file.sync();
      return file;
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  /** Bytes it holds. */
  get bytes(): number {
    return this.#written + this.#filled;
  }

  async #readAgain(lengthBytes: number, signal: AbortSignal | undefined): Promise<void> {
    while (this.#written < lengthBytes) {
      signal?.throwIfAborted();
      const want = Math.min(PIECE_BYTES, lengthBytes - this.#written);
      const { bytesRead } = await this.#handle.read(this.#piece, 0, want, this.#written);
      if (bytesRead === 0) break;
      for (const hash of this.#hashes) hash.update(this.#piece.subarray(0, bytesRead));
      this.#written += bytesRead;
    }
  }

  /** Adds bytes. */
  async append(data: Buffer): Promise<void> {
    for (let at = 0; at < data.length; ) {
      const count = data.copy(this.#piece, this.#filled, at);
      this.#filled += count;
      at += count;
      if (this.#filled === PIECE_BYTES) await this.flush();
    }
    if (this.#written - this.#syncedBytes >= SYNC_BYTES) await this.sync();
  }

  /** Hands what was collected to the system. */
  async flush(): Promise<void> {
    const data = this.#piece.subarray(0, this.#filled);
    for (const hash of this.#hashes) hash.update(data);
    for (const { startBytes, lengthBytes } of nonZeroRuns(data)) {
      await writeFull(
        this.#handle,
        data.subarray(startBytes, startBytes + lengthBytes),
        this.#written + startBytes,
      );
    }
    this.#written += this.#filled;
    this.#filled = 0;
  }

  /** Flushes to the disk, then notes how far it is. */
  async sync(): Promise<void> {
    await this.flush();
    // zeros at the end were not written
    await this.#handle.truncate(this.#written);
    await this.#handle.sync();
    this.#syncedBytes = this.#written;
    const note: Note = {
      identity: this.#identity,
      ...this.facts,
      syncedBytes: this.#syncedBytes,
      bootId: this.#boot,
    };
    await writeJson(this.#note, note);
  }

  /** Throws away what it holds: other content begins. */
  async restart(facts: ContentFacts): Promise<void> {
    this.facts = facts;
    this.#filled = 0;
    this.#written = 0;
    this.#hashes = this.#algorithms.map((name) => createHash(name));
    await this.#handle.truncate(0);
    await this.sync();
  }

  /** Ends the content: digests in hex, in the order of the algorithms. */
  async finish(): Promise<string[]> {
    await this.sync();
    return this.#hashes.map((hash) => hash.digest('hex'));
  }

  /** Gives it its name. */
  async rename(target: string): Promise<void> {
    await renameDurable(this.#part, target);
    await fs.rm(this.#note, { force: true });
  }

  /** Removes file and note. */
  async remove(): Promise<void> {
    await fs.rm(this.#part, { force: true });
    await fs.rm(this.#note, { force: true });
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

async function readNote(file: string): Promise<Note | undefined> {
  try {
    const { size } = await fs.stat(file);
    if (size > 64 * 1024) return undefined;
    return Note.safeParse(JSON.parse(await fs.readFile(file, 'utf8'))).data;
  } catch {
    // none, or cut: then nothing is kept
    return undefined;
  }
}
