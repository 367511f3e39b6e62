/** Everything that can refuse an upload to Azure, asked before any long work. */
import { PortError } from '../../core/errors.ts';
import { formatBytes, GIB } from '../../core/sizes.ts';
import { printable } from '../../core/text.ts';
import type { UploadContext } from '../../core/uploader.ts';
import { fileId, imageDisks } from '../../core/work-disks.ts';
import { galleryPlace, nextVersion, readDefinition, versionsOf } from './gallery.ts';
import { MARK_TAG } from './marks.ts';
import type { AzureOptions } from './options.ts';
import { asked, type Place } from './place.ts';
import { UploadState } from './state.ts';

type Context = UploadContext<AzureOptions>;

/** Largest OS disk by generation: Microsoft Learn, "Generation 2 VMs". */
const MOST_OS_BYTES = { V1: 2048 * GIB, V2: 4096 * GIB };
/** Names of images, disks and blobs of ours: the narrowest rule (images, 80) less room for a number and a disk. */
const IMAGE_NAME = /^[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,58}[A-Za-z0-9_])?$/;

/** What the upload would do. */
export interface AzurePlan {
  /** Name of the image, or version in the gallery. */
  image: string;
  /** Older images of ours that go when the new one is there: names, or versions. */
  replaces: string[];
}

/** Name of blob or disk of a disk of the server. */
export function carrierName(ctx: Pick<Context, 'name' | 'mark'>, disk: string | undefined): string {
  const own = disk === undefined ? '' : `-${fileId(disk).slice(0, 20)}`;
  // part of the mark: another job's image of this name has a blob of its own
  return `${ctx.name}-${ctx.mark.slice(0, 8)}${own}`;
}

async function imagesThere(ctx: Context, place: Place) {
  return asked('the images of the resource group', ctx.signal, async () => {
    const found = new Map<string, string | undefined>();
    const pages = place.compute.images.listByResourceGroup(place.options.resourceGroup, {
      abortSignal: ctx.signal,
    });
    for await (const { name, tags } of pages) if (name !== undefined) found.set(name, tags?.[MARK_TAG]);
    return found;
  });
}

/** A name or version for the image by what is there; marks are undefined for what is not ours. */
export function choose(
  ctx: Pick<Context, 'name' | 'mark' | 'options'>,
  there: ReadonlyMap<string, string | undefined>,
): AzurePlan {
  const { onExists, gallery, version } = ctx.options;
  const ours = [...there].find(([, mark]) => mark === ctx.mark);
  if (ours !== undefined) return { image: ours[0], replaces: [] };
  const isMine = ([, mark]: [string, string | undefined]) => mark !== undefined;
  const wanted = gallery === undefined ? ctx.name : (version ?? nextVersion([...there.keys()]));
  if (gallery !== undefined) {
    if (there.has(wanted)) throw new PortError('CLOUD_CONFLICT', `the image has a version ${wanted} already`);
    if (onExists === 'fail' && there.size > 0)
      throw new PortError('CLOUD_CONFLICT', `the gallery has the image already, in ${there.size} versions`);
    return {
      image: wanted,
      replaces: onExists === 'replace' ? [...there].filter(isMine).map(([name]) => name) : [],
    };
  }
  if (!there.has(wanted)) return { image: wanted, replaces: [] };
  if (onExists === 'fail')
    throw new PortError('CLOUD_CONFLICT', `there is an image ${printable(wanted)} already`, {
      hint: 'choose another --name, or --set azure.onExists=new-version',
    });
  if (onExists === 'replace' && there.get(wanted) === undefined)
    throw new PortError(
      'CLOUD_CONFLICT',
      `the image ${printable(wanted)} was not made by port-image and is not replaced`,
    );
  for (let n = 2; ; n += 1) {
    const next = `${wanted}-${n}`;
    if (!there.has(next)) return { image: next, replaces: onExists === 'replace' ? [wanted] : [] };
  }
}

/** Throws CONFIG, CLOUD_LOGIN, CLOUD_REFUSED, CLOUD_CONFLICT, CLOUD. Nothing that lasts is changed. */
export async function planUpload(ctx: Context, place: Place): Promise<AzurePlan> {
  const { options } = ctx;
  if (!IMAGE_NAME.test(ctx.name))
    throw new PortError('CONFIG', `Azure takes no image of the name ${printable(ctx.name).slice(0, 100)}`, {
      hint: 'letters, digits, . _ - and at most 60 of them: --name',
    });
  const isUefi = ctx.facts.firmware === 'uefi';
  if (options.trustedLaunch && !isUefi)
    throw new PortError('CONFIG', 'Trusted Launch needs a server that starts by UEFI; this one does by BIOS');
  const generation = isUefi ? 'V2' : 'V1';
  if (ctx.virtualBytes > MOST_OS_BYTES[generation])
    throw new PortError(
      'CLOUD_REFUSED',
      `a disk of ${formatBytes(ctx.virtualBytes)} is too large for generation ${generation}`,
    );
  if (place.container !== undefined) await proveContainer(ctx, place.container);
  const at = galleryPlace(ctx);
  const there =
    at === undefined
      ? await imagesThere(ctx, place)
      : new Map(
          (await readDefinition(ctx, place, at)) === undefined
            ? []
            : (await versionsOf(ctx, place, at)).map((v) => [v.name ?? '', v.tags?.[MARK_TAG]]),
        );
  const state = await UploadState.read(ctx.stateFile);
  const chosen = choose(ctx, there);
  // What an earlier run began goes on under its name, unless somebody took that meanwhile.
  const kept =
    state !== undefined && (!there.has(state.value.image) || there.get(state.value.image) === ctx.mark);
  const plan = kept ? { ...chosen, image: state.value.image } : chosen;
  tell(ctx, plan);
  return plan;
}

/** Makes an empty blob and removes it: the right to write is not shown by anything smaller. */
async function proveContainer(ctx: Context, container: NonNullable<Place['container']>): Promise<void> {
  const probe = container.getPageBlobClient(`port-image-check-${ctx.mark.slice(0, 16)}`);
  await asked(
    `the right to write to container ${printable(container.containerName)}`,
    ctx.signal,
    async () => {
      await probe.create(512, { abortSignal: ctx.signal });
      await probe.deleteIfExists({ abortSignal: ctx.signal });
    },
  );
}

function tell(ctx: Context, plan: AzurePlan): void {
  const { options } = ctx;
  const at = galleryPlace(ctx);
  const place = `azure:${options.resourceGroup}`;
  const carrier =
    options.method === 'page-blob'
      ? `blob in ${options.storageAccount}/${options.container}`
      : 'managed disk';
  for (const { id, boots } of imageDisks(ctx.facts)) {
    ctx.change({
      path: `${place}/${carrierName(ctx, boots ? undefined : id)}`,
      action: 'create',
      why: `${carrier} with ${boots ? 'the system' : `disk ${printable(id)}`}${options.keepSource ? '' : ', removed when the image is made'}`,
    });
  }
  const name = (image: string) => (at === undefined ? image : `${at.gallery}/${at.definition}/${image}`);
  ctx.change({
    path: `${place}/${name(plan.image)}`,
    action: 'create',
    why: at === undefined ? 'managed image' : 'image version',
  });
  for (const old of plan.replaces)
    ctx.change({ path: `${place}/${name(old)}`, action: 'remove', why: 'replaced by the new image' });
}
