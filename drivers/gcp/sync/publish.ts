/**
 * How an image is shown: its labels, its family and its place in it. A family shows the image that was made last and is not deprecated
 * (docs.cloud.google.com/compute/docs/images/image-families-best-practices), which is not the newest version when an older one is made
 * after it: then the older one is deprecated, with the newer one as its replacement.
 */
import { PortError } from '../../../core/errors.ts';
import type { SyncContext, WantedImage } from '../../../core/sync/types.ts';
import { compareVersions } from '../../../core/sync/versions.ts';
import { printable } from '../../../core/text.ts';
import type { GceImage } from '../../../tools/gcp/compute.ts';
import { patchImage, setDeprecation, setLabels } from '../../../tools/gcp/compute-changes.ts';
import { GcpError } from '../../../tools/gcp/errors.ts';
import { labelValue } from '../image.ts';
import type { GcpPlaceOfSync } from './archive.ts';
import {
  descriptionOf,
  type FoundImage,
  familyOf,
  foundImage,
  identityLabels,
  isHidden,
  type Marks,
  PROPERTY_LABEL,
  SYNC_LABEL,
} from './marks.ts';

/** A resource has 64 labels; some are left to people. */
const MOST_PROPERTIES = 40;
/** Keys of labels (docs.cloud.google.com/compute/docs/labeling-resources). */
const LABEL_KEY = /^[a-z][a-z0-9_-]{0,62}$/;

/** Images of this sync. One listing. */
export async function imagesOf(
  { sync, services }: GcpPlaceOfSync,
  signal: AbortSignal,
): Promise<FoundImage[]> {
  const labelled = await services.compute.labelled(SYNC_LABEL, labelValue(sync), signal);
  return labelled.flatMap((image) => foundImage(image, sync) ?? []);
}

/** The image when it is there. Throws CLOUD_CONFLICT for one of somebody else. */
export async function ownImage(
  { sync, services }: GcpPlaceOfSync,
  name: string,
  signal: AbortSignal,
): Promise<FoundImage | undefined> {
  const image = await services.compute.image(name, signal);
  if (image === undefined) return undefined;
  const found = foundImage(image, sync);
  if (found !== undefined) return found;
  throw new PortError('CLOUD_CONFLICT', `${printable(name)} is not of this sync and is left alone`);
}

/** Labels of the properties, in the letters a label takes. */
function propertyLabels(
  { name, properties }: WantedImage,
  warn: (text: string) => void,
): Record<string, string> {
  const fits = Object.entries(properties).filter(([key]) => LABEL_KEY.test(PROPERTY_LABEL + key));
  const taken = fits.slice(0, MOST_PROPERTIES);
  const left = Object.keys(properties).length - taken.length;
  if (left > 0)
    warn(`${left} properties of ${printable(name)} do not fit into labels of Google Cloud and are left out`);
  return Object.fromEntries(taken.map(([key, value]) => [PROPERTY_LABEL + key, labelValue(value)]));
}

/** Labels as they shall be; those of people stay. */
export function wantedLabels(
  of: GcpPlaceOfSync,
  { identity, labels }: { identity: FoundImage['identity']; labels: Readonly<Record<string, string>> },
  wanted: WantedImage,
  warn: (text: string) => void,
): Record<string, string> {
  const kept = Object.entries(labels).filter(([key]) => !key.startsWith(PROPERTY_LABEL));
  return {
    ...Object.fromEntries(kept),
    ...propertyLabels(wanted, warn),
    ...identityLabels(of.sync, identity),
  };
}

const isEqual = (a: Readonly<Record<string, string>>, b: Readonly<Record<string, string>>): boolean =>
  Object.keys(a).length === Object.keys(b).length &&
  Object.entries(a).every(([key, value]) => b[key] === value);

const madeAt = ({ image }: FoundImage): number => Date.parse(image.creationTimestamp);

/** Marks of a deprecation for order: nobody asked to hide it. */
const isOvertaken = ({ deprecated }: GceImage): boolean => deprecated?.replacement !== undefined;

/** Others of the series that its family shows, or did. Throws CLOUD_CONFLICT when another series has the same family. */
function visibleOthers(own: FoundImage, images: readonly FoundImage[]): FoundImage[] {
  const family = familyOf(own.identity.series);
  const isVisible = (one: FoundImage) => one.marks.state !== 'made' && !isHidden(one);
  const others = images.filter((one) => one.image.name !== own.image.name && isVisible(one));
  const stranger = others.find(
    ({ identity }) => identity.series !== own.identity.series && familyOf(identity.series) === family,
  );
  if (stranger !== undefined)
    throw new PortError(
      'CLOUD_CONFLICT',
      `${printable(own.identity.series)} and ${printable(stranger.identity.series)} would share the image family ${family}`,
      { hint: 'give one of them another name in its source' },
    );
  return others.filter(({ identity }) => identity.series === own.identity.series);
}

/** Lets the family show the newest version. Others are touched only when the image is in the family itself. */
async function order(
  { services: { compute } }: GcpPlaceOfSync,
  own: FoundImage,
  images: readonly FoundImage[],
  signal: AbortSignal,
  isInFamily: boolean,
): Promise<void> {
  const others = visibleOthers(own, images);
  const isNewer = (one: FoundImage) => compareVersions(one.identity.version, own.identity.version) > 0;
  const before = others.find((one) => isNewer(one) && madeAt(one) < madeAt(own));
  const { name, deprecated, selfLink } = own.image;
  if (before !== undefined && !isOvertaken(own.image))
    await setDeprecation(compute, name, { state: 'DEPRECATED', replacement: before.image.selfLink }, signal);
  if (before === undefined && deprecated !== undefined)
    await setDeprecation(compute, name, undefined, signal);
  if (!isInFamily) return;
  for (const one of others)
    if (!isNewer(one) && madeAt(one) > madeAt(own) && !isOvertaken(one.image))
      await setDeprecation(compute, one.image.name, { state: 'DEPRECATED', replacement: selfLink }, signal);
}

/**
 * Shows an image as it is wanted. Its digest is the last thing that is written: what was cut before is done once more. One that
 * was complete stays so meanwhile.
 */
export async function show(
  of: GcpPlaceOfSync,
  own: FoundImage,
  wanted: WantedImage,
  wantedDigest: string,
  ctx: SyncContext,
): Promise<void> {
  const { compute } = of.services;
  const { signal, warn } = ctx;
  const { image, marks, identity } = own;
  const { name } = image;
  const labels = wantedLabels(of, { identity, labels: image.labels }, wanted, warn);
  if (!isEqual(labels, image.labels)) await changeLabels(of, image, labels, signal);
  await order(of, own, await imagesOf(of, signal), signal, false);
  const shown: Marks = { ...marks, state: marks.state === 'complete' ? 'complete' : 'shown' };
  const family = familyOf(identity.series);
  if (image.family !== family || marks.state === 'made')
    await patchImage(compute, name, { family, description: descriptionOf(shown) }, signal);
  // Once more: a run that shows another version may not have seen this one.
  const images = await imagesOf(of, signal);
  const now = images.find((one) => one.image.name === name);
  if (now === undefined) throw new PortError('CLOUD', `image ${name} is gone`, { temporary: true });
  await order(of, now, images, signal, true);
  const complete: Marks = {
    ...shown,
    state: 'complete',
    name: wanted.name,
    wanted: wantedDigest,
    protected: wanted.protected,
    hidden: '',
  };
  await patchImage(compute, name, { description: descriptionOf(complete) }, signal);
}

async function changeLabels(
  { services: { compute } }: GcpPlaceOfSync,
  image: GceImage,
  labels: Record<string, string>,
  signal: AbortSignal,
): Promise<void> {
  try {
    await setLabels(compute, image, labels, signal);
  } catch (error) {
    if (!(error instanceof GcpError) || error.status !== 412) throw error;
    throw new PortError('CLOUD', `labels of image ${image.name} were changed by somebody else meanwhile`, {
      temporary: true,
      cause: error,
    });
  }
}
