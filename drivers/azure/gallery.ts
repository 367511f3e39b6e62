/** An image version in a compute gallery, and its definition. */
import type { GalleryImage, GalleryImageFeature, GalleryImageVersion } from '@azure/arm-compute';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import type { Carriers, ImageContext } from './managed-image.ts';
import { MARK_TAG, tagsOf } from './marks.ts';
import type { AzureOptions } from './options.ts';
import type { Carried } from './page-blob.ts';
import { asked, askedFor, type Place } from './place.ts';

type Context = ImageContext;

/** Where a version goes. */
export interface GalleryPlace {
  gallery: string;
  definition: string;
}

/** The gallery and definition of a target with one. */
export function galleryPlace(ctx: Pick<Context, 'name' | 'options'>): GalleryPlace | undefined {
  const { gallery, definition } = ctx.options;
  return gallery === undefined ? undefined : { gallery, definition: definition ?? ctx.name };
}

/** What the image can do, claimed only where the kernels have the drivers. */
function featuresOf(ctx: Context): GalleryImageFeature[] {
  const drivers = new Set((ctx.contract?.facts.drivers ?? []).map((name) => name.replaceAll('-', '_')));
  const network = new Set(
    (ctx.contract?.facts.networkDrivers ?? []).map((name) => name.replaceAll('-', '_')),
  );
  const features: GalleryImageFeature[] = [];
  if (drivers.has('nvme') && drivers.has('pci_hyperv'))
    features.push({ name: 'DiskControllerTypes', value: 'SCSI, NVMe' });
  if (network.has('mlx5_core') || drivers.has('mlx5_core'))
    features.push({ name: 'IsAcceleratedNetworkSupported', value: 'True' });
  if (ctx.options.trustedLaunch) features.push({ name: 'SecurityType', value: 'TrustedLaunchSupported' });
  return features;
}

function definitionOf(ctx: Context, at: GalleryPlace): GalleryImage {
  const { options } = ctx;
  const isUefi = ctx.facts.firmware === 'uefi';
  return {
    location: options.location,
    tags: tagsOf(ctx),
    osType: 'Linux',
    osState: options.osState === 'specialized' ? 'Specialized' : 'Generalized',
    hyperVGeneration: isUefi ? 'V2' : 'V1',
    architecture: ctx.facts.os.arch === 'aarch64' ? 'Arm64' : 'x64',
    // these three together are unique in a gallery
    identifier: { publisher: options.publisher, offer: at.definition, sku: isUefi ? 'gen2' : 'gen1' },
    features: featuresOf(ctx),
  };
}

/** What makes versions of this image impossible in a definition that is there; undefined when they fit. */
export function misfit(ctx: Context, at: GalleryPlace, found: GalleryImage): string | undefined {
  const wanted = definitionOf(ctx, at);
  for (const field of ['osType', 'osState', 'hyperVGeneration', 'architecture'] as const) {
    // absent in a definition means V1 and x64
    const has =
      found[field] ?? { hyperVGeneration: 'V1', architecture: 'x64', osType: '', osState: '' }[field];
    if (has !== wanted[field])
      return `${field} is ${printable(String(has))}, the image needs ${wanted[field]}`;
  }
  if (!ctx.options.trustedLaunch) return undefined;
  const security = found.features?.find((feature) => feature.name === 'SecurityType')?.value ?? '';
  return security.startsWith('TrustedLaunch') ? undefined : 'it does not allow Trusted Launch';
}

/** The definition as it is. Throws CONFIG without the gallery, CLOUD_CONFLICT for one that does not fit. */
export async function readDefinition(
  ctx: Context,
  place: Place,
  at: GalleryPlace,
): Promise<GalleryImage | undefined> {
  const { compute, options } = place;
  const { signal } = ctx;
  const gallery = await askedFor('the gallery', signal, () =>
    compute.galleries.get(options.resourceGroup, at.gallery, { abortSignal: signal }),
  );
  if (gallery === undefined)
    throw new PortError('CONFIG', `there is no gallery ${at.gallery} in ${options.resourceGroup}`, {
      hint: `make one: az sig create --resource-group ${options.resourceGroup} --gallery-name ${at.gallery}`,
    });
  const found = await askedFor('the image definition', signal, () =>
    compute.galleryImages.get(options.resourceGroup, at.gallery, at.definition, { abortSignal: signal }),
  );
  const why = found === undefined ? undefined : misfit(ctx, at, found);
  if (why !== undefined)
    throw new PortError('CLOUD_CONFLICT', `image definition ${at.definition} does not fit: ${why}`, {
      hint: 'name another with --set azure.definition=NAME',
    });
  return found;
}

/** Versions of a definition; none when it is not there. */
export async function versionsOf(
  ctx: Context,
  place: Place,
  at: GalleryPlace,
): Promise<GalleryImageVersion[]> {
  return asked('the versions of the image', ctx.signal, async () => {
    const versions: GalleryImageVersion[] = [];
    const { compute, options } = place;
    const pages = compute.galleryImageVersions.listByGalleryImage(
      options.resourceGroup,
      at.gallery,
      at.definition,
      {
        abortSignal: ctx.signal,
      },
    );
    for await (const version of pages) versions.push(version);
    return versions;
  });
}

/** The version after the newest of these names; 1.0.0 when there is none. */
export function nextVersion(names: readonly string[]): string {
  const numbers = names
    .filter((name) => /^\d+\.\d+\.\d+$/.test(name))
    .map((name) => name.split('.').map(Number) as [number, number, number])
    .sort(([a, b, c], [d, e, f]) => a - d || b - e || c - f);
  const last = numbers.at(-1);
  return last === undefined ? '1.0.0' : `${last[0]}.${last[1]}.${last[2] + 1}`;
}

function sourceOf(options: AzureOptions, { source }: Carried) {
  if ('diskId' in source) return { source: { id: source.diskId } };
  const group = options.storageResourceGroup ?? options.resourceGroup;
  const storageAccountId = `/subscriptions/${options.subscription}/resourceGroups/${group}/providers/Microsoft.Storage/storageAccounts/${options.storageAccount}`;
  return { source: { uri: source.blobUri, storageAccountId } };
}

/** Makes the version, or finds that of an earlier run. Returns its resource id. Throws CLOUD_CONFLICT, CLOUD. */
export async function makeVersion(
  ctx: Context,
  place: Place,
  at: GalleryPlace,
  version: string,
  carriers: Carriers,
): Promise<string> {
  const { compute, options, pollMs } = place;
  const { signal } = ctx;
  const long = { abortSignal: signal, updateIntervalInMs: pollMs };
  if ((await readDefinition(ctx, place, at)) === undefined)
    await asked('making the image definition', signal, () =>
      compute.galleryImages.createOrUpdate(
        options.resourceGroup,
        at.gallery,
        at.definition,
        definitionOf(ctx, at),
        long,
      ),
    );
  const names = [options.resourceGroup, at.gallery, at.definition, version] as const;
  const get = () => compute.galleryImageVersions.get(...names, { abortSignal: signal });
  const found = await askedFor('the image version', signal, get);
  if (found !== undefined && found.tags?.[MARK_TAG] !== ctx.mark)
    throw new PortError('CLOUD_CONFLICT', `version ${version} was made by somebody else meanwhile`);
  if (found?.provisioningState === 'Succeeded' && found.id !== undefined) return found.id;
  if (found !== undefined) await dropVersion(ctx, place, at, version);
  const body: GalleryImageVersion = {
    location: options.location,
    tags: tagsOf(ctx),
    publishingProfile: { targetRegions: [{ name: options.location, regionalReplicaCount: 1 }] },
    storageProfile: {
      osDiskImage: { hostCaching: 'ReadWrite', ...sourceOf(options, carriers.system) },
      dataDiskImages: carriers.data.map(({ carried }, lun) => ({ lun, ...sourceOf(options, carried) })),
    },
  };
  try {
    await asked('making the image version', signal, () =>
      compute.galleryImageVersions.createOrUpdate(...names, body, long),
    );
  } catch (error) {
    const left = await compute.galleryImageVersions.get(...names).catch(() => undefined);
    if (left?.provisioningState === 'Failed' && left.tags?.[MARK_TAG] === ctx.mark)
      await dropVersion(ctx, place, at, version);
    throw error;
  }
  const made = await asked('the image version', signal, get);
  if (made.provisioningState !== 'Succeeded' || made.id === undefined)
    throw new PortError(
      'CLOUD',
      `version ${version} is ${printable(made.provisioningState ?? 'in no state')}`,
    );
  return made.id;
}

/** Removes a version. */
export async function dropVersion(
  ctx: Pick<Context, 'signal'>,
  place: Place,
  at: GalleryPlace,
  version: string,
): Promise<void> {
  const { compute, options, pollMs } = place;
  await asked(`removing version ${printable(version)}`, ctx.signal, () =>
    compute.galleryImageVersions.delete(options.resourceGroup, at.gallery, at.definition, version, {
      abortSignal: ctx.signal,
      updateIntervalInMs: pollMs,
    }),
  );
}
