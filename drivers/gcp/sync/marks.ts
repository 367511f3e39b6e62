/**
 * What a sync writes on its images, and what it reads there. Labels find them: a label takes 63 small letters, digits, `_` and `-`, so the
 * truth is the description, JSON, which a patch changes together with the family.
 */
import { createHash } from 'node:crypto';
import * as z from 'zod';
import { type ImageIdentity, SYNC_WORD, type TargetImage } from '../../../core/sync/types.ts';
import type { GceImage } from '../../../tools/gcp/compute.ts';
import { gceName, labelValue } from '../image.ts';

/** Label: which sync made it, as far as a label can say it. */
export const SYNC_LABEL = 'port-image-sync';
/** Label: which image it is, one word. */
export const ID_LABEL = 'port-image-sync-id';
/** Label: its version, as far as a label can say it. */
const VERSION_LABEL = 'port-image-version';
/** Labels that carry a property of the image begin so; nothing else of these names is ours. */
export const PROPERTY_LABEL = 'property-';

const MARK_CHARS_IN_NAME = 12;
/** A description of Compute Engine is at most 2048 characters; each text of ours has a share. */
const TEXT_CHARS = 200;

const text = z.string().max(TEXT_CHARS * 2);
const Marks = z.object({
  sync: text,
  series: z.string().regex(SYNC_WORD),
  version: z.string().regex(SYNC_WORD),
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  file: text,
  owner: text,
  alive: text,
  /** `made`: proved or not, no family has it. `shown`: in its family, older ones may be before it. */
  state: z.enum(['made', 'shown', 'complete']),
  name: text,
  wanted: text,
  hidden: text,
  protected: z.boolean(),
});
/** What the description says. */
export type Marks = z.infer<typeof Marks>;

/** One word for an image of a sync. */
export function markOf(sync: string, { series, version, rawSha256 }: ImageIdentity): string {
  return createHash('sha256')
    .update([sync, series, version, rawSha256].join('\0'))
    .digest('hex')
    .slice(0, 40);
}

/** A name has to begin with a letter: one is put before what does not. */
const lettered = (name: string): string => (/^[A-Za-z]/.test(name) ? name : `image-${name}`);

/** Name of the image, the same for everybody who makes it: names are unique in a project, so there can be only one. */
export function imageName(sync: string, identity: ImageIdentity): string {
  const mark = markOf(sync, identity).slice(0, MARK_CHARS_IN_NAME);
  return gceName(lettered(`${identity.series}-${identity.version}`), mark);
}

/** Family of all versions of a series. */
export const familyOf = (series: string): string => gceName(lettered(series));

/** Labels that say which image it is. */
export function identityLabels(sync: string, identity: ImageIdentity): Record<string, string> {
  return {
    [SYNC_LABEL]: labelValue(sync),
    [ID_LABEL]: markOf(sync, identity),
    [VERSION_LABEL]: labelValue(identity.version),
  };
}

/** Marks as a description. */
export function descriptionOf(marks: Marks): string {
  const { name, owner, file } = marks;
  return JSON.stringify({
    ...marks,
    name: name.slice(0, TEXT_CHARS),
    owner: owner.slice(0, TEXT_CHARS),
    file: file.slice(0, TEXT_CHARS),
  } satisfies Marks);
}

function marksIn(description: string): Marks | undefined {
  try {
    return Marks.safeParse(JSON.parse(description)).data;
  } catch {
    return undefined;
  }
}

/** An image of this sync with what it says. */
export interface FoundImage {
  image: GceImage;
  marks: Marks;
  identity: ImageIdentity;
}

/** Undefined for one of somebody else, also for a copy that has all of our marks. */
export function foundImage(image: GceImage, sync: string): FoundImage | undefined {
  const marks = marksIn(image.description);
  if (marks === undefined) return undefined;
  const identity = { series: marks.series, version: marks.version, rawSha256: marks.sha256 };
  const isOurs =
    marks.sync === sync &&
    image.labels[ID_LABEL] === markOf(sync, identity) &&
    image.name === imageName(sync, identity);
  return isOurs ? { image, marks, identity } : undefined;
}

/** Its family does not show it, and not because a newer version stands before it: then a replacement is named. */
export function isHidden({ image: { deprecated } }: FoundImage): boolean {
  const { state = 'ACTIVE', replacement } = deprecated ?? {};
  return state !== 'ACTIVE' && replacement === undefined;
}

/** An image as the sync sees it. */
export function targetImage(found: FoundImage): TargetImage {
  const { image, marks, identity } = found;
  const hidden = isHidden(found);
  return {
    ...identity,
    ref: image.name,
    name: marks.name,
    fileDigest: marks.file,
    state: marks.state === 'complete' && image.status === 'READY' ? 'complete' : 'in-progress',
    owner: marks.owner,
    aliveAt: marks.alive,
    hidden,
    hiddenAt: hidden ? marks.hidden : '',
    createdAt: image.creationTimestamp,
    bytes: image.archiveSizeBytes,
    wanted: marks.wanted,
    inUse: undefined,
    protected: marks.protected,
  };
}
