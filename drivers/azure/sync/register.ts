/** The image over a disk: a managed image, or a version in a compute gallery. Its name follows from the identity. */
import type { GalleryImageVersion } from '@azure/arm-compute';
import { PortError } from '../../../core/errors.ts';
import type { CreateInput, ImageIdentity, SyncContext, WantedImage } from '../../../core/sync/types.ts';
import { printable } from '../../../core/text.ts';
import { statusOf } from '../../../tools/azure/errors.ts';
import { dropVersion, type GalleryPlace, makeVersion, nextVersion, versionsOf } from '../gallery.ts';
import { dropImage, type ImageContext, makeImage } from '../managed-image.ts';
import { MARK_TAG } from '../marks.ts';
import type { AzureOptions } from '../options.ts';
import { asked, askedFor, type Place } from '../place.ts';
import { markOf } from './marks.ts';

/** Resources have 50 tags; names of them take no `<>%&\?/` (Microsoft Learn, "Use tags"). */
const MOST_PROPERTIES = 24;
const PROPERTY_TAG = 'property-';
const HIDDEN_TAG = 'port-image-hidden-at';
const TITLE_TAG = 'port-image-title';
const WRONG_IN_TAG = /[<>%&\\?/]/;
/** Each part of a version is a number of 32 bits; the schema of options takes nine digits. */
const VERSION_PART = /^\d{1,9}$/;

const plain = (text: string, most: number): string =>
  text
    .replace(/[^A-Za-z0-9_.-]/g, '-')
    .slice(0, most)
    .replace(/[.-]+$/, '');

/** Name of a managed image. */
export function imageName(sync: string, identity: ImageIdentity): string {
  return `${plain(`${identity.series}-${identity.version}`, 66)}-${markOf(sync, identity).slice(0, 8)}`;
}

/** Gallery and definition, when options name one. */
export function galleryOf(options: AzureOptions, series: string): GalleryPlace | undefined {
  const { gallery, definition } = options;
  return gallery === undefined ? undefined : { gallery, definition: definition ?? plain(series, 80) };
}

/** A version as a gallery takes it: up to three numbers of ours as they are; undefined for any other. */
export function galleryVersion(version: string): string | undefined {
  const parts = version.split('.');
  if (parts.length > 3 || !parts.every((part) => VERSION_PART.test(part))) return undefined;
  return [...parts, '0', '0'].slice(0, 3).map(Number).join('.');
}

/** Tags that show what was asked for. */
function wantedTags({ name, properties }: WantedImage, warn: (text: string) => void): Record<string, string> {
  const tags: Record<string, string> = { [TITLE_TAG]: name.slice(0, 256) };
  const fits = Object.entries(properties).filter(
    ([key, value]) => !WRONG_IN_TAG.test(key) && key.length < 400 && value.length <= 256,
  );
  for (const [key, value] of fits.slice(0, MOST_PROPERTIES)) tags[`${PROPERTY_TAG}${key}`] = value;
  const left = Object.keys(properties).length - Math.min(fits.length, MOST_PROPERTIES);
  if (left > 0)
    warn(`${left} properties of ${printable(name)} do not fit into tags of Azure and are left out`);
  return tags;
}

function contextOf(input: CreateInput, sync: string, options: AzureOptions): ImageContext {
  const { identity, image, wanted, signal, warn } = input;
  const tags = {
    ...options.tags,
    ...wantedTags(wanted, warn),
    'port-image-sync': sync,
    'port-image-sha256': identity.rawSha256,
  };
  return {
    name: identity.series,
    mark: markOf(sync, identity),
    options: { ...options, tags },
    identity: { id: identity.series, version: identity.version, source: 'sync' },
    verified: undefined,
    contractSha256: '',
    signal,
    facts: { firmware: image.firmware, os: { arch: image.arch } },
    contract: undefined,
  };
}

/** Makes the image, or finds it. Returns its resource id. Throws CLOUD_CONFLICT, CLOUD. */
export async function register(
  input: CreateInput,
  sync: string,
  place: Place,
  blobUri: string,
): Promise<string> {
  const { options } = place;
  const ctx = contextOf(input, sync, options);
  const carriers = { system: { source: { blobUri }, sentBytes: 0, dataBytes: 0, proof: '' }, data: [] };
  const at = galleryOf(options, input.identity.series);
  if (at === undefined) return makeImage(ctx, place, imageName(sync, input.identity), carriers);
  const definition = await askedFor('the image definition', ctx.signal, () =>
    place.compute.galleryImages.get(options.resourceGroup, at.gallery, at.definition, {
      abortSignal: ctx.signal,
    }),
  );
  const there = definition === undefined ? [] : await versionsOf(ctx, place, at);
  const names = there.map((version) => version.name ?? '');
  const ours = there.find((version) => version.tags?.[MARK_TAG] === ctx.mark)?.name;
  const asNamed = galleryVersion(input.identity.version);
  const free = asNamed === undefined || names.includes(asNamed) ? nextVersion(names) : asNamed;
  return makeVersion(ctx, place, at, ours ?? free, carriers);
}

/** A registered image by its resource id. */
export type Registered =
  | { kind: 'image'; name: string }
  | { kind: 'version'; at: GalleryPlace; name: string };

/** What a resource id names; undefined for anything else. */
export function registered(id: string): Registered | undefined {
  const [, gallery, definition, version] =
    /\/galleries\/([^/]+)\/images\/([^/]+)\/versions\/([^/]+)$/i.exec(id) ?? [];
  if (gallery !== undefined && definition !== undefined && version !== undefined)
    return { kind: 'version', at: { gallery, definition }, name: version };
  const [, image] = /\/images\/([^/]+)$/i.exec(id) ?? [];
  return image === undefined ? undefined : { kind: 'image', name: image };
}

/** Tags and visibility of a registered image. One that is gone is no error. */
export async function change(
  id: string,
  place: Place,
  mark: string,
  ctx: SyncContext,
  wanted: { image?: WantedImage; hiddenAt: string },
): Promise<void> {
  const { compute, options } = place;
  const group = options.resourceGroup;
  const long = { abortSignal: ctx.signal, updateIntervalInMs: place.pollMs };
  const short = { abortSignal: ctx.signal };
  const found = registered(id);
  if (found === undefined) return;
  const tagsFrom = (now: Record<string, string> = {}): Record<string, string> => {
    if (now[MARK_TAG] !== mark) throw notOurs(id);
    const kept = Object.entries(now).filter(
      ([key]) => wanted.image === undefined || !key.startsWith(PROPERTY_TAG),
    );
    return {
      ...Object.fromEntries(kept),
      ...(wanted.image === undefined ? {} : wantedTags(wanted.image, ctx.warn)),
      [HIDDEN_TAG]: wanted.hiddenAt,
    };
  };
  if (found.kind === 'image') {
    const now = await askedFor('the image', ctx.signal, () => compute.images.get(group, found.name, short));
    if (now === undefined) return;
    const tags = tagsFrom(now.tags);
    await asked('changing the image', ctx.signal, () =>
      compute.images.update(group, found.name, { tags }, long),
    );
    return;
  }
  const names = [group, found.at.gallery, found.at.definition, found.name] as const;
  const now = await askedFor('the image version', ctx.signal, () =>
    compute.galleryImageVersions.get(...names, short),
  );
  if (now === undefined) return;
  const tags = tagsFrom(now.tags);
  await asked('changing the image version', ctx.signal, () =>
    compute.galleryImageVersions.update(
      ...names,
      { tags, publishingProfile: profileOf(now, wanted.hiddenAt !== '') },
      long,
    ),
  );
}

/** What of a profile may be sent back. */
function profileOf({ publishingProfile }: GalleryImageVersion, excludeFromLatest: boolean) {
  const targetRegions = publishingProfile?.targetRegions;
  return { excludeFromLatest, ...(targetRegions === undefined ? {} : { targetRegions }) };
}

const notOurs = (id: string): PortError =>
  new PortError('CLOUD_CONFLICT', `${printable(id)} is not of this sync and is left alone`);

/** Removes a registered image; none is no error. Throws CLOUD_CONFLICT when Azure refuses because it is in use. */
export async function unregister(id: string, place: Place, mark: string, ctx: SyncContext): Promise<void> {
  const { compute, options } = place;
  const group = options.resourceGroup;
  const short = { abortSignal: ctx.signal };
  const found = registered(id);
  if (found === undefined) return;
  const now = await askedFor('the image', ctx.signal, async () =>
    found.kind === 'image'
      ? compute.images.get(group, found.name, short)
      : compute.galleryImageVersions.get(group, found.at.gallery, found.at.definition, found.name, short),
  );
  if (now === undefined) return;
  if (now.tags?.[MARK_TAG] !== mark) throw notOurs(id);
  try {
    if (found.kind === 'image') await dropImage(ctx, place, found.name);
    else await dropVersion(ctx, place, found.at, found.name);
  } catch (error) {
    if (statusOf(error) !== 409) throw error;
    throw new PortError(
      'CLOUD_CONFLICT',
      `Azure does not remove ${printable(found.name)}: ${(error as Error).message}`,
      {
        cause: error,
        hint: 'it is in use; it is removed in a later night',
      },
    );
  }
}
