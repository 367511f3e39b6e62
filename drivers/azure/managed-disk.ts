/** A VHD straight into a managed disk: made for upload, filled by a signed address, closed, proved by reading it back. */
import type { Disk } from '@azure/arm-compute';
import type { PageBlobClient } from '@azure/storage-blob';
import { PortError } from '../../core/errors.ts';
import { pause } from '../../core/pause.ts';
import { printable } from '../../core/text.ts';
import type { Artifact } from '../../core/types.ts';
import type { UploadContext } from '../../core/uploader.ts';
import { signedPageBlob } from '../../tools/azure/blob.ts';
import { serviceUrl } from '../../tools/azure/endpoint.ts';
import { provePages } from '../../tools/azure/page-proof.ts';
import { PAGE_BYTES } from '../../tools/azure/page-runs.ts';
import { uploadPages } from '../../tools/azure/page-upload.ts';
import { MARK_TAG, tagsOf } from './marks.ts';
import type { AzureOptions } from './options.ts';
import type { Carried } from './page-blob.ts';
import { asked, askedFor, type Place } from './place.ts';
import type { UploadState } from './state.ts';

type Context = UploadContext<AzureOptions>;

/** Bounds of `uploadSizeBytes`: Azure/azure-rest-api-specs, ComputeDisk models, CreationData. */
export const LEAST_UPLOAD_BYTES = 20_972_032;
const MOST_UPLOAD_BYTES = 35_183_298_347_520;
/** Signed addresses live so long; a longer upload asks for a new one when it is run again. */
const GRANT_S = 24 * 3600;
/** A state counts when it was seen so often in a row. */
const SAME_ANSWERS = 3;
const WAIT_MS = 10 * 60_000;

async function begin(ctx: Context, place: Place, state: UploadState, artifact: Artifact, name: string) {
  const { compute, options, pollMs } = place;
  const { signal } = ctx;
  if (artifact.bytes < LEAST_UPLOAD_BYTES || artifact.bytes > MOST_UPLOAD_BYTES)
    throw new PortError(
      'CLOUD_REFUSED',
      `managed disks are uploaded with 20 MiB to 32 TiB, not ${artifact.bytes} bytes`,
    );
  const carrier = state.carrier(artifact.disk, { name, sha256: artifact.sha256, bytes: artifact.bytes });
  const found = await askedFor(`disk ${name}`, signal, () =>
    compute.disks.get(options.resourceGroup, name, { abortSignal: signal }),
  );
  if (found !== undefined && found.tags?.[MARK_TAG] !== ctx.mark)
    throw new PortError('CLOUD_CONFLICT', `disk ${printable(name)} is there already and not of this job`);
  if (found !== undefined) {
    const isSame = found.uniqueId !== undefined && found.uniqueId === carrier.identity;
    const takesMore = found.diskState === 'ReadyToUpload' || found.diskState === 'ActiveUpload';
    if (isSame && (carrier.sent || takesMore)) return carrier;
    await dropDisk(ctx, place, name);
  }
  carrier.done = [];
  carrier.sent = false;
  carrier.proved = false;
  const isSystem = artifact.disk === undefined;
  const disk: Disk = {
    location: options.location,
    sku: { name: options.diskSku },
    tags: tagsOf(ctx),
    creationData: { createOption: 'Upload', uploadSizeBytes: artifact.bytes },
    networkAccessPolicy: 'AllowAll',
    ...(isSystem
      ? {
          osType: 'Linux',
          hyperVGeneration: ctx.facts.firmware === 'uefi' ? 'V2' : 'V1',
          supportedCapabilities: { architecture: ctx.facts.os.arch === 'aarch64' ? 'Arm64' : 'x64' },
        }
      : {}),
  };
  await asked(`creating disk ${name}`, signal, () =>
    compute.disks.createOrUpdate(options.resourceGroup, name, disk, {
      abortSignal: signal,
      updateIntervalInMs: pollMs,
    }),
  );
  carrier.identity = (await waitForState(ctx, place, name, ['ReadyToUpload', 'ActiveUpload'])).uniqueId;
  await state.save();
  return carrier;
}

async function waitForState(
  ctx: Context,
  place: Place,
  name: string,
  wanted: readonly string[],
): Promise<Disk> {
  const end = performance.now() + WAIT_MS;
  for (let same = 0; ; ) {
    const disk = await asked(`disk ${name}`, ctx.signal, () =>
      place.compute.disks.get(place.options.resourceGroup, name, { abortSignal: ctx.signal }),
    );
    same = wanted.includes(disk.diskState ?? '') ? same + 1 : 0;
    if (same >= SAME_ANSWERS) return disk;
    if (disk.provisioningState === 'Failed' || performance.now() > end)
      throw new PortError(
        'CLOUD',
        `disk ${printable(name)} is ${printable(disk.diskState ?? 'in no state')}, not ${wanted[0]}`,
        {
          temporary: true,
        },
      );
    await pause(place.pollMs, ctx.signal);
  }
}

/** Works with a signed address. The caller takes it back with `revoke`: an open one keeps the disk from being used. */
async function withGrant<T>(
  ctx: Context,
  place: Place,
  name: string,
  access: 'Read' | 'Write',
  work: (blob: PageBlobClient) => Promise<T>,
): Promise<T> {
  const { compute, options, pollMs } = place;
  const { accessSAS } = await asked(`opening disk ${name}`, ctx.signal, () =>
    compute.disks.grantAccess(
      options.resourceGroup,
      name,
      { access, durationInSeconds: GRANT_S },
      { abortSignal: ctx.signal, updateIntervalInMs: pollMs },
    ),
  );
  if (accessSAS === undefined)
    throw new PortError('CLOUD', `no address was given for disk ${printable(name)}`);
  serviceUrl(accessSAS.split('?')[0] ?? '', 'the disk');
  return work(signedPageBlob(accessSAS, place.http));
}

async function revoke(ctx: Context, place: Place, name: string): Promise<void> {
  await asked(`closing disk ${name}`, ctx.signal, () =>
    place.compute.disks.revokeAccess(place.options.resourceGroup, name, {
      abortSignal: ctx.signal,
      updateIntervalInMs: place.pollMs,
    }),
  );
}

/** Brings one image into a managed disk. Throws CLOUD_CONFLICT, CLOUD_MISMATCH and as uploadPages. */
export async function carryAsDisk(
  ctx: Context,
  place: Place,
  state: UploadState,
  artifact: Artifact,
  name: string,
): Promise<Carried> {
  const { signal } = ctx;
  const carrier = await begin(ctx, place, state, artifact, name);
  let [sentBytes, dataBytes] = [0, artifact.bytes];
  if (!carrier.sent) {
    // A write address cannot list pages, so here the record of what was acknowledged counts; the proof below reads all.
    const sent = await withGrant(ctx, place, name, 'Write', (blob) =>
      uploadPages({
        blob,
        file: artifact.path,
        bytes: artifact.bytes,
        done: new Set(carrier.done),
        signal,
        onBlock: async (index) => {
          carrier.done.push(index);
          await state.saveSoon();
        },
        onProgress: (doneBytes, totalBytes) =>
          ctx.progress({ text: `sending disk ${name}`, doneBytes, totalBytes }),
      }).finally(() => state.save()),
    );
    [sentBytes, dataBytes] = [sent.sentBytes, sent.allocatedBytes];
    await revoke(ctx, place, name);
    carrier.sent = true;
    await state.save();
  }
  if (!carrier.proved) await prove(ctx, place, artifact, name);
  carrier.proved = true;
  await state.save();
  const disk = await waitForState(ctx, place, name, ['Unattached']);
  if (disk.id === undefined) throw new PortError('CLOUD', `disk ${printable(name)} has no id`);
  return {
    source: { diskId: disk.id },
    sentBytes,
    dataBytes,
    proof: 'all pages the disk stores were read back and are equal to the image; the rest of both is zeros',
  };
}

/** The footer is left out: what a disk is read as ends with one that Azure made. */
async function prove(ctx: Context, place: Place, artifact: Artifact, name: string): Promise<void> {
  const found = await waitForState(ctx, place, name, ['Unattached', 'ActiveSAS']);
  if (found.diskState === 'ActiveSAS') await revoke(ctx, place, name);
  try {
    await withGrant(ctx, place, name, 'Read', (blob) =>
      provePages(blob, artifact.path, artifact.bytes - PAGE_BYTES, {
        signal: ctx.signal,
        onProgress: (doneBytes, totalBytes) =>
          ctx.progress({ text: `reading disk ${name} back`, doneBytes, totalBytes }),
      }),
    );
  } catch (error) {
    // What is there is wrong and must not be gone on with.
    if (error instanceof PortError && error.code === 'CLOUD_MISMATCH') await dropDisk(ctx, place, name);
    throw error;
  }
  await revoke(ctx, place, name);
}

/** Removes a disk of this job; one that is open for access is closed first. */
export async function dropDisk(ctx: Context, place: Place, name: string): Promise<void> {
  const { compute, options, pollMs } = place;
  const get = () => compute.disks.get(options.resourceGroup, name, { abortSignal: ctx.signal });
  const disk = await askedFor(`disk ${name}`, ctx.signal, get);
  if (disk === undefined || disk.tags?.[MARK_TAG] !== ctx.mark) return;
  if (disk.diskState === 'ActiveSAS' || disk.diskState === 'ActiveUpload') await revoke(ctx, place, name);
  await asked(`removing disk ${name}`, ctx.signal, () =>
    compute.disks.delete(options.resourceGroup, name, {
      abortSignal: ctx.signal,
      updateIntervalInMs: pollMs,
    }),
  );
}
