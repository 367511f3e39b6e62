/** Every client that brings an image into a cloud and registers it. A new one is one line here. */
import * as z from 'zod';
import { PortError } from '../core/errors.ts';
import { printable } from '../core/text.ts';
import type { Uploader } from '../core/uploader.ts';
import { alibabaUploader } from './alibaba/uploader.ts';
import { awsUploader } from './aws/uploader.ts';
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
  awsUploader,
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
  let parsed = Options.safeParse(given);
  if (!parsed.success) {
    // Text of the command line where the schema has something else: once more with what it can be read as.
    const read = structuredClone(given);
    for (const { code, path, ...issue } of parsed.error.issues) {
      const wanted = code === 'invalid_type' && 'expected' in issue ? String(issue.expected) : code;
      readAt(read, path, wanted);
    }
    const again = Options.safeParse(read);
    if (again.success) parsed = again;
  }
  if (parsed.success) return parsed.data as Record<string, unknown>;
  const [issue] = parsed.error.issues;
  const unknown = issue?.code === 'unrecognized_keys' ? ` ${issue.keys.map(printable).join(', ')}` : '';
  const at = issue?.path.length ? `.${issue.path.join('.')}` : '';
  const known = Options instanceof z.ZodObject ? Object.keys(Options.shape).join(', ') : '';
  throw new PortError('USAGE', `${platform}${at}: ${issue?.message ?? 'wrong'}${unknown}`, {
    ...(known === '' ? {} : { hint: `options of ${platform}: ${known}` }),
  });
}

/** Reads the text at a place of the options as a list, a number or text, when that is what is wanted there. */
function readAt(options: unknown, path: readonly PropertyKey[], wanted: string): void {
  let holder = options as Record<PropertyKey, unknown> | undefined;
  for (const key of path.slice(0, -1)) holder = holder?.[key] as Record<PropertyKey, unknown> | undefined;
  const key = path.at(-1);
  if (holder === undefined || key === undefined) return;
  const text = holder[key];
  if (wanted === 'string' && typeof text === 'boolean') holder[key] = String(text);
  if (typeof text !== 'string') return;
  if (wanted === 'array' || wanted === 'invalid_union') holder[key] = text.split(',');
  if (wanted === 'number' && /^-?\d+$/.test(text)) holder[key] = Number(text);
}
