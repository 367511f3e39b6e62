/** A managed image: all disks of the server in one resource, for generalized systems. */
import type { Image } from '@azure/arm-compute';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import type { UploadContext } from '../../core/uploader.ts';
import { MARK_TAG, tagsOf } from './marks.ts';
import type { AzureOptions } from './options.ts';
import type { Carried } from './page-blob.ts';
import { asked, askedFor, type Place } from './place.ts';

/** What a registration is told; part of an UploadContext. */
export type ImageContext = Pick<
  UploadContext<AzureOptions>,
  'name' | 'mark' | 'options' | 'identity' | 'verified' | 'contractSha256' | 'signal'
> & {
  facts: { firmware: 'bios' | 'uefi'; os: { arch: string } };
  contract: { facts: { drivers: string[]; networkDrivers?: string[] | undefined } } | undefined;
};
type Context = ImageContext;

/** What carries the system's disk, and what the further ones in the order of their ids. */
export interface Carriers {
  system: Carried;
  data: { disk: string; carried: Carried }[];
}

const sourceOf = ({ source }: Carried) =>
  'blobUri' in source ? { blobUri: source.blobUri } : { managedDisk: { id: source.diskId } };

/** Makes the image, or finds that of an earlier run. Returns its resource id. Throws CLOUD_CONFLICT, CLOUD. */
export async function makeImage(
  ctx: Context,
  place: Place,
  name: string,
  carriers: Carriers,
): Promise<string> {
  const { compute, options, pollMs } = place;
  const { signal } = ctx;
  const what = `image ${printable(name)}`;
  const get = () => compute.images.get(options.resourceGroup, name, { abortSignal: signal });
  const found = await askedFor(what, signal, get);
  if (found !== undefined && found.tags?.[MARK_TAG] !== ctx.mark)
    throw new PortError('CLOUD_CONFLICT', `${what} was made by somebody else meanwhile`);
  if (found?.provisioningState === 'Succeeded' && found.id !== undefined) return found.id;
  if (found !== undefined) await dropImage(ctx, place, name);
  const image: Image = {
    location: options.location,
    tags: tagsOf(ctx),
    hyperVGeneration: ctx.facts.firmware === 'uefi' ? 'V2' : 'V1',
    storageProfile: {
      osDisk: { osType: 'Linux', osState: 'Generalized', caching: 'ReadWrite', ...sourceOf(carriers.system) },
      dataDisks: carriers.data.map(({ carried }, lun) => ({ lun, ...sourceOf(carried) })),
      zoneResilient: false,
    },
  };
  try {
    await asked(`making ${what}`, signal, () =>
      compute.images.createOrUpdate(options.resourceGroup, name, image, {
        abortSignal: signal,
        updateIntervalInMs: pollMs,
      }),
    );
  } catch (error) {
    if (!(error instanceof PortError && error.code === 'INTERRUPTED')) await dropFailed(ctx, place, name);
    throw error;
  }
  const made = await asked(what, signal, get);
  if (made.provisioningState !== 'Succeeded' || made.id === undefined)
    throw new PortError('CLOUD', `${what} is ${printable(made.provisioningState ?? 'in no state')}`);
  return made.id;
}

/** An image that could not be made stays as `Failed` and blocks its name. */
async function dropFailed(ctx: Context, place: Place, name: string): Promise<void> {
  const { compute, options } = place;
  const found = await compute.images.get(options.resourceGroup, name).catch(() => undefined);
  if (found?.provisioningState === 'Failed' && found.tags?.[MARK_TAG] === ctx.mark)
    await dropImage(ctx, place, name);
}

/** Removes an image. */
export async function dropImage(ctx: Pick<Context, 'signal'>, place: Place, name: string): Promise<void> {
  const { compute, options, pollMs } = place;
  await asked(`removing image ${printable(name)}`, ctx.signal, () =>
    compute.images.delete(options.resourceGroup, name, {
      abortSignal: ctx.signal,
      updateIntervalInMs: pollMs,
    }),
  );
}
