/**
 * What a sync writes on its blobs, and what it reads there. An image is two blobs side by side:
 *
 *     SYNC/SERIES/VERSION-DIGEST.vhd       the disk, a page blob; not touched any more once it is written
 *     SYNC/SERIES/VERSION-DIGEST.blocks    its list of blocks, and the marks that change. It is the truth: it names the ETag
 *                                          the disk had when it was proved
 */
import { createHash } from 'node:crypto';
import type { BlobItem } from '@azure/storage-blob';
import { type ImageIdentity, SYNC_WORD, type TargetImage } from '../../../core/sync/types.ts';

/** Metadata of a blob; names are C# identifiers there, values plain characters. */
export type Marks = Record<string, string>;

/** Names of marks. */
export const MARK = {
  sync: 'port_image_sync',
  id: 'port_image_id',
  series: 'port_image_series',
  version: 'port_image_version',
  sha256: 'port_image_sha256',
  file: 'port_image_file',
  owner: 'port_image_owner',
  alive: 'port_image_alive',
  /** `uploading`, `written` (content proved), `complete` (registered). */
  state: 'port_image_state',
  /** ETag of the disk. */
  etag: 'port_image_etag',
  /** Blob the disk was begun as a copy of, and its ETag. */
  base: 'port_image_base',
  baseEtag: 'port_image_base_etag',
  wanted: 'port_image_wanted',
  name: 'port_image_name',
  hidden: 'port_image_hidden_at',
  protected: 'port_image_protected',
  /** Resource id of the image. */
  image: 'port_image_resource',
} as const;

/** All of a blob's metadata is at most 8 KiB; none of ours needs more than this. */
const MOST_CHARS = 600;

/** One word for an image of a sync. */
export function markOf(sync: string, { series, version, rawSha256 }: ImageIdentity): string {
  return createHash('sha256')
    .update([sync, series, version, rawSha256].join('\0'))
    .digest('hex')
    .slice(0, 40);
}

/** Name of both blobs, without their ending. */
export function blobName(sync: string, { series, version, rawSha256 }: ImageIdentity): string {
  return `${sync}/${series}/${version}-${rawSha256.slice(0, 12)}`;
}

/** Marks as they are sent: a header without a value is none. */
export function sentMarks(marks: Marks): Marks {
  return Object.fromEntries(Object.entries(marks).filter(([, value]) => value !== ''));
}

/** Text as metadata can carry it. */
export const toMark = (text: string): string => encodeURIComponent(text).slice(0, MOST_CHARS);

/** The opposite. */
export function fromMark(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Marks that say which image it is. */
export function identityMarks(sync: string, identity: ImageIdentity, fileDigest: string): Marks {
  return {
    [MARK.sync]: sync,
    [MARK.id]: markOf(sync, identity),
    [MARK.series]: identity.series,
    [MARK.version]: identity.version,
    [MARK.sha256]: identity.rawSha256,
    [MARK.file]: toMark(fileDigest),
  };
}

/** Which image it is; undefined when the marks are not those of this sync, or on another blob than they were put on. */
export function identityOf(blob: { name: string; marks: Marks }, sync: string): ImageIdentity | undefined {
  const { marks } = blob;
  const identity = {
    series: marks[MARK.series] ?? '',
    version: marks[MARK.version] ?? '',
    rawSha256: marks[MARK.sha256] ?? '',
  };
  const isForm =
    SYNC_WORD.test(identity.series) &&
    SYNC_WORD.test(identity.version) &&
    /^[0-9a-f]{64}$/.test(identity.rawSha256);
  const isOurs =
    isForm &&
    marks[MARK.sync] === sync &&
    marks[MARK.id] === markOf(sync, identity) &&
    blob.name.replace(/\.(vhd|blocks)$/, '') === blobName(sync, identity);
  return isOurs ? identity : undefined;
}

/** A blob as a listing or a question tells of it. */
export interface FoundBlob {
  name: string;
  bytes: number;
  etag: string;
  createdAt: string;
  isLeased: boolean;
  marks: Marks;
}

/** Listings give names of metadata as they were written, headers in small letters; ours are small. */
export function foundBlob({ name, properties, metadata }: BlobItem): FoundBlob {
  return {
    name,
    bytes: properties.contentLength ?? 0,
    etag: plainEtag(properties.etag),
    createdAt: properties.createdOn?.toISOString() ?? '',
    isLeased: properties.leaseState === 'leased',
    marks: metadata ?? {},
  };
}

/** Listings give ETags without quotes, answers with them. */
export const plainEtag = (etag: string | undefined): string => (etag ?? '').replaceAll('"', '');

/** Both blobs of an image. */
export interface FoundImage {
  identity: ImageIdentity;
  disk: FoundBlob;
  blocks: FoundBlob | undefined;
}

/** Images among blobs, finished or not. */
export function imagesAmong(blobs: readonly FoundBlob[], sync: string): FoundImage[] {
  const byName = new Map(blobs.map((blob) => [blob.name, blob]));
  return blobs.flatMap((disk) => {
    const identity = disk.name.endsWith('.vhd') ? identityOf(disk, sync) : undefined;
    if (identity === undefined) return [];
    const blocks = byName.get(disk.name.replace(/\.vhd$/, '.blocks'));
    const isOurs = blocks !== undefined && identityOf(blocks, sync) !== undefined;
    return [{ identity, disk, blocks: isOurs ? blocks : undefined }];
  });
}

/** Whether the list of blocks is that of the disk as it is now. */
export function isProved({ disk, blocks }: FoundImage): boolean {
  return blocks !== undefined && disk.etag !== '' && blocks.marks[MARK.etag] === disk.etag;
}

/** An image as the sync sees it. */
export function targetImage({ identity, disk, blocks }: FoundImage): TargetImage {
  const marks = blocks?.marks ?? {};
  const isComplete = marks[MARK.state] === 'complete';
  // The later blob has the later sign of life.
  const newest = (marks[MARK.alive] ?? '') > (disk.marks[MARK.alive] ?? '') ? marks : disk.marks;
  const isLeased = disk.isLeased && !isComplete;
  const hiddenAt = marks[MARK.hidden] ?? '';
  return {
    ...identity,
    ref: isComplete ? fromMark(marks[MARK.image] ?? '') || disk.name : disk.name,
    name: fromMark(marks[MARK.name] ?? ''),
    fileDigest: fromMark(disk.marks[MARK.file] ?? ''),
    state: isComplete ? 'complete' : 'in-progress',
    owner: fromMark(newest[MARK.owner] ?? ''),
    aliveAt: isLeased ? new Date().toISOString() : (newest[MARK.alive] ?? ''),
    hidden: hiddenAt !== '',
    hiddenAt,
    createdAt: disk.createdAt,
    bytes: disk.bytes,
    wanted: marks[MARK.wanted] ?? '',
    inUse: undefined,
    protected: marks[MARK.protected] === 'true',
  };
}
