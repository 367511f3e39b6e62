/** The way into Google Cloud: the archive into a bucket, an image of it in Compute Engine, the archive removed. */
import { PortError } from '../../core/errors.ts';
import { shellWord } from '../../core/shell-word.ts';
import { GIB } from '../../core/sizes.ts';
import { printable } from '../../core/text.ts';
import type { Artifact } from '../../core/types.ts';
import type { CloudImage, Uploader } from '../../core/uploader.ts';
import { type ComputeApi, type GceImage, TIMING, type Timing } from '../../tools/gcp/compute.ts';
import { setDeprecation } from '../../tools/gcp/compute-changes.ts';
import { putInParts, removeObjects } from '../../tools/gcp/put-parts.ts';
import { gceArchitecture, guestOsFeatures, labelValue } from './image.ts';
import { gcp } from './index.ts';
import { GcpOptions } from './options.ts';
import {
  baseName,
  type Context,
  FAMILY_LABEL,
  familyOf,
  imageName,
  JOB_LABEL,
  objectName,
  type Services,
  withServices,
} from './place.ts';
import { type GcpPlan, planUpload, refuse } from './plan.ts';

/** An image with its archive sent, if it had to be. */
interface Made {
  image: GceImage;
  sentBytes: number;
  crc32c: string | undefined;
}

async function make(ctx: Context, services: Services, artifact: Artifact): Promise<Made> {
  const { signal, options } = ctx;
  const { compute, bucket } = services;
  const name = imageName(ctx, artifact.disk);
  const object = objectName(ctx, artifact.disk);
  const there = await compute.image(name, signal);
  if (there !== undefined && there.labels[JOB_LABEL] !== ctx.mark) refuse(options, there);
  let crc32c: string | undefined;
  let sentBytes = 0;
  // One that failed is of no use to anybody; one under way is waited for.
  if (there?.status === 'FAILED') await compute.remove(name, signal);
  if (there === undefined || there.status === 'FAILED') {
    let doneBytes = 0;
    const put = await putInParts(bucket, {
      file: artifact.path,
      bytes: artifact.bytes,
      name: object,
      contentType: 'application/gzip',
      signal,
      onBytes: (bytes) => {
        doneBytes += bytes;
        ctx.progress({ text: `sending ${name}`, doneBytes, totalBytes: artifact.bytes });
      },
    });
    ({ crc32c, sentBytes } = put);
    await insert(ctx, services, artifact, name);
  }
  const image = await ready(ctx, compute, name);
  const gib = Math.ceil(artifact.virtualBytes / GIB);
  if (image.diskSizeGb !== gib) {
    await compute.remove(name, signal);
    throw new PortError('CLOUD_MISMATCH', `image ${name} is of ${image.diskSizeGb} GB, the disk has ${gib}`);
  }
  if (!options.keepObject) await removeObjects(bucket, [object], signal);
  return { image, sentBytes, crc32c };
}

async function insert(ctx: Context, { compute, bucket }: Services, artifact: Artifact, name: string) {
  const { options, identity, signal } = ctx;
  const { features, storageLocations } = options;
  const claimed = features === 'auto' ? guestOsFeatures(ctx.facts) : features;
  const image = {
    name,
    family: familyOf(ctx, artifact.disk),
    description: printable(`${ctx.name} ${identity.version ?? ''}, made by port-image`).slice(0, 256),
    architecture: gceArchitecture(ctx.facts.os.arch),
    labels: {
      [JOB_LABEL]: ctx.mark,
      [FAMILY_LABEL]: familyOf(ctx, artifact.disk),
      'port-image-version': labelValue(identity.version ?? ''),
      'port-image-verified': ctx.verified === true ? 'yes' : 'no',
    },
    rawDisk: {
      source: `https://storage.googleapis.com/${bucket.name}/${objectName(ctx, artifact.disk)}`,
      containerType: 'TAR' as const,
    },
    guestOsFeatures: claimed.map((type) => ({ type })),
    ...(storageLocations.length === 0 ? {} : { storageLocations }),
  };
  ctx.progress({ text: `Compute Engine makes ${name}` });
  try {
    await compute.insert(image, signal, (percent) =>
      ctx.progress({ text: `Compute Engine makes ${name}: ${percent} %` }),
    );
  } catch (error) {
    // A killed run may have asked for it a moment before it died.
    const isOurs = async () => (await compute.image(name, signal))?.labels[JOB_LABEL] === ctx.mark;
    if (error instanceof PortError && error.code === 'CLOUD_CONFLICT' && (await isOurs())) return;
    await clean(ctx, compute, name);
    throw error;
  }
}

/** Removes an image that failed, if it is ours. What went wrong before says more than a failure of this. */
async function clean(ctx: Context, compute: ComputeApi, name: string): Promise<void> {
  if (ctx.signal.aborted) return;
  try {
    const left = await compute.image(name, ctx.signal);
    if (left?.labels[JOB_LABEL] === ctx.mark && left.status === 'FAILED')
      await compute.remove(name, ctx.signal);
  } catch (error) {
    ctx.warn(`the failed image ${name} may be left behind: ${(error as Error).message}`);
  }
}

async function ready(ctx: Context, compute: ComputeApi, name: string): Promise<GceImage> {
  const image = await compute.settled(name, ctx.signal);
  if (image.status === 'READY') return image;
  await clean(ctx, compute, name);
  throw new PortError('CLOUD', `image ${name} became ${printable(image.status)}`);
}

async function retire(ctx: Context, compute: ComputeApi, image: GceImage): Promise<CloudImage['replaced']> {
  const { options, signal } = ctx;
  const replaced: CloudImage['replaced'] = [];
  for (const old of await compute.labelled(FAMILY_LABEL, image.family ?? '', signal)) {
    // One that came after ours, from another job, is not ours to retire; one that failed is that job's to remove.
    if (old.name === image.name || Date.parse(old.creationTimestamp) > Date.parse(image.creationTimestamp))
      continue;
    if (old.deprecated !== undefined && options.onExists !== 'replace') continue;
    try {
      if (options.onExists === 'replace') await compute.remove(old.name, signal);
      else
        await setDeprecation(compute, old.name, { state: 'DEPRECATED', replacement: image.selfLink }, signal);
      replaced.push({ id: old.name, action: options.onExists === 'replace' ? 'deleted' : 'deprecated' });
    } catch (error) {
      if (signal.aborted) throw error;
      ctx.warn(`the older image ${old.name} stays as it is: ${(error as Error).message}`);
      replaced.push({ id: old.name, action: 'kept' });
    }
  }
  return replaced;
}

/** Uploads the images, that of the system last: when it is there, all are. */
async function upload(ctx: Context, services: Services): Promise<CloudImage> {
  const { options, artifacts } = ctx;
  const main = artifacts.find((a) => a.disk === undefined);
  if (main === undefined) throw new PortError('BUG', 'upload without an image for Google Cloud');
  const disks: CloudImage['disks'] = [];
  const replaced: CloudImage['replaced'] = [];
  for (const artifact of artifacts) {
    if (artifact.disk === undefined) continue;
    const { image } = await make(ctx, services, artifact);
    disks.push({ disk: artifact.disk, id: image.selfLink, name: image.name });
    replaced.push(...(await retire(ctx, services.compute, image)));
  }
  const { image, sentBytes, crc32c } = await make(ctx, services, main);
  replaced.push(...(await retire(ctx, services.compute, image)));
  return {
    platform: gcp.name,
    place: options.project,
    id: image.selfLink,
    name: image.name,
    method: 'gcs-import',
    bytes: main.bytes,
    sentBytes,
    content: 'ok',
    proof:
      crc32c === undefined
        ? 'an earlier run compared the CRC32C of the archive in the bucket with that of the file'
        : `CRC32C of the archive in the bucket and of the file are ${crc32c}; the image was made of it`,
    replaced,
    start: instancesCreate(ctx, image.name),
    disks,
    details: {
      family: image.family ?? '',
      features:
        (options.features === 'auto' ? guestOsFeatures(ctx.facts) : options.features).join(', ') || 'none',
      ...(options.keepObject ? { archive: `gs://${options.bucket}/${objectName(ctx, undefined)}` } : {}),
    },
  };
}

/** The command that starts an instance. One line, so that it can be copied. */
function instancesCreate(ctx: Context, image: string): string {
  const { project } = ctx.options;
  const userData =
    ctx.userDataFile === undefined
      ? ''
      : ` --metadata-from-file ${shellWord(`user-data=${ctx.userDataFile}`)}`;
  return `gcloud compute instances create ${baseName(ctx, undefined)} --project ${project} --zone ZONE --machine-type TYPE --image ${image} --image-project ${project}${userData}`;
}

/** Google Cloud, with the pauses given. */
export function gcpUploaderWith(timing: Timing): Uploader<GcpOptions, GcpPlan> {
  return {
    platform: gcp.name,
    summary: 'an image in Compute Engine, over an archive in a bucket',
    Options: GcpOptions,
    login: (options, signal) =>
      withServices(options, timing, async ({ compute }) => {
        await compute.imageQuota(signal);
      }),
    plan: (ctx) => withServices(ctx.options, timing, (services) => planUpload(ctx, services)),
    upload: (ctx) => withServices(ctx.options, timing, (services) => upload(ctx, services)),
  };
}

/** Google Cloud: an image in Compute Engine. */
export const gcpUploader: Uploader<GcpOptions, GcpPlan> = gcpUploaderWith(TIMING);
