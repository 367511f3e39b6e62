/** Reads a disk whose blocks are known: what is not as its index says is never handed on. */
import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { PortError } from '../../core/errors.ts';
import type { LocalDisk } from '../../core/sync/types.ts';
import { readBlock } from './index-disk.ts';

/** Blocks kept for readers of parts of them; lanes of an upload are near each other. */
const KEPT_BLOCKS = 24;

/** Whole blocks of a disk, each compared with its digest. Close it. */
export class VerifiedReader {
  readonly #handle: fs.FileHandle;
  readonly #disk: LocalDisk;
  readonly #positions: ReadonlyMap<number, number>;
  readonly #kept = new Map<number, Promise<Buffer>>();

  private constructor(handle: fs.FileHandle, disk: LocalDisk) {
    this.#handle = handle;
    this.#disk = disk;
    this.#positions = new Map(Array.from(disk.index.numbers, (number, position) => [number, position]));
  }

  /** Throws what opening a file throws. */
  static async open(disk: LocalDisk): Promise<VerifiedReader> {
    return new VerifiedReader(await fs.open(disk.rawPath, 'r'), disk);
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }

  /** One block, with zeros behind the end of the disk; undefined for one of zeros. Throws SOURCE_CHANGED. */
  async block(number: number): Promise<Buffer | undefined> {
    const position = this.#positions.get(number);
    if (position === undefined) return undefined;
    const known = this.#kept.get(number);
    if (known !== undefined) return known;
    const read = this.#read(number, position);
    // whoever waits for it is told; kept for others it must not end the process
    read.catch(() => {});
    this.#kept.set(number, read);
    const [oldest] = this.#kept.keys();
    if (this.#kept.size > KEPT_BLOCKS && oldest !== undefined) this.#kept.delete(oldest);
    return read;
  }

  /** Fills `target` with the disk's bytes from `offset` on. Throws SOURCE_CHANGED. */
  async fill(target: Buffer, offset: number): Promise<void> {
    const { blockBytes } = this.#disk.index;
    for (let done = 0; done < target.length; ) {
      const number = Math.floor((offset + done) / blockBytes);
      const from = offset + done - number * blockBytes;
      const length = Math.min(blockBytes - from, target.length - done);
      const block = await this.block(number);
      if (block === undefined) target.fill(0, done, done + length);
      else block.copy(target, done, from, from + length);
      done += length;
    }
  }

  async #read(number: number, position: number): Promise<Buffer> {
    const { blockBytes } = this.#disk.index;
    const buffer = Buffer.allocUnsafe(blockBytes);
    await readBlock(this.#handle, number, buffer, this.#disk.virtualBytes);
    if (createHash('sha256').update(buffer).digest('hex') !== this.#disk.index.digestAt(position))
      throw new PortError('SOURCE_CHANGED', `the disk changed since it was read, in its block ${number}`);
    return buffer;
  }
}
