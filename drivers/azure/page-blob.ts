/** A VHD as a page blob: made, filled under a lease, proved by reading it back. */
import { randomUUID } from 'node:crypto';
import type { BlobGetPropertiesResponse, PageBlobClient } from '@azure/storage-blob';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import type { Artifact } from '../../core/types.ts';
import type { UploadContext } from '../../core/uploader.ts';
import { codeOf } from '../../tools/azure/errors.ts';
import { provePages, storedRanges } from '../../tools/azure/page-proof.ts';
import { PUT_BYTES } from '../../tools/azure/page-runs.ts';
import { uploadPages } from '../../tools/azure/page-upload.ts';
import { MARK_METADATA, metadataOf } from './marks.ts';
import type { AzureOptions } from './options.ts';
import { asked, askedFor, type Place, requireContainer } from './place.ts';
import type { Carrier, UploadState } from './state.ts';

type Context = UploadContext<AzureOptions>;

/** A finite lease is at most a minute (Microsoft Learn, "Lease Blob"): a killed run does not lock the blob for long. */
const LEASE_S = 60;
const RENEW_MS = 20_000;

/** What carries a disk, complete and proved. */
export interface Carried {
  /** Address of the blob, unsigned, or resource id of the disk. */
  source: { blobUri: string } | { diskId: string };
  sentBytes: number;
  /** Bytes of the file that hold data. */
  dataBytes: number;
  proof: string;
}

async function begin(
  ctx: Context,
  blob: PageBlobClient,
  carrier: Carrier,
  state: UploadState,
): Promise<void> {
  const { signal } = ctx;
  const what = `blob ${printable(blob.name)}`;
  const found = await askedFor(what, signal, () => blob.getProperties({ abortSignal: signal }));
  if (found !== undefined) {
    if (found.metadata?.[MARK_METADATA] !== ctx.mark)
      throw new PortError('CLOUD_CONFLICT', `${what} is there already and not of this job`, {
        hint: 'choose another name with --name, or remove the blob',
      });
    if (isKnown(found, carrier)) return;
    // Of this job, but not what the record tells of: whatever is in it, nothing vouches for it.
    await asked(`removing ${what}`, signal, () =>
      blob.delete({
        abortSignal: signal,
        conditions: {
          ...(carrier.leaseId === undefined || found.leaseState !== 'leased'
            ? {}
            : { leaseId: carrier.leaseId }),
        },
      }),
    );
  }
  carrier.done = [];
  carrier.proved = false;
  carrier.leaseId = undefined;
  await asked(`creating ${what}`, signal, async () => {
    try {
      await blob.create(carrier.bytes, {
        abortSignal: signal,
        conditions: { ifNoneMatch: '*' },
        blobHTTPHeaders: { blobContentType: 'application/octet-stream' },
        metadata: metadataOf(ctx, 'uploading', carrier.sha256),
      });
    } catch (error) {
      // The answer of an earlier try may have been lost; whether it is ours is asked below.
      if (codeOf(error) !== 'BlobAlreadyExists') throw error;
    }
  });
  const made = await asked(what, signal, () => blob.getProperties({ abortSignal: signal }));
  if (made.metadata?.[MARK_METADATA] !== ctx.mark)
    throw new PortError('CLOUD_CONFLICT', `${what} was made by somebody else just now`);
  carrier.identity = made.createdOn?.toISOString();
  await state.save();
}

/** Believed only when the service says that this very blob was never replaced. */
function isKnown(found: BlobGetPropertiesResponse, carrier: Carrier): boolean {
  return (
    found.blobType === 'PageBlob' &&
    found.contentLength === carrier.bytes &&
    found.metadata?.port_image_sha256 === carrier.sha256 &&
    carrier.identity !== undefined &&
    found.createdOn?.toISOString() === carrier.identity
  );
}

/** Works while the lease is held. A lease that cannot be renewed shows in the next write. */
async function underLease<T>(
  ctx: Context,
  blob: PageBlobClient,
  carrier: Carrier,
  state: UploadState,
  work: (leaseId: string) => Promise<T>,
): Promise<T> {
  carrier.leaseId ??= randomUUID();
  await state.save();
  const lease = blob.getBlobLeaseClient(carrier.leaseId);
  await asked(`taking the lease of ${printable(blob.name)}`, ctx.signal, () =>
    lease.acquireLease(LEASE_S, { abortSignal: ctx.signal }),
  );
  const renewing = setInterval(() => {
    lease.renewLease().catch((error: unknown) => ctx.log.warn('lease not renewed', { code: codeOf(error) }));
  }, RENEW_MS);
  try {
    return await work(carrier.leaseId);
  } finally {
    clearInterval(renewing);
    await lease
      .releaseLease()
      .catch((error: unknown) => ctx.log.debug('lease not released', { code: codeOf(error) }));
  }
}

/** Blocks of the record that the service has pages in; nothing else of the record is believed. */
async function blocksThere(ctx: Context, blob: PageBlobClient, carrier: Carrier): Promise<Set<number>> {
  if (carrier.done.length === 0) return new Set();
  const there = new Set<number>();
  for (const { startBytes, lengthBytes } of await storedRanges(blob, ctx.signal)) {
    const last = Math.floor((startBytes + lengthBytes - 1) / PUT_BYTES);
    for (let index = Math.floor(startBytes / PUT_BYTES); index <= last; index += 1) there.add(index);
  }
  return new Set(carrier.done.filter((index) => there.has(index)));
}

/** Brings one image into the container. Throws CLOUD_CONFLICT, CLOUD_MISMATCH and as uploadPages. */
export async function carryAsBlob(
  ctx: Context,
  place: Place,
  state: UploadState,
  artifact: Artifact,
  name: string,
): Promise<Carried> {
  const { signal } = ctx;
  const blob = requireContainer(place).getPageBlobClient(`${name}.vhd`);
  const carrier = state.carrier(artifact.disk, { name, sha256: artifact.sha256, bytes: artifact.bytes });
  await begin(ctx, blob, carrier, state);
  return underLease(ctx, blob, carrier, state, async (leaseId) => {
    const there = await blocksThere(ctx, blob, carrier);
    carrier.done = [...there];
    const sent = await uploadPages({
      blob,
      file: artifact.path,
      bytes: artifact.bytes,
      leaseId,
      done: there,
      signal,
      onBlock: async (index) => {
        carrier.done.push(index);
        await state.saveSoon();
      },
      onProgress: (doneBytes, totalBytes) =>
        ctx.progress({ text: `sending ${name}.vhd`, doneBytes, totalBytes }),
    }).finally(() => state.save());
    const readBack = await provePages(blob, artifact.path, artifact.bytes, {
      signal,
      onProgress: (doneBytes, totalBytes) =>
        ctx.progress({ text: `reading ${name}.vhd back`, doneBytes, totalBytes }),
    }).catch(async (error: unknown) => {
      // What is there is wrong and must not be gone on with.
      if (error instanceof PortError && error.code === 'CLOUD_MISMATCH')
        await blob.delete({ conditions: { leaseId } });
      throw error;
    });
    await asked(`marking ${printable(blob.name)} complete`, signal, () =>
      blob.setMetadata(metadataOf(ctx, 'complete', artifact.sha256), {
        abortSignal: signal,
        conditions: { leaseId },
      }),
    );
    carrier.proved = true;
    await state.save();
    return {
      source: { blobUri: (blob.url.split('?')[0] ?? '').toString() },
      sentBytes: sent.sentBytes,
      dataBytes: sent.allocatedBytes,
      proof: `all ${readBack} bytes the blob stores were read back and are equal to the image; the rest of both is zeros`,
    };
  });
}

/** Removes a blob of this job. */
export async function dropBlob(ctx: Context, place: Place, name: string): Promise<void> {
  const blob = requireContainer(place).getPageBlobClient(`${name}.vhd`);
  const found = await askedFor('the uploaded blob', ctx.signal, () =>
    blob.getProperties({ abortSignal: ctx.signal }),
  );
  if (found?.metadata?.[MARK_METADATA] !== ctx.mark) return;
  await asked('removing the uploaded blob', ctx.signal, () =>
    blob.delete({ abortSignal: ctx.signal, deleteSnapshots: 'include' }),
  );
}
