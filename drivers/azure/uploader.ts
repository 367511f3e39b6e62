/** The way into Azure: VHDs as page blobs or managed disks, then a managed image or an image version of a gallery. */
import { PortError } from '../../core/errors.ts';
import { shellWord } from '../../core/shell-word.ts';
import type { Artifact } from '../../core/types.ts';
import type { CloudImage, UploadContext, Uploader } from '../../core/uploader.ts';
import { dropVersion, type GalleryPlace, galleryPlace, makeVersion } from './gallery.ts';
import { azure } from './index.ts';
import { carryAsDisk, dropDisk } from './managed-disk.ts';
import { type Carriers, dropImage, makeImage } from './managed-image.ts';
import { MARK_TAG } from './marks.ts';
import { AzureOptions } from './options.ts';
import { type Carried, carryAsBlob, dropBlob } from './page-blob.ts';
import { asked, askedFor, openPlace, type Place } from './place.ts';
import { type AzurePlan, carrierName, planUpload } from './plan.ts';
import { UploadState } from './state.ts';

type Context = UploadContext<AzureOptions>;

async function carryAll(ctx: Context, place: Place, state: UploadState): Promise<Carriers> {
  const carry = ctx.options.method === 'page-blob' ? carryAsBlob : carryAsDisk;
  const send = (artifact: Artifact): Promise<Carried> =>
    carry(ctx, place, state, artifact, carrierName(ctx, artifact.disk));
  const main = ctx.artifacts.find((a) => a.disk === undefined);
  if (main === undefined) throw new PortError('BUG', 'upload without an image for Azure');
  const data: Carriers['data'] = [];
  for (const artifact of ctx.artifacts)
    if (artifact.disk !== undefined) data.push({ disk: artifact.disk, carried: await send(artifact) });
  return { system: await send(main), data };
}

async function register(
  ctx: Context,
  place: Place,
  at: GalleryPlace | undefined,
  plan: AzurePlan,
  carriers: Carriers,
): Promise<{ id: string; replaced: CloudImage['replaced'] }> {
  ctx.progress({ text: at === undefined ? 'making the image' : 'making the image version' });
  const id =
    at === undefined
      ? await makeImage(ctx, place, plan.image, carriers)
      : await makeVersion(ctx, place, at, plan.image, carriers);
  const replaced: CloudImage['replaced'] = [];
  for (const old of plan.replaces) {
    if (at === undefined) await dropImage(ctx, place, old);
    else await dropVersion(ctx, place, at, old);
    replaced.push({ id: old, action: 'removed' });
  }
  return { id, replaced };
}

async function isThere(
  ctx: Context,
  place: Place,
  at: GalleryPlace | undefined,
  image: string,
): Promise<boolean> {
  const { compute, options } = place;
  const long = { abortSignal: ctx.signal };
  const found = await askedFor('the image', ctx.signal, async () =>
    at === undefined
      ? compute.images.get(options.resourceGroup, image, long)
      : compute.galleryImageVersions.get(options.resourceGroup, at.gallery, at.definition, image, long),
  );
  return found?.tags?.[MARK_TAG] === ctx.mark && found.provisioningState === 'Succeeded';
}

/** Throws CLOUD, CLOUD_LOGIN, CLOUD_REFUSED, CLOUD_CONFLICT, CLOUD_MISMATCH; may be called again after any of them. */
async function upload(ctx: Context, planned: AzurePlan, pollMs?: number): Promise<CloudImage> {
  const { options } = ctx;
  const place = await openPlace(options, pollMs);
  const known = await UploadState.read(ctx.stateFile);
  const state = known ?? (await UploadState.create(ctx.stateFile, planned.image));
  state.value.image = planned.image;
  const at = galleryPlace(ctx);
  let sentBytes = 0;
  // What was made by an earlier run may be gone; then everything is done again.
  if (state.value.made !== undefined && !(await isThere(ctx, place, at, planned.image)))
    state.value.made = undefined;
  if (state.value.made === undefined) {
    const carriers = await carryAll(ctx, place, state);
    const all = [carriers.system, ...carriers.data.map(({ carried }) => carried)];
    sentBytes = all.reduce((sum, carried) => sum + carried.sentBytes, 0);
    const bytes = all.reduce((sum, carried) => sum + carried.dataBytes, 0);
    state.value.made = {
      ...(await register(ctx, place, at, planned, carriers)),
      bytes,
      proof: carriers.system.proof,
    };
    await state.save();
  }
  const { id, bytes, proof, replaced } = state.value.made;
  if (!options.keepSource)
    for (const { disk } of ctx.artifacts) {
      if (options.method === 'page-blob') await dropBlob(ctx, place, carrierName(ctx, disk));
      else await dropDisk(ctx, place, carrierName(ctx, disk));
    }
  const further = ctx.artifacts.flatMap(({ disk }) => (disk === undefined ? [] : [disk]));
  return {
    platform: azure.name,
    place: `${options.resourceGroup} in ${options.location}`,
    id,
    name: at === undefined ? planned.image : `${at.definition}/${planned.image}`,
    method: options.method,
    bytes,
    sentBytes,
    content: 'ok',
    proof,
    replaced,
    start: vmCreate(ctx, id),
    // part of the image: a machine made of it has them
    disks: further.map((disk, lun) => ({
      disk,
      id: `${id}#lun${lun}`,
      name: `LUN ${lun} of the image`,
    })),
    details: {
      generation: ctx.facts.firmware === 'uefi' ? 'V2 (UEFI)' : 'V1 (BIOS)',
      state: options.osState,
      ...(at === undefined ? {} : { gallery: at.gallery, version: planned.image }),
      ...(options.trustedLaunch ? { security: 'Trusted Launch supported' } : {}),
    },
  };
}

/** The command that starts an instance. One line, so that it can be copied. */
function vmCreate(ctx: Context, id: string): string {
  const { options } = ctx;
  const words = [
    'az vm create',
    `--resource-group ${shellWord(options.resourceGroup)}`,
    `--name ${shellWord(ctx.name)}`,
  ];
  words.push(`--image ${shellWord(id)}`);
  if (options.osState === 'specialized') words.push('--specialized');
  else words.push('--admin-username ADMIN --generate-ssh-keys');
  if (options.gallery !== undefined)
    words.push(`--security-type ${options.trustedLaunch ? 'TrustedLaunch' : 'Standard'}`);
  if (ctx.userDataFile !== undefined) words.push(`--custom-data ${shellWord(ctx.userDataFile)}`);
  return words.join(' ');
}

/** The client; `pollMs` is how often long work is asked after. */
export function makeAzureUploader(pollMs?: number): Uploader<AzureOptions, AzurePlan> {
  return {
    platform: azure.name,
    summary: 'a managed image, or an image version in a compute gallery, by page blob or managed disk',
    Options: AzureOptions,
    login: async (options, signal) => {
      const place = await openPlace(options, pollMs);
      const { compute, container } = place;
      const pages = compute.images.listByResourceGroup(options.resourceGroup, { abortSignal: signal });
      await asked('the images of the resource group', signal, () => pages.next());
      if (container !== undefined)
        await asked('the container', signal, () =>
          container.listBlobsFlat({ prefix: 'port-image-check', abortSignal: signal }).next(),
        );
    },
    plan: async (ctx) => planUpload(ctx, await openPlace(ctx.options, pollMs)),
    upload: (ctx, plan) => upload(ctx, plan, pollMs),
  };
}

/** Azure: a managed image or an image version. */
export const azureUploader = makeAzureUploader();
