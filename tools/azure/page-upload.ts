/** Sends the pages of a fixed VHD that hold data; the footer last, so that what is half there is no VHD. */
import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import type { PageBlobClient } from '@azure/storage-blob';
import type { ByteRange } from '../../core/disk-source.ts';
import { PortError } from '../../core/errors.ts';
import { withRetries } from '../openstack/retry.ts';
import { map } from '../qemu-img.ts';
import { azureError } from './errors.ts';
import { blocksOf, dataRuns, PAGE_BYTES, readExactly } from './page-runs.ts';

/** Puts at a time; each holds 4 MiB at most. */
const LANES = 8;
/** On top of the SDK's own tries, for what it does not try again (429). */
const RETRIES = 3;

/** What to send where. */
export interface PageUpload {
  blob: PageBlobClient;
  /** Fixed VHD. */
  file: string;
  /** Its size, footer included. */
  bytes: number;
  /** The lease under which is written, if any. */
  leaseId?: string | undefined;
  /** Blocks of 4 MiB known to be there. */
  done: ReadonlySet<number>;
  /** All data of a block was acknowledged by the service; not called for blocks of zeros. */
  onBlock(index: number): Promise<void>;
  signal: AbortSignal;
  onProgress(doneBytes: number, totalBytes: number): void;
}

/** What was sent. */
export interface PagesSent {
  /** Bytes sent by this call. */
  sentBytes: number;
  /** Bytes of the file that are allocated: what a program that knows of holes would send. */
  allocatedBytes: number;
}

async function put(upload: PageUpload, data: Buffer, offset: number): Promise<void> {
  const { blob, leaseId, signal } = upload;
  const conditions = leaseId === undefined ? {} : { conditions: { leaseId } };
  await withRetries(
    async () => {
      try {
        await blob.uploadPages(data, offset, data.length, {
          ...conditions,
          abortSignal: signal,
          // the service refuses pages that do not have it
          transactionalContentMD5: createHash('md5').update(data).digest(),
        });
      } catch (error) {
        throw azureError(error, `sending ${data.length} bytes at ${offset}`, signal);
      }
    },
    { signal, retries: RETRIES },
  );
}

async function sendBlock(
  upload: PageUpload,
  handle: fs.FileHandle,
  parts: readonly ByteRange[],
): Promise<number> {
  let sent = 0;
  for (const part of parts) {
    const data = await readExactly(handle, part);
    for (const run of dataRuns(data)) {
      const piece = data.subarray(run.startBytes, run.startBytes + run.lengthBytes);
      await put(upload, piece, part.startBytes + run.startBytes);
      sent += piece.length;
    }
  }
  return sent;
}

/**
 * Sends what is not known to be there. The first failure stops all lanes; what was acknowledged until then has been told
 * to `onBlock`. Throws CLOUD, CLOUD_LOGIN, CLOUD_REFUSED, CLOUD_CONFLICT, DAMAGED, HOST_IO, INTERRUPTED.
 */
export async function uploadPages(upload: PageUpload): Promise<PagesSent> {
  const { file, bytes, done, signal } = upload;
  if (bytes % PAGE_BYTES !== 0) throw new PortError('BUG', `a fixed VHD of ${bytes} bytes`);
  const footerAt = bytes - PAGE_BYTES;
  const blocks = blocksOf(await map({ path: file, format: 'raw' }, { signal }), footerAt);
  const sizeOf = (parts: readonly ByteRange[]) => parts.reduce((sum, part) => sum + part.lengthBytes, 0);
  const allocatedBytes = [...blocks.values()].reduce((sum, parts) => sum + sizeOf(parts), PAGE_BYTES);
  const waiting = [...blocks].filter(([index]) => !done.has(index));
  let doneBytes = allocatedBytes - waiting.reduce((sum, [, parts]) => sum + sizeOf(parts), 0);
  let sentBytes = 0;
  let failed = false;
  const handle = await fs.open(file, 'r');
  try {
    const lane = async () => {
      for (let next = waiting.shift(); next !== undefined && !failed; next = waiting.shift()) {
        signal.throwIfAborted();
        const [index, parts] = next;
        const sent = await sendBlock(upload, handle, parts);
        sentBytes += sent;
        if (sent > 0) await upload.onBlock(index);
        doneBytes += sizeOf(parts);
        upload.onProgress(doneBytes, allocatedBytes);
      }
    };
    const guarded = () =>
      lane().catch((error: unknown) => {
        failed = true;
        throw error;
      });
    const ends = await Promise.allSettled(Array.from({ length: LANES }, guarded));
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
    await put(upload, await readExactly(handle, { startBytes: footerAt, lengthBytes: PAGE_BYTES }), footerAt);
    return { sentBytes: sentBytes + PAGE_BYTES, allocatedBytes };
  } catch (error) {
    throw signal.aborted ? new PortError('INTERRUPTED', 'interrupted', { cause: error }) : error;
  } finally {
    await handle.close();
  }
}
