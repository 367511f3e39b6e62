/**
 * The disk as a page blob: as much as possible copied by the service from the version before, the rest sent, and everything that
 * was not copied read back. What an earlier run sent is found by reading it, so no journal is needed, on whatever machine.
 */
import { createHash } from 'node:crypto';
import PQueue from 'p-queue';
import { asPortError, PortError } from '../../../core/errors.ts';
import { MIB } from '../../../core/sizes.ts';
import type { BlockIndex } from '../../../core/sync/block-index.ts';
import type { CreateInput } from '../../../core/sync/types.ts';
import { FOOTER_BYTES, fixedFooter } from '../../../tools/azure/fixed-footer.ts';
import { storedRanges } from '../../../tools/azure/page-proof.ts';
import { clearRange, type LeasedPages, putRange, readRange } from '../../../tools/azure/page-ranges.ts';
import { dataRuns } from '../../../tools/azure/page-runs.ts';
import { Pace } from '../../../tools/blocks/pace.ts';
import { VerifiedReader } from '../../../tools/blocks/verified-reader.ts';
import { asked } from '../place.ts';

/** Requests under way; each holds a block. */
const LANES = 8;

/** What was sent and proved. */
export interface ContentSent {
  sentBytes: number;
  changedBytes: number;
  /** Blocks nothing was sent for because the service had them. */
  copiedBlocks: number;
  readBackBytes: number;
}

/** Virtual size a VHD of Azure may have: whole MiB (Microsoft Learn, "Prepare a Linux VHD for upload"). */
export const paddedBytes = (virtualBytes: number): number => Math.ceil(virtualBytes / MIB) * MIB;

const digests = (index: BlockIndex): Map<number, string> =>
  new Map(Array.from(index.numbers, (number, at) => [number, index.digestAt(at)]));

/** One disk in one blob, held by a lease. */
export class Content {
  readonly #input: CreateInput;
  readonly #pages: LeasedPages;
  readonly #wanted: Map<number, string>;
  readonly #diskBytes: number;
  readonly #blockBytes: number;

  constructor(input: CreateInput, pages: LeasedPages) {
    const { index, virtualBytes } = input.disk;
    this.#input = input;
    this.#pages = pages;
    this.#wanted = digests(index);
    this.#diskBytes = paddedBytes(virtualBytes);
    this.#blockBytes = index.blockBytes;
  }

  /** Where a block lies, within the disk. */
  #range(number: number): { offset: number; length: number } {
    const offset = number * this.#blockBytes;
    return { offset, length: Math.min(this.#blockBytes, this.#diskBytes - offset) };
  }

  /**
   * Brings the blob to the disk. `base` is what the copied part shows; undefined when nothing is known of what is there. Throws
   * CLOUD_MISMATCH when what was sent came back different.
   */
  async bring(base: BlockIndex | undefined, isNew: boolean): Promise<ContentSent> {
    const { signal } = this.#pages;
    await this.#prepare(base);
    const known = base === undefined ? new Map<number, string>() : digests(base);
    const changed = [...this.#wanted.keys()].filter((n) => known.get(n) !== this.#wanted.get(n));
    const stored = isNew && base === undefined ? new Set<number>() : await this.#storedBlocks();
    // What lies in a block that is sent in parts must not show through.
    const stale = [...stored].filter((n) => !this.#wanted.has(n));
    const there = isNew ? new Set<number>() : await this.#equalBlocks(changed.filter((n) => stored.has(n)));
    await this.#each(stale, 'clearing', async (number) => {
      const { offset, length } = this.#range(number);
      if (length > 0) await clearRange(this.#pages, offset, length);
    });
    const missing = changed.filter((n) => !there.has(n));
    const sentBytes = await this.#send(missing, stored);
    const equal = await this.#equalBlocks(missing);
    const wrong = missing.find((n) => !equal.has(n));
    if (wrong !== undefined) throw mismatch(`block ${wrong} came back different`);
    await this.#proveShape();
    const footer = this.#footer();
    await putRange(this.#pages, footer, this.#diskBytes);
    const back = await readRange(this.#pages.blob, this.#diskBytes, FOOTER_BYTES, signal);
    if (!back.equals(footer)) throw mismatch('its footer came back different');
    const readBackBytes = changed.reduce((sum, n) => sum + this.#range(n).length, FOOTER_BYTES);
    return {
      sentBytes: sentBytes + FOOTER_BYTES,
      changedBytes: changed.length * this.#blockBytes,
      copiedBlocks: this.#wanted.size - changed.length,
      readBackBytes,
    };
  }

  #footer(): Buffer {
    const { rawSha256 } = this.#input.identity;
    return fixedFooter(this.#diskBytes, createHash('sha256').update(`vhd ${rawSha256}`).digest());
  }

  /** No footer anywhere, and the right size: half of a disk is no VHD. Data sent before is looked at after it. */
  async #prepare(base: BlockIndex | undefined): Promise<void> {
    const { blob, leaseId, signal } = this.#pages;
    const { contentLength = 0 } = await asked('the blob', signal, () =>
      blob.getProperties({ abortSignal: signal }),
    );
    const footers = new Set([contentLength - FOOTER_BYTES, this.#diskBytes]);
    if (base !== undefined) footers.add(paddedBytes(base.virtualBytes));
    for (const at of footers)
      if (at >= 0 && at + FOOTER_BYTES <= contentLength) await clearRange(this.#pages, at, FOOTER_BYTES);
    const bytes = this.#diskBytes + FOOTER_BYTES;
    if (contentLength === bytes) return;
    await asked('changing the size of the blob', signal, () =>
      blob.resize(bytes, { abortSignal: signal, conditions: { leaseId } }),
    );
  }

  /** Blocks the service stores pages of. */
  async #storedBlocks(): Promise<Set<number>> {
    const stored = new Set<number>();
    for (const { startBytes, lengthBytes } of await storedRanges(this.#pages.blob, this.#pages.signal)) {
      const end = Math.min(startBytes + lengthBytes, this.#diskBytes);
      for (let n = Math.floor(startBytes / this.#blockBytes); n * this.#blockBytes < end; n++) stored.add(n);
    }
    return stored;
  }

  /** Those of these blocks that read as they should. */
  async #equalBlocks(numbers: readonly number[]): Promise<Set<number>> {
    const equal = new Set<number>();
    await this.#each(numbers, 'reading back', async (number) => {
      const { offset, length } = this.#range(number);
      const data = await readRange(this.#pages.blob, offset, length, this.#pages.signal);
      const hash = createHash('sha256').update(data);
      if (length < this.#blockBytes) hash.update(Buffer.alloc(this.#blockBytes - length));
      if (hash.digest('hex') === this.#wanted.get(number)) equal.add(number);
    });
    return equal;
  }

  /** Sends blocks: whole where something is stored, else without their zeros. */
  async #send(numbers: readonly number[], stored: ReadonlySet<number>): Promise<number> {
    const pace = new Pace(this.#input.uploadBytesPerSecond);
    const reader = await VerifiedReader.open(this.#input.disk);
    let sentBytes = 0;
    try {
      await this.#each(numbers, 'sending', async (number) => {
        const { offset, length } = this.#range(number);
        const block = await reader.block(number);
        if (block === undefined) throw new PortError('BUG', `block ${number} is not in the index`);
        const data = block.subarray(0, length);
        const runs = stored.has(number) ? [{ startBytes: 0, lengthBytes: length }] : dataRuns(data);
        for (const { startBytes, lengthBytes } of runs) {
          await pace.wait(lengthBytes, this.#pages.signal);
          await putRange(
            this.#pages,
            data.subarray(startBytes, startBytes + lengthBytes),
            offset + startBytes,
          );
          sentBytes += lengthBytes;
        }
      });
    } finally {
      await reader.close();
    }
    return sentBytes;
  }

  /** Every block that holds something is stored, and nothing else is. */
  async #proveShape(): Promise<void> {
    const stored = await this.#storedBlocks();
    const missing = [...this.#wanted.keys()].find((n) => !stored.has(n));
    if (missing !== undefined) throw mismatch(`block ${missing} is not stored`);
    const left = [...stored].find((n) => !this.#wanted.has(n));
    if (left !== undefined) throw mismatch(`block ${left} should be zeros`);
  }

  async #each(
    numbers: readonly number[],
    what: string,
    work: (number: number) => Promise<void>,
  ): Promise<void> {
    const { signal } = this.#pages;
    const queue = new PQueue({ concurrency: LANES });
    let failure: unknown;
    let done = 0;
    const totalBytes = numbers.length * this.#blockBytes;
    for (const number of numbers) {
      await queue.onSizeLessThan(LANES);
      if (failure !== undefined || signal.aborted) break;
      queue
        .add(async () => {
          await work(number);
          done += this.#blockBytes;
          this.#input.progress({
            text: `${what} ${this.#input.identity.series}`,
            doneBytes: done,
            totalBytes,
          });
        })
        .catch((error: unknown) => {
          failure ??= error;
        });
    }
    await queue.onIdle();
    if (signal.aborted) throw new PortError('INTERRUPTED', 'interrupted', { cause: signal.reason });
    if (failure !== undefined) throw asPortError(failure);
  }
}

function mismatch(text: string): PortError {
  return new PortError('CLOUD_MISMATCH', `the uploaded disk is not the image: ${text}`, {
    hint: 'run it again; what is wrong there is found and sent again',
  });
}
