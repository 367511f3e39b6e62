/** Fetches an image from a web server or from Glance into a file, and goes on where it was cut. */
import * as path from 'node:path';
import { PortError } from '../../core/errors.ts';
import { requireFreeSpace } from '../../core/files.ts';
import { pause } from '../../core/pause.ts';
import { formatBytes, MIB } from '../../core/sizes.ts';
import { HttpError } from '../openstack/http.ts';
import { RateLimit } from '../source-machine/rate-limit.ts';
import { PartFile } from './part-file.ts';
import type { ContentFacts, Digest, FetchPlan, OpenedContent } from './types.ts';

export type { FetchSource, PlanOptions } from './plan.ts';
export { planFetch } from './plan.ts';
export type { FetchPlan } from './types.ts';

/** How to fetch. */
export interface FetchOptions {
  signal?: AbortSignal | undefined;
  /** Called as bytes arrive; `totalBytes` is undefined when the server does not tell. */
  onProgress?: ((doneBytes: number, totalBytes: number | undefined) => void) | undefined;
  /** Called before each new attempt. */
  onRetry?: ((error: PortError) => void) | undefined;
  limitBytesPerSecond?: number | undefined;
  /** One more digest the content must have. */
  expect?: Digest | undefined;
  /** Attempts in a row that bring nothing. Default 5. */
  retries?: number | undefined;
}

/** A fetched image. */
export interface FetchedImage {
  sizeBytes: number;
  sha256: string;
  /** True when a digest given by the operator or by Glance was compared. */
  verified: boolean;
  /** Bytes that were there from an earlier run. */
  resumedAtBytes: number;
  /** Bytes that travelled in this run. */
  receivedBytes: number;
}

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 20_000;
/** A server that asks for more patience than this gets its error shown instead. */
const LONGEST_RETRY_AFTER_MS = 120_000;
/** An attempt that brings less is one that brings nothing: a server cannot hold us with a byte for each connection. */
const PROGRESS_BYTES = MIB;
/** Starts from zero, because the content changed or the server gives no parts. */
const MOST_RESTARTS = 5;
/** Free space is looked at each time so much arrived, and this much stays free. */
const SPACE_STEP_BYTES = 256 * MIB;

function pauseMs(error: PortError, failures: number): number {
  const asked = error instanceof HttpError ? error.retryAfterMs : undefined;
  const grown = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (failures - 1));
  return Math.max(asked ?? 0, grown * (0.5 + Math.random() / 2));
}

/** One download under way. */
class Transfer {
  readonly #plan: FetchPlan;
  readonly #file: PartFile;
  readonly #options: FetchOptions;
  readonly #dir: string;
  readonly #limit: RateLimit | undefined;
  #restarts = 0;
  receivedBytes = 0;

  constructor(plan: FetchPlan, file: PartFile, dir: string, options: FetchOptions) {
    this.#plan = plan;
    this.#file = file;
    this.#dir = dir;
    this.#options = options;
    const { limitBytesPerSecond } = options;
    this.#limit = limitBytesPerSecond === undefined ? undefined : new RateLimit(limitBytesPerSecond);
  }

  get #isWhole(): boolean {
    return this.#file.bytes === this.#file.facts.sizeBytes;
  }

  /** Until all is there. */
  async run(): Promise<void> {
    const { signal, retries = 5 } = this.#options;
    let failures = 0;
    while (!this.#isWhole) {
      const before = this.receivedBytes;
      try {
        if (await this.#attempt()) return;
      } catch (error) {
        await this.#file.sync();
        if (signal?.aborted) throw new PortError('INTERRUPTED', 'interrupted', { cause: error });
        if (!(error instanceof PortError) || !error.temporary) throw error;
        failures = this.receivedBytes - before >= PROGRESS_BYTES ? 1 : failures + 1;
        const asked = error instanceof HttpError ? (error.retryAfterMs ?? 0) : 0;
        if (failures > retries || asked > LONGEST_RETRY_AFTER_MS) throw error;
        this.#options.onRetry?.(error);
        await pause(pauseMs(error, failures), signal);
      }
    }
  }

  /** One connection; true when the content ended. */
  async #attempt(): Promise<boolean> {
    const { origin, name } = this.#plan;
    const { signal } = this.#options;
    const opened = await origin.open(this.#file.bytes, this.#file.facts, signal);
    try {
      if (opened.fromBytes !== this.#file.bytes) await this.#startAgain(opened);
      else if (this.#file.bytes === 0) await this.#file.restart(this.#known(opened.facts));
      await this.#receive(opened);
    } finally {
      opened.body.destroy();
    }
    if (this.#file.facts.sizeBytes === undefined || this.#isWhole) return true;
    throw new PortError('SOURCE_REMOTE', `${name}: the answer ended too early`, { temporary: true });
  }

  async #startAgain(opened: OpenedContent): Promise<void> {
    this.#restarts++;
    if (this.#restarts > MOST_RESTARTS) {
      throw new PortError(
        'SOURCE_CHANGED',
        `${this.#plan.name} had to be started again ${MOST_RESTARTS} times: it changes, or breaks off and the server gives no parts`,
        { hint: 'fetch it by other means and give the file as the source' },
      );
    }
    await this.#file.restart(this.#known(opened.facts));
  }

  /** A length that was told once for this content counts, even when a later answer leaves it out. */
  #known(facts: ContentFacts): ContentFacts {
    const { sizeBytes, validator } = this.#file.facts;
    return facts.validator === validator ? { ...facts, sizeBytes: facts.sizeBytes ?? sizeBytes } : facts;
  }

  async #receive({ body }: OpenedContent): Promise<void> {
    const { name } = this.#plan;
    const { onProgress, signal } = this.#options;
    const { sizeBytes } = this.#file.facts;
    let unchecked = SPACE_STEP_BYTES;
    const chunks = body[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
    for (;;) {
      const next = await chunks.next().catch((cause: unknown) => {
        throw new PortError('SOURCE_REMOTE', `${name}: the connection was cut`, { cause, temporary: true });
      });
      if (next.done) return;
      const chunk = next.value;
      signal?.throwIfAborted();
      this.receivedBytes += chunk.length;
      unchecked += chunk.length;
      if (sizeBytes !== undefined && this.#file.bytes + chunk.length > sizeBytes) {
        throw new PortError('SOURCE_REMOTE', `${name} sends more than the ${sizeBytes} bytes it announced`);
      }
      if (unchecked >= SPACE_STEP_BYTES) {
        await requireFreeSpace(this.#dir, SPACE_STEP_BYTES, 'fetching the source');
        unchecked = 0;
      }
      await this.#file.append(chunk);
      onProgress?.(this.#file.bytes, sizeBytes);
      const waitMs = this.#limit?.passed(chunk.length, performance.now()) ?? 0;
      if (waitMs > 1) await pause(waitMs, signal);
    }
  }
}

/** Compares what was computed with what must be. */
function wrongDigest(
  wanted: readonly Digest[],
  algorithms: readonly string[],
  found: readonly string[],
): Digest | undefined {
  return wanted.find(({ algorithm, hex }) => found[algorithms.indexOf(algorithm)] !== hex);
}

/**
 * Fetches the image into `target` (0600), which has this name only when it is whole and its digests are right. An interrupted
 * run leaves `target.part` and `target.part.json`, and the next one goes on from there. Does not close the plan. Throws
 * SOURCE_REMOTE, SOURCE_CHANGED, DAMAGED (wrong digest; nothing is left), DISK_SPACE, INTERRUPTED.
 */
export async function fetchImage(
  plan: FetchPlan,
  target: string,
  options: FetchOptions = {},
): Promise<FetchedImage> {
  const wanted = [...plan.digests, ...(options.expect === undefined ? [] : [options.expect])];
  const algorithms = [...new Set(['sha256', ...wanted.map((digest) => digest.algorithm)])];
  const { signal } = options;
  const keepAnyway = wanted.length > 0;
  const file = await PartFile.open(target, plan.identity, plan.facts, { algorithms, keepAnyway, signal });
  try {
    const dir = path.dirname(target);
    const resumedAtBytes = file.bytes;
    const { sizeBytes = 0 } = plan.facts;
    // holes may make it less; whoever has too little space should know before hours of download
    await requireFreeSpace(
      dir,
      Math.max(0, sizeBytes - resumedAtBytes),
      `fetching ${formatBytes(sizeBytes)}`,
    );
    const transfer = new Transfer(plan, file, dir, options);
    await transfer.run();
    const found = await file.finish();
    const wrong = wrongDigest(wanted, algorithms, found);
    if (wrong !== undefined) {
      await file.remove();
      throw new PortError('DAMAGED', `${plan.name} has not the ${wrong.algorithm} it should have`, {
        hint: 'it was changed or damaged on its way, or the checksum is of another file',
      });
    }
    if (file.bytes === 0) {
      await file.remove();
      throw new PortError('EMPTY_DISK', `${plan.name} is empty`);
    }
    await file.rename(target);
    const [sha256 = ''] = found;
    const { receivedBytes } = transfer;
    return { sizeBytes: file.bytes, sha256, verified: wanted.length > 0, resumedAtBytes, receivedBytes };
  } finally {
    await file.close();
  }
}
