/** What says that a thing in AWS was made by this program, and by which job. */
import { createHash } from 'node:crypto';
import type { Image } from '@aws-sdk/client-ec2';
import { printable } from '../../core/text.ts';
import type { UploadContext } from '../../core/uploader.ts';
import { fileId } from '../../core/work-disks.ts';
import type { AwsOptions } from './options.ts';

/** What the client is given. */
export type Context = UploadContext<AwsOptions>;

/** Tag: made by chance for a job. */
export const MARK_TAG = 'port-image-mark';
/** Tag: name of the image as the user chose it. */
export const NAME_TAG = 'port-image-name';
/** Longest value of a tag (EC2 User Guide, "Tag your Amazon EC2 resources"). */
const TAG_CHARS = 256;

/** Tags of everything of this job. */
export function tagsOf(ctx: Context): Record<string, string> {
  const { id, version, source } = ctx.identity;
  const optional = {
    'port-image-id': id,
    'port-image-version': version,
    'port-image-source': source,
    'port-image-contract': ctx.contractSha256 === '' ? undefined : ctx.contractSha256,
    'port-image-verified': ctx.verified === undefined ? undefined : String(ctx.verified),
  };
  const tags: Record<string, string> = { ...ctx.options.tags, Name: ctx.name };
  for (const [key, value] of Object.entries(optional)) if (value !== undefined) tags[key] = value;
  tags[NAME_TAG] = ctx.name;
  tags[MARK_TAG] = ctx.mark;
  return Object.fromEntries(Object.entries(tags).map(([key, value]) => [key, value.slice(0, TAG_CHARS)]));
}

/**
 * Name of the image in EC2: unique in account and region, 3 to 128 characters of a fixed set (API_RegisterImage). Six digits
 * of the mark keep versions apart.
 */
export function amiName({ name, mark }: Pick<Context, 'name' | 'mark'>): string {
  const plain = name.replace(/[^A-Za-z0-9().\-/_]/g, '-').slice(0, 100);
  return `${plain}-${mark.slice(0, 6)}`;
}

/**
 * Whether this program made an image, and nobody since: a copy that somebody made of one has its tags, but a name of its own.
 */
export function isOurs(image: Image, name: string): boolean {
  const mark = tagOf(image, MARK_TAG);
  return mark !== undefined && tagOf(image, NAME_TAG) === name && image.Name === amiName({ name, mark });
}

/** What a snapshot says about itself; a copy of it says something else. */
export function snapshotDescription(ctx: Pick<Context, 'name'>, disk: string | undefined): string {
  return printable(`${ctx.name} ${disk ?? ''}, made by port-image`).slice(0, 255);
}

/** Value of one of our tags. */
export function tagOf(thing: Pick<Image, 'Tags'>, key: string): string | undefined {
  return thing.Tags?.find((tag) => tag.Key === key)?.Value;
}

/** Makes a repeated request the same one; at most 64 characters. */
export function clientToken(...parts: string[]): string {
  return createHash('sha256').update(parts.join('\0')).digest('hex').slice(0, 40);
}

/** Journal of a disk's upload, beside the target's state file. */
export function journalOf(ctx: Pick<Context, 'stateFile'>, disk: string | undefined): string {
  const suffix = disk === undefined ? '' : `-${fileId(disk)}`;
  return ctx.stateFile.replace(/\.json$/, `${suffix}.blocks`);
}
