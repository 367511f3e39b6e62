/** What says that a thing in the cloud was made by this program, and by which job. */
import type { UploadContext } from '../../core/uploader.ts';
import type { AzureOptions } from './options.ts';

/** Tag of a resource: made by chance for a job. */
export const MARK_TAG = 'port-image-mark';
/** Tag of a resource: name of the image. */
const NAME_TAG = 'port-image-name';
/** Metadata of a blob; names are C# identifiers there. */
export const MARK_METADATA = 'port_image_mark';
/** Blob metadata: `uploading`, `complete`. */
const STATE_METADATA = 'port_image_state';
/** Values of tags: Microsoft Learn, "Use tags to organize your Azure resources", 256 characters. */
const TAG_CHARS = 256;

type Context = Pick<
  UploadContext<AzureOptions>,
  'name' | 'mark' | 'options' | 'identity' | 'verified' | 'contractSha256'
>;

/** Tags of everything of this job. */
export function tagsOf(ctx: Context): Record<string, string> {
  const { id, version } = ctx.identity;
  const verified = ctx.verified === undefined ? {} : { 'port-image-verified': String(ctx.verified) };
  return {
    ...ctx.options.tags,
    [NAME_TAG]: ctx.name.slice(0, TAG_CHARS),
    [MARK_TAG]: ctx.mark,
    ...(id === undefined ? {} : { 'port-image-id': id.slice(0, TAG_CHARS) }),
    ...(version === undefined ? {} : { 'port-image-version': version.slice(0, TAG_CHARS) }),
    ...(ctx.contractSha256 === '' ? {} : { 'port-image-contract': ctx.contractSha256 }),
    ...verified,
  };
}

/** Metadata of a blob: travels as HTTP headers, so plain characters only. */
export function metadataOf(
  ctx: Context,
  state: 'uploading' | 'complete',
  sha256: string,
): Record<string, string> {
  const plain = (text: string) => text.replace(/[^\x21-\x7e]/g, '_').slice(0, TAG_CHARS);
  const { id, version } = ctx.identity;
  return {
    [MARK_METADATA]: ctx.mark,
    [STATE_METADATA]: state,
    port_image_name: plain(ctx.name),
    port_image_sha256: sha256,
    ...(id === undefined ? {} : { port_image_id: plain(id) }),
    ...(version === undefined ? {} : { port_image_version: plain(version) }),
  };
}
