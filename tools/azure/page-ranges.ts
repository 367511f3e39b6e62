/** Ranges of a page blob: put, cleared, read, each tried again when that may heal it. */
import { createHash } from 'node:crypto';
import type { PageBlobClient } from '@azure/storage-blob';
import { withRetries } from '../openstack/retry.ts';
import { azureError } from './errors.ts';
import { PUT_BYTES } from './page-runs.ts';

/** On top of the SDK's own tries, for what it does not try again (429). */
const RETRIES = 3;

/** A page blob that is written under a lease. */
export interface LeasedPages {
  blob: PageBlobClient;
  leaseId: string;
  signal: AbortSignal;
}

async function tried<T>(signal: AbortSignal, what: string, call: () => Promise<T>): Promise<T> {
  return withRetries(
    async () => {
      try {
        return await call();
      } catch (error) {
        throw azureError(error, what, signal);
      }
    },
    { signal, retries: RETRIES },
  );
}

/** Writes bytes, in requests of at most 4 MiB. Offset and length are multiples of 512. */
export async function putRange(
  { blob, leaseId, signal }: LeasedPages,
  data: Buffer,
  offset: number,
): Promise<void> {
  for (let at = 0; at < data.length; at += PUT_BYTES) {
    const piece = data.subarray(at, at + PUT_BYTES);
    await tried(signal, `sending ${piece.length} bytes at ${offset + at}`, () =>
      blob.uploadPages(piece, offset + at, piece.length, {
        abortSignal: signal,
        conditions: { leaseId },
        // the service refuses pages that do not have it
        transactionalContentMD5: createHash('md5').update(piece).digest(),
      }),
    );
  }
}

/** Makes a range read as zeros and cost nothing. */
export async function clearRange(
  { blob, leaseId, signal }: LeasedPages,
  offset: number,
  length: number,
): Promise<void> {
  await tried(signal, `clearing ${length} bytes at ${offset}`, () =>
    blob.clearPages(offset, length, { abortSignal: signal, conditions: { leaseId } }),
  );
}

/** Reads a range. */
export async function readRange(
  blob: PageBlobClient,
  offset: number,
  length: number,
  signal: AbortSignal,
): Promise<Buffer> {
  return tried(signal, `reading ${length} bytes back`, () =>
    blob.downloadToBuffer(offset, length, {
      abortSignal: signal,
      concurrency: 1,
      maxRetryRequestsPerBlock: 5,
    }),
  );
}
