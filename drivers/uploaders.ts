/** Every client that brings an image into a cloud and registers it. A new one is one line here. */
import * as z from 'zod';
import { PortError } from '../core/errors.ts';
import { printable } from '../core/text.ts';
import type { Uploader } from '../core/uploader.ts';
import { alibabaUploader } from './alibaba/uploader.ts';
import { azureUploader } from './azure/uploader.ts';
import { gcpUploader } from './gcp/uploader.ts';
import { ociUploader } from './oci/uploader.ts';
import { openstackUploader } from './openstack/uploader.ts';
import { vmwareUploader } from './vmware/uploader.ts';
import { xenUploader } from './xen/uploader.ts';

// biome-ignore lint/suspicious/noExplicitAny: each client has options and a plan of its own, known only to itself
type AnyUploader = Uploader<any, any>;

/** Known clients, in the order of the platforms. */
export const uploaders: readonly AnyUploader[] = [
  openstackUploader,
  azureUploader,
  gcpUploader,
  vmwareUploader,
  xenUploader,
  ociUploader,
  alibabaUploader,
];

/** The client of a platform. Throws USAGE for a platform that takes files only. */
export function uploaderOf(platform: string): AnyUploader {
  const found = uploaders.find((u) => u.platform === platform);
  if (found !== undefined) return found;
  throw new PortError('USAGE', `there is no upload to ${printable(platform)}`, {
    hint: `uploads with options of their own: ${uploaders.map((u) => u.platform).join(', ') || 'none'}`,
  });
}

/**
 * Options of a target as its client understands them, defaults filled in. Throws USAGE naming the option that is wrong, or
 * that does not exist.
 */
export function targetOptions(platform: string, given: unknown): Record<string, unknown> {
  const { Options } = uploaderOf(platform);
  const parsed = Options.safeParse(given);
  if (parsed.success) return parsed.data as Record<string, unknown>;
  const [issue] = parsed.error.issues;
  const unknown = issue?.code === 'unrecognized_keys' ? ` ${issue.keys.map(printable).join(', ')}` : '';
  const at = issue?.path.length ? `.${issue.path.join('.')}` : '';
  const known = Options instanceof z.ZodObject ? Object.keys(Options.shape).join(', ') : '';
  throw new PortError('USAGE', `${platform}${at}: ${issue?.message ?? 'wrong'}${unknown}`, {
    ...(known === '' ? {} : { hint: `options of ${platform}: ${known}` }),
  });
}
