/** What a sync writes on its things in EC2, and what it reads there. Tags are the truth; everything else is a cache. */
import { createHash } from 'node:crypto';
import type { Image, Snapshot } from '@aws-sdk/client-ec2';
import { GIB } from '../../../core/sizes.ts';
import { type ImageIdentity, SYNC_WORD, type TargetImage } from '../../../core/sync/types.ts';
import { printable } from '../../../core/text.ts';
import { isProtected } from '../../../tools/aws/ec2-published.ts';
import { tagOf } from '../marks.ts';

/** Tag: which sync made it. */
export const SYNC_TAG = 'port-image-sync';
/** Tag: which image it is, one word for filters. */
export const ID_TAG = 'port-image-sync-id';
/** Tag: `in-progress` or `complete`. */
export const STATE_TAG = 'port-image-state';
/** Tag: `RUN@HOST`. */
export const OWNER_TAG = 'port-image-owner';
/** Tag: last sign of life. */
export const ALIVE_TAG = 'port-image-alive';
/** Tag: since when it is hidden. */
export const HIDDEN_TAG = 'port-image-hidden-at';
/** Tag: digest of what was asked for. */
export const WANTED_TAG = 'port-image-wanted';
/** Tag: key the snapshot is encrypted with. */
export const KEY_TAG = 'port-image-kms';
const SERIES_TAG = 'port-image-series';
const VERSION_TAG = 'port-image-version';
const SHA_TAG = 'port-image-sha256';
const FILE_TAG = 'port-image-file';
/** Tags that carry a property of the image begin so; nothing else of these names is ours. */
export const PROPERTY_TAG = 'property:';
/** Longest key and value of a tag (EC2 User Guide, "Tag your Amazon EC2 resources"). */
export const TAG_CHARS = { key: 128, value: 256 } as const;

/** One word for an image of a sync. */
export function markOf(sync: string, { series, version, rawSha256 }: ImageIdentity): string {
  return createHash('sha256')
    .update([sync, series, version, rawSha256].join('\0'))
    .digest('hex')
    .slice(0, 40);
}

/**
 * Name in EC2: the same for everybody who makes this image, and unique in account and region, so that there can be only one. It
 * begins with the series: other accounts see no tags, and find an image by its name alone.
 */
export function amiName(sync: string, identity: ImageIdentity): string {
  // 3 to 128 characters of a fixed set (API_RegisterImage)
  const plain = `${identity.series}-${identity.version}`.replace(/[^A-Za-z0-9().\-/_]/g, '-').slice(0, 110);
  return `${plain}-${markOf(sync, identity).slice(0, 12)}`;
}

/** What a snapshot says about itself; a copy of it says something else. */
export function descriptionOf(sync: string, identity: ImageIdentity): string {
  return printable(`port-image sync ${sync}: ${amiName(sync, identity)}`).slice(0, 255);
}

/** Tags that say which image it is. */
export function identityTags(
  sync: string,
  identity: ImageIdentity,
  fileDigest: string,
): Record<string, string> {
  return {
    [SYNC_TAG]: sync,
    [ID_TAG]: markOf(sync, identity),
    [SERIES_TAG]: identity.series,
    [VERSION_TAG]: identity.version,
    [SHA_TAG]: identity.rawSha256,
    [FILE_TAG]: fileDigest.slice(0, TAG_CHARS.value),
  };
}

/** Which image it is; undefined when the tags are not those of this sync. */
export function identityOf(thing: Pick<Image | Snapshot, 'Tags'>, sync: string): ImageIdentity | undefined {
  const identity = {
    series: tagOf(thing, SERIES_TAG) ?? '',
    version: tagOf(thing, VERSION_TAG) ?? '',
    rawSha256: tagOf(thing, SHA_TAG) ?? '',
  };
  const isForm =
    SYNC_WORD.test(identity.series) &&
    SYNC_WORD.test(identity.version) &&
    /^[0-9a-f]{64}$/.test(identity.rawSha256);
  const isOurs = isForm && tagOf(thing, SYNC_TAG) === sync && tagOf(thing, ID_TAG) === markOf(sync, identity);
  return isOurs ? identity : undefined;
}

/** The snapshot of its system disk. */
export function snapshotOf(image: Image): string | undefined {
  return image.BlockDeviceMappings?.find((m) => m.Ebs?.SnapshotId !== undefined)?.Ebs?.SnapshotId;
}

/** An image as the sync sees it; undefined for one of somebody else, also for a copy that has all of our tags. */
export function imageOf(image: Image, sync: string): TargetImage | undefined {
  const identity = identityOf(image, sync);
  if (identity === undefined || image.Name !== amiName(sync, identity)) return undefined;
  const hiddenAt = tagOf(image, HIDDEN_TAG) ?? '';
  return {
    ...identity,
    ref: image.ImageId ?? '',
    name: tagOf(image, 'Name') ?? image.Name,
    fileDigest: tagOf(image, FILE_TAG) ?? '',
    state: tagOf(image, STATE_TAG) === 'complete' && image.State === 'available' ? 'complete' : 'in-progress',
    owner: tagOf(image, OWNER_TAG) ?? '',
    aliveAt: tagOf(image, ALIVE_TAG) ?? '',
    hidden: hiddenAt !== '',
    hiddenAt,
    createdAt: image.CreationDate ?? '',
    bytes: (image.BlockDeviceMappings?.find((m) => m.Ebs?.VolumeSize)?.Ebs?.VolumeSize ?? 0) * GIB,
    wanted: tagOf(image, WANTED_TAG) ?? '',
    inUse: undefined,
    protected: isProtected(image),
  };
}

/** An image that is only a snapshot yet; undefined for one of somebody else. */
export function unfinishedOf(snapshot: Snapshot, sync: string): TargetImage | undefined {
  const identity = identityOf(snapshot, sync);
  if (identity === undefined || snapshot.Description !== descriptionOf(sync, identity)) return undefined;
  return {
    ...identity,
    ref: snapshot.SnapshotId ?? '',
    name: tagOf(snapshot, 'Name') ?? '',
    fileDigest: tagOf(snapshot, FILE_TAG) ?? '',
    state: 'in-progress',
    owner: tagOf(snapshot, OWNER_TAG) ?? '',
    aliveAt: tagOf(snapshot, ALIVE_TAG) ?? '',
    hidden: false,
    hiddenAt: '',
    createdAt: snapshot.StartTime?.toISOString() ?? '',
    bytes: (snapshot.VolumeSize ?? 0) * GIB,
    wanted: '',
    inUse: undefined,
    protected: false,
  };
}
