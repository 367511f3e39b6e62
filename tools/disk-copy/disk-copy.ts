/** An open copy of a disk: its blocks, and the order in which they become safe. */
import { createHash } from 'node:crypto';
import type * as fs from 'node:fs/promises';
import { BLOCK_BYTES, type ByteRange } from '../../core/disk-source.ts';
import { asPortError, PortError } from '../../core/errors.ts';
import { writeFull } from '../../core/files.ts';
import { printable } from '../../core/text.ts';
import { type BadParts, badRangesOf, writeBadList } from './bad-list.ts';
import type { IndexFile } from './index-file.ts';
import { type CheckOptions, differingBlocks } from './local-check.ts';
import { clear, nonZeroRuns, zeroSum } from './zeros.ts';

/** State of a block: `missing`: its bytes are not here or may be anything. */
export type BlockState = 'missing' | 'zero' | 'data' | 'bad';

/** What is known of a block. */
export interface CopiedBlock {
  state: BlockState;
  /** Of the whole block; undefined when it is missing. Valid until the block changes. */
  sha256: Buffer | undefined;
  /** The pass that read it last. */
  pass: number;
}

/** A copied block to store. */
export interface StoredBlock {
  index: number;
  /** The whole block. */
  data: Buffer;
  /** Of `data`. */
  sha256: Buffer;
  /** The pass that read it. */
  pass: number;
  /** Parts that could not be read, offsets from the start of the block. */
  bad: readonly ByteRange[];
}

/** Data that is written but not yet in the index: at most this much, or as much as comes in this time. */
const COMMIT_BYTES = 64 * 1024 * 1024;
const COMMIT_MS = 2_000;

interface Commit {
  blocks: Set<number>;
  done: Promise<void>;
}

/** An open copy. Calls that change it are made one after the other. */
export class DiskCopy {
  /** The sparse file, of the size of the disk. */
  readonly rawPath: string;
  readonly sizeBytes: number;
  readonly blockCount: number;
  readonly #raw: fs.FileHandle;
  readonly #index: IndexFile;
  readonly #badFile: string;
  readonly #bad: BadParts;
  #badChanged = false;
  #present = 0;
  #pending = new Set<number>();
  #pendingBytes = 0;
  /** Blocks that must read as zeros before they are committed. */
  #toClear = new Set<number>();
  #commit: Commit | undefined;
  #timer: NodeJS.Timeout | undefined;
  #failure: PortError | undefined;

  constructor(rawPath: string, raw: fs.FileHandle, index: IndexFile, badFile: string, bad: BadParts) {
    this.rawPath = rawPath;
    this.#raw = raw;
    this.#index = index;
    this.#badFile = badFile;
    this.#bad = bad;
    this.sizeBytes = index.header.sizeBytes;
    this.blockCount = index.blockCount;
    for (let i = 0; i < this.blockCount; i++) if (this.state(i) !== 'missing') this.#present++;
  }

  /** Blocks that are here. */
  get presentBlocks(): number {
    return this.#present;
  }

  /** Bytes of a block: all have the same but the last one. */
  lengthOf(index: number): number {
    return Math.min(BLOCK_BYTES, this.sizeBytes - index * BLOCK_BYTES);
  }

  /** State of a block. */
  state(index: number): BlockState {
    const state = this.#index.state(index);
    return state === 'hole' || state === 'unknown' ? 'missing' : state;
  }

  /** What is known of a block. */
  block(index: number): CopiedBlock {
    const { pass, sha256 } = this.#index.get(index);
    const state = this.state(index);
    return { state, sha256: state === 'missing' ? undefined : sha256, pass };
  }

  /** True when the block reads as zeros here because nothing was ever written to it. */
  isHole(index: number): boolean {
    return this.#index.state(index) === 'hole';
  }

  /** Stores a block that holds data. Throws DISK_SPACE, HOST_IO. */
  async write(block: StoredBlock): Promise<void> {
    const { index, data, sha256, pass, bad } = block;
    if (data.length !== this.lengthOf(index))
      throw new PortError('BUG', `block ${index}: ${data.length} bytes`);
    const before = this.#index.state(index);
    await this.#touch(index);
    await this.#doubt(index);
    const start = index * BLOCK_BYTES;
    // where zeros are, nothing needs to be stored
    const empty = before === 'hole' || before === 'zero';
    const runs = empty ? nonZeroRuns(data) : [{ startBytes: 0, lengthBytes: data.length }];
    for (const { startBytes, lengthBytes } of runs) {
      const piece = data.subarray(startBytes, startBytes + lengthBytes);
      await this.#attempt(() => writeFull(this.#raw, piece, start + startBytes));
    }
    this.#setBad(index, bad);
    this.#settle(index, bad.length > 0 ? 'bad' : 'data', pass, sha256, data.length);
    if (this.#pendingBytes >= COMMIT_BYTES) await this.#startCommit();
  }

  /** Says that a block reads as zeros; `bad` parts, if any, read as zeros here because they could not be read. */
  async zero(index: number, pass: number, bad: readonly ByteRange[] = []): Promise<void> {
    await this.#touch(index);
    const before = this.#index.state(index);
    if (before !== 'hole' && before !== 'zero') {
      await this.#doubt(index);
      this.#toClear.add(index);
    }
    this.#setBad(index, bad);
    this.#settle(index, bad.length > 0 ? 'bad' : 'zero', pass, zeroSum(this.lengthOf(index)), 0);
  }

  /** Says that a block was read again and is as it was. */
  async keep(index: number, pass: number, bad: readonly ByteRange[]): Promise<void> {
    await this.#touch(index);
    const { state, sha256 } = this.block(index);
    if (state === 'missing' || sha256 === undefined) throw new PortError('BUG', `block ${index} is not here`);
    this.#setBad(index, bad);
    const good = sha256.equals(zeroSum(this.lengthOf(index))) ? 'zero' : 'data';
    const healed = state === 'bad' ? good : state;
    this.#settle(index, bad.length > 0 ? 'bad' : healed, pass, Buffer.from(sha256), 0);
  }

  /** Offsets on the disk of what could not be read, ascending, touching ones joined. */
  badRanges(): ByteRange[] {
    return badRangesOf(this.#bad);
  }

  /** Makes everything that was stored safe. Throws DISK_SPACE, HOST_IO. */
  async flush(): Promise<void> {
    await this.#startCommit();
    await this.#commit?.done;
    this.#refuseAfterFailure();
  }

  /** sha256 over the sha256 of all blocks in order, in hex; blocks that are not here count as zeros. */
  treeDigest(): string {
    const hash = createHash('sha256');
    const sums: Buffer[] = [];
    for (let i = 0; i < this.blockCount; i++) {
      sums.push(this.block(i).sha256 ?? zeroSum(this.lengthOf(i)));
      if (sums.length === 1024) hash.update(Buffer.concat(sums.splice(0)));
    }
    return hash.update(Buffer.concat(sums)).digest('hex');
  }

  /** Reads the whole copy and compares it with the index. Throws DAMAGED naming the block, HOST_IO, INTERRUPTED. */
  async verifyAll(options: CheckOptions = {}): Promise<void> {
    await this.flush();
    try {
      for await (const block of differingBlocks(this.rawPath, this.#raw, this.#index, options)) {
        throw new PortError(
          'DAMAGED',
          `${printable(this.rawPath)} is not what was captured: block ${block} at byte ${block * BLOCK_BYTES}`,
          { hint: 'check the disk of this machine, then capture again: only what differs is copied' },
        );
      }
    } catch (error) {
      throw asPortError(error);
    }
  }

  /** Makes everything safe and closes the files. Throws what `flush` throws. */
  async close(): Promise<void> {
    try {
      if (this.#failure === undefined) await this.flush();
    } finally {
      clearTimeout(this.#timer);
      await this.#commit?.done.catch(() => {});
      await this.#raw.close();
      await this.#index.close();
    }
  }

  /** What is on its way into the index, and must stay as it is until it is there, is waited for. */
  async #touch(index: number): Promise<void> {
    if (this.#toClear.has(index)) await this.#startCommit();
    if (this.#commit?.blocks.has(index)) await this.#commit.done;
    this.#refuseAfterFailure();
  }

  /** From now on until the next commit the index says nothing of this block. */
  async #doubt(index: number): Promise<void> {
    if (this.#index.state(index) === 'unknown') return;
    if (this.state(index) !== 'missing') this.#present--;
    this.#pending.delete(index);
    this.#index.set(index, 'unknown', 0, Buffer.alloc(32));
    await this.#attempt(() => this.#index.put([index]));
  }

  #setBad(index: number, bad: readonly ByteRange[]): void {
    if (bad.length === 0 && !this.#bad.has(index)) return;
    if (bad.length > 0) this.#bad.set(index, bad);
    else this.#bad.delete(index);
    this.#badChanged = true;
  }

  #settle(index: number, state: 'zero' | 'data' | 'bad', pass: number, sha256: Buffer, bytes: number): void {
    if (this.state(index) === 'missing') this.#present++;
    this.#index.set(index, state, pass, sha256);
    this.#pending.add(index);
    this.#pendingBytes += bytes;
    this.#timer ??= setTimeout(() => void this.#startCommit().catch(() => {}), COMMIT_MS).unref();
  }

  /** Starts to make safe what is pending, after the commit before ended. New blocks may be stored meanwhile. */
  async #startCommit(): Promise<void> {
    while (this.#commit !== undefined) await this.#commit.done;
    this.#refuseAfterFailure();
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#pending.size === 0) return;
    const blocks = this.#pending;
    const clearing = this.#toClear;
    this.#pending = new Set();
    this.#toClear = new Set();
    this.#pendingBytes = 0;
    const done = this.#attempt(() => this.#makeSafe(blocks, clearing)).then(
      () => {
        this.#commit = undefined;
      },
      (error: PortError) => {
        // what the kernel could not write it forgets, and the next sync would succeed: nothing is trusted any more
        this.#failure = error;
        this.#commit = undefined;
      },
    );
    this.#commit = { blocks, done };
  }

  async #makeSafe(blocks: ReadonlySet<number>, clearing: ReadonlySet<number>): Promise<void> {
    for (const range of this.#runsOf(clearing)) await clear(this.#raw, this.rawPath, range);
    if (this.#badChanged) {
      this.#badChanged = false;
      await writeBadList(this.#badFile, this.#bad);
    }
    await this.#raw.datasync();
    await this.#index.put([...blocks].sort((a, b) => a - b));
    await this.#index.sync();
  }

  #runsOf(blocks: ReadonlySet<number>): ByteRange[] {
    const runs: ByteRange[] = [];
    for (const block of [...blocks].sort((a, b) => a - b)) {
      const startBytes = block * BLOCK_BYTES;
      const last = runs.at(-1);
      if (last !== undefined && last.startBytes + last.lengthBytes === startBytes) {
        last.lengthBytes += this.lengthOf(block);
      } else runs.push({ startBytes, lengthBytes: this.lengthOf(block) });
    }
    return runs;
  }

  #refuseAfterFailure(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  async #attempt<T>(action: () => Promise<T>): Promise<T> {
    try {
      return await action();
    } catch (error) {
      throw hostError(error, this.rawPath);
    }
  }
}

/** Failures of files of the copy; no room is told with the name of the file. */
export function hostError(error: unknown, file: string): PortError {
  const code = (error as NodeJS.ErrnoException).code;
  if (code !== 'ENOSPC' && code !== 'EDQUOT') return asPortError(error);
  return new PortError('DISK_SPACE', `no space left on this machine for ${printable(file)}`, {
    cause: error,
    hint: 'free some space, then resume the job',
  });
}
