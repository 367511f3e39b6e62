/** The way into Oracle Cloud: the qcow2 into a bucket by its S3 gate, an image imported from there, the file removed. */
import { PortError } from '../../core/errors.ts';
import { shellWord } from '../../core/shell-word.ts';
import { printable } from '../../core/text.ts';
import type { CloudImage, UploadContext, Uploader } from '../../core/uploader.ts';
import { imageDisks } from '../../core/work-disks.ts';
import { OciCompute, type OciImage, TIMING, type Timing } from '../../tools/oci/compute.ts';
import { readOciLogin } from '../../tools/oci/config.ts';
import { S3Bucket } from '../../tools/s3-put.ts';
import { oci } from './index.ts';
import { OciOptions } from './options.ts';

type Context = UploadContext<OciOptions>;

/** Free-form tag with the mark of the job: what has it is ours. */
const JOB_TAG = 'port-image-job';
const NAME_TAG = 'port-image-name';
const LOGIN_HINT =
  'the S3 gate wants a customer secret key of your user: in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile of ~/.aws named by AWS_PROFILE';

/** What the upload will do. */
export interface OciPlan {
  region: string;
  /** Ids of images of ours with this name. */
  older: string[];
}

interface Services {
  compute: OciCompute;
  bucket: S3Bucket;
  region: string;
}

async function withServices<T>(
  options: OciOptions,
  timing: Timing,
  use: (services: Services) => Promise<T>,
): Promise<T> {
  const login = await readOciLogin(options.profile);
  const region = options.region ?? login.region;
  if (region === undefined) {
    throw new PortError(
      'CONFIG',
      `neither the target nor profile ${printable(options.profile)} names a region`,
      {
        hint: '--set oci.region=eu-frankfurt-1',
      },
    );
  }
  const { namespace, endpoints } = options;
  const bucket = await S3Bucket.open({
    endpoint: endpoints.storage ?? `https://${namespace}.compat.objectstorage.${region}.oraclecloud.com`,
    region,
    bucket: options.bucket,
    pathStyle: true,
    loginHint: LOGIN_HINT,
  });
  const compute = await OciCompute.open(login, region, timing, endpoints.compute);
  try {
    return await use({ compute, bucket, region });
  } finally {
    bucket.close();
    await compute.close();
  }
}

const folderOf = (ctx: Context): string => `${ctx.options.prefix}/${ctx.mark}`;

/** Throws CLOUD_LOGIN, CLOUD_REFUSED, CLOUD_CONFLICT, CLOUD, CONFIG. */
async function plan(ctx: Context, { compute, bucket, region }: Services): Promise<OciPlan> {
  const { options, signal } = ctx;
  const further = imageDisks(ctx.facts).find((d) => !d.boots);
  if (further !== undefined) {
    throw new PortError(
      'CLOUD_REFUSED',
      `Oracle makes boot volumes of images only: disk ${printable(further.id)} cannot go there`,
      {
        hint: 'let its content become data sets, or leave it out',
      },
    );
  }
  const largest = oci.image.maxBytes ?? Number.POSITIVE_INFINITY;
  if (ctx.virtualBytes > largest) {
    throw new PortError('CLOUD_REFUSED', 'Oracle imports disks of at most 400 GB');
  }
  await bucket.probe(`${folderOf(ctx)}/probe`, signal);
  const others = await olderImages(ctx, compute);
  if (options.onExists === 'fail') refuseOlder(others);
  if (ctx.facts.firmware === 'uefi') {
    ctx.warn('instances need firmware UEFI_64 in their launch options; the start command has it');
  }
  const place = `oci:${region}`;
  ctx.change({
    path: `${place}/${options.bucket}/${folderOf(ctx)}`,
    action: 'create',
    why: options.keepObject ? 'the file an image is made of' : 'the file an image is made of, removed after',
  });
  ctx.change({
    path: `${place}/${ctx.name}`,
    action: 'create',
    why: `image, launch mode ${options.launchMode}`,
  });
  const older = options.onExists === 'replace' ? others.map((i) => i.id) : [];
  for (const id of older)
    ctx.change({ path: `${place}/${id}`, action: 'remove', why: 'replaced by the new image' });
  return { region, older };
}

async function olderImages(ctx: Context, compute: OciCompute): Promise<OciImage[]> {
  const named = await compute.tagged(ctx.options.compartment, NAME_TAG, ctx.name, ctx.signal);
  return named.filter((i) => i.freeformTags[JOB_TAG] !== ctx.mark);
}

function refuseOlder([other]: readonly OciImage[]): void {
  if (other === undefined) return;
  throw new PortError(
    'CLOUD_CONFLICT',
    `the compartment has an image ${printable(other.displayName)} already: ${printable(other.id)}`,
    {
      hint: 'take onExists new-version, or another --name',
    },
  );
}

/** The image this job has there, if any; one that failed is removed. */
async function leftover(
  { options, mark, signal }: Context,
  compute: OciCompute,
): Promise<OciImage | undefined> {
  let found: OciImage | undefined;
  for (const image of await compute.tagged(options.compartment, JOB_TAG, mark, signal)) {
    if (/^(AVAILABLE|IMPORTING|PROVISIONING)$/.test(image.lifecycleState)) found ??= image;
    else await compute.remove(image.id, signal);
  }
  return found;
}

async function upload(ctx: Context, { compute, bucket, region }: Services): Promise<CloudImage> {
  const { options, signal, facts } = ctx;
  const [artifact] = ctx.artifacts;
  if (artifact === undefined) throw new PortError('BUG', 'upload without an image for Oracle Cloud');
  const key = `${folderOf(ctx)}/${artifact.sha256.slice(0, 16)}.qcow2`;
  let sentBytes = 0;
  let image = await leftover(ctx, compute);
  if (image === undefined) {
    if (options.onExists === 'fail') refuseOlder(await olderImages(ctx, compute));
    let doneBytes = 0;
    sentBytes = await bucket.putFile({
      file: artifact.path,
      bytes: artifact.bytes,
      sha256: artifact.sha256,
      key,
      signal,
      onBytes: (bytes) => {
        doneBytes += bytes;
        ctx.progress({ text: `sending ${ctx.name}`, doneBytes, totalBytes: artifact.bytes });
      },
    });
    image = await compute.create(
      {
        compartmentId: options.compartment,
        displayName: ctx.name,
        launchMode: options.launchMode,
        freeformTags: {
          [JOB_TAG]: ctx.mark,
          [NAME_TAG]: ctx.name,
          'port-image-version': ctx.identity.version ?? '',
          'port-image-sha256': artifact.sha256,
          'port-image-verified': ctx.verified === true ? 'yes' : 'no',
        },
        imageSourceDetails: {
          sourceType: 'objectStorageTuple',
          sourceImageType: 'QCOW2',
          namespaceName: options.namespace,
          bucketName: options.bucket,
          objectName: key,
          operatingSystem: printable(facts.os.distro).slice(0, 64),
          operatingSystemVersion: printable(facts.os.version).slice(0, 64),
        },
      },
      signal,
    );
  }
  const id = image.id;
  const made = await compute.available(id, signal, (state) => ctx.progress({ text: `Oracle: ${state}` }));
  if (!options.keepObject) await bucket.remove(key, signal);
  return {
    platform: oci.name,
    place: `${region} ${options.compartment}`,
    id,
    name: made.displayName,
    method: 's3-import',
    bytes: artifact.bytes,
    sentBytes,
    content: 'unverifiable',
    proof:
      'each part was sent with its MD5 for Object Storage to compare; of the imported image Oracle tells no digest',
    replaced: options.onExists === 'replace' ? await retire(ctx, compute, made) : [],
    start: launch(ctx, id),
    disks: [],
    details: {
      'launch mode': options.launchMode,
      firmware: facts.firmware === 'uefi' ? 'UEFI_64, by launch options' : 'BIOS',
      ...(options.keepObject ? { file: `${options.bucket}/${key}` } : {}),
    },
  };
}

async function retire(ctx: Context, compute: OciCompute, made: OciImage): Promise<CloudImage['replaced']> {
  const replaced: CloudImage['replaced'] = [];
  for (const old of await olderImages(ctx, compute)) {
    // One that came after ours, from another job, is not ours to remove.
    if (Date.parse(old.timeCreated) > Date.parse(made.timeCreated)) continue;
    try {
      await compute.remove(old.id, ctx.signal);
      replaced.push({ id: old.id, action: 'deleted' });
    } catch (error) {
      if (ctx.signal.aborted) throw error;
      ctx.warn(`the older image ${printable(old.id)} stays as it is: ${(error as Error).message}`);
      replaced.push({ id: old.id, action: 'kept' });
    }
  }
  return replaced;
}

/** The command that starts an instance. One line, so that it can be copied. */
function launch({ options, facts, name, userDataFile }: Context, id: string): string {
  const type = options.launchMode === 'EMULATED' ? 'IDE' : 'PARAVIRTUALIZED';
  const uefi =
    facts.firmware === 'uefi'
      ? ` --launch-options ${shellWord(JSON.stringify({ firmware: 'UEFI_64', bootVolumeType: type }))}`
      : '';
  const userData = userDataFile === undefined ? '' : ` --user-data-file ${shellWord(userDataFile)}`;
  return `oci compute instance launch --compartment-id ${options.compartment} --availability-domain DOMAIN --subnet-id SUBNET --shape SHAPE --image-id ${shellWord(id)} --display-name ${shellWord(name)}${uefi}${userData}`;
}

/** Oracle Cloud, with the pauses given. */
export function ociUploaderWith(timing: Timing): Uploader<OciOptions, OciPlan> {
  return {
    platform: oci.name,
    summary: 'an image in Compute, over a file in Object Storage',
    Options: OciOptions,
    login: (options, signal) =>
      withServices(options, timing, async ({ compute }) => {
        await compute.tagged(options.compartment, JOB_TAG, '', signal);
      }),
    plan: (ctx) => withServices(ctx.options, timing, (services) => plan(ctx, services)),
    upload: (ctx) => withServices(ctx.options, timing, (services) => upload(ctx, services)),
  };
}

/** Oracle Cloud: an image in Compute. */
export const ociUploader: Uploader<OciOptions, OciPlan> = ociUploaderWith(TIMING);
