/**
 * The lock of an image that is being made: an object in the bucket. It is made when there is none and renewed and taken over only as it was
 * last seen (`ifGenerationMatch`), so of two runs one has it, and who lost it knows.
 */
import { randomUUID } from 'node:crypto';
import { PortError } from '../../../core/errors.ts';
import { isoDate } from '../../../core/sync/dates.ts';
import { busy, isBusy } from '../../../core/sync/owner.ts';
import {
  type CreateInput,
  type ImageIdentity,
  SYNC_WORD,
  type TargetImage,
} from '../../../core/sync/types.ts';
import type { GcsBucket, GcsObject } from '../../../tools/gcp/bucket.ts';
import { GcpError } from '../../../tools/gcp/errors.ts';
import { withRetries } from '../../../tools/openstack/retry.ts';
import { type GcpPlaceOfSync, lockName } from './archive.ts';
import { markOf } from './marks.ts';

/** Signs of life until others take a run for dead. */
const SIGNS = 5;
/** A run that is stopped does not wait longer for a cloud that does not answer. */
const RELEASE_MS = 20_000;

/** What a lock says; undefined for an object that is none of this sync. */
export function lockedImage(object: GcsObject, of: GcpPlaceOfSync): TargetImage | undefined {
  const { metadata } = object;
  const identity: ImageIdentity = {
    series: metadata.series ?? '',
    version: metadata.version ?? '',
    rawSha256: metadata.sha256 ?? '',
  };
  const isForm =
    SYNC_WORD.test(identity.series) &&
    SYNC_WORD.test(identity.version) &&
    /^[0-9a-f]{64}$/.test(identity.rawSha256);
  if (!isForm || object.name !== lockName(of, markOf(of.sync, identity))) return undefined;
  return {
    ...identity,
    ref: object.name,
    name: '',
    fileDigest: metadata.file ?? '',
    state: 'in-progress',
    owner: metadata.owner ?? '',
    aliveAt: metadata.alive ?? '',
    hidden: false,
    hiddenAt: '',
    createdAt: Number.isNaN(object.modifiedMs) ? '' : new Date(object.modifiedMs).toISOString(),
    bytes: 0,
    wanted: '',
    inUse: undefined,
    protected: false,
  };
}

class Lock {
  readonly #bucket: GcsBucket;
  readonly #name: string;
  readonly #input: CreateInput;
  readonly #nonce = randomUUID();
  #generation = '0';

  constructor(of: GcpPlaceOfSync, input: CreateInput) {
    this.#bucket = of.services.bucket;
    this.#name = lockName(of, markOf(of.sync, input.identity));
    this.#input = input;
  }

  /** Throws SYNC_BUSY. */
  async take(): Promise<void> {
    const { owner, staleAfterMs, identity, signal, log } = this.#input;
    const there = await this.#bucket.head(this.#name, signal);
    if (there !== undefined) {
      const { owner: before = '', alive = '' } = there.metadata;
      if (isBusy({ owner: before, aliveAt: alive }, owner, staleAfterMs)) throw busy(identity.series, before);
      log.info('taken over', { before });
      this.#generation = there.generation;
    }
    await this.write(signal).catch((error: unknown) => {
      throw this.#bucket.explainMissing(error);
    });
  }

  /** A sign of life. Throws SYNC_BUSY when somebody else has it now. */
  async write(signal: AbortSignal): Promise<void> {
    const { owner, identity, image } = this.#input;
    const metadata = {
      series: identity.series,
      version: identity.version,
      sha256: identity.rawSha256,
      file: image.fileDigest ?? '',
      owner,
      alive: isoDate(new Date()),
      nonce: this.#nonce,
    };
    const rival = await withRetries(
      async () => {
        try {
          const made = await this.#bucket.put({
            name: this.#name,
            content: async function* () {},
            bytes: 0,
            contentType: 'application/octet-stream',
            metadata,
            onlyOver: this.#generation,
            signal,
          });
          this.#generation = made.generation;
          return undefined;
        } catch (error) {
          if (!(error instanceof GcpError) || error.status !== 412) throw error;
          // The answer of an earlier try may have been lost.
          const there = await this.#bucket.head(this.#name, signal);
          if (there?.metadata.nonce !== this.#nonce) return { owner: there?.metadata.owner ?? '', error };
          this.#generation = there.generation;
          return undefined;
        }
      },
      { signal },
    );
    if (rival !== undefined) throw busy(identity.series, rival.owner, rival.error);
  }

  /** Leaves what somebody else put there meanwhile. */
  async release(): Promise<void> {
    await this.#bucket.remove(this.#name, AbortSignal.timeout(RELEASE_MS), this.#generation);
  }
}

/** Works while the lock is held; its signal ends when another run took it. Throws SYNC_BUSY. */
export async function underLock<T>(
  of: GcpPlaceOfSync,
  input: CreateInput,
  work: (input: CreateInput) => Promise<T>,
): Promise<T> {
  const { log, staleAfterMs } = input;
  const lock = new Lock(of, input);
  await lock.take();
  const lost = new AbortController();
  const signal = AbortSignal.any([input.signal, lost.signal]);
  let last: Promise<unknown> = Promise.resolve();
  const timer = setInterval(
    () => {
      last = last.then(() =>
        lock.write(signal).catch((error: unknown) => {
          if (error instanceof PortError && error.code === 'SYNC_BUSY') lost.abort(error);
          else log.warn('no sign of life', { error: (error as Error).message });
        }),
      );
    },
    Math.max(1000, staleAfterMs / SIGNS),
  );
  try {
    return await work({ ...input, signal });
  } catch (error) {
    throw lost.signal.aborted && !input.signal.aborted ? lost.signal.reason : error;
  } finally {
    clearInterval(timer);
    await last;
    await lock
      .release()
      .catch((error: unknown) => log.warn('lock left behind', { error: (error as Error).message }));
  }
}
