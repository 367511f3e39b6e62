/** The options of `convert` that speak of an OpenStack cloud. */
import * as path from 'node:path';
import * as z from 'zod';
import { PortError } from '../../core/errors.ts';
import type { Request } from '../../core/request.ts';
import { printable } from '../../core/text.ts';
import { GlanceRequest, UPLOAD_METHODS } from '../../drivers/openstack/options.ts';
import { openStore } from '../../drivers/stores/index.ts';
import { cloudName } from '../../tools/openstack/config.ts';

/** Options as a command line gives them. */
export interface CloudFlags {
  osCloud?: string;
  upload?: boolean;
  uploadMethod?: string;
  glanceStore?: string[];
  onExists?: string;
  visibility?: string;
  member?: string[];
  protected?: boolean;
  signKey?: string;
  signCertificate?: string;
  verifyData?: string;
  urlHours?: string;
}

/** The same in a configuration file. */
export const cloudConfigFields = {
  osCloud: z.string().optional(),
  upload: z.boolean().optional(),
  uploadMethod: z.enum(UPLOAD_METHODS).optional(),
  glanceStores: z.union([z.literal('all'), z.array(z.string())]).optional(),
  onExists: z.enum(['new-version', 'replace', 'fail']).optional(),
  visibility: z.enum(['private', 'shared', 'community', 'public']).optional(),
  members: z.array(z.string()).optional(),
  protected: z.boolean().optional(),
  signKey: z.string().optional(),
  signCertificate: z.string().optional(),
  verifyData: z.enum(['full', 'sampled']).optional(),
  urlHours: z.number().optional(),
};
type CloudConfigFields = z.infer<z.ZodObject<typeof cloudConfigFields>>;

/** Prefix of the containers of a `swift:` store without one. */
const DEFAULT_PREFIX = 'port-image';
/** Names of containers are ours to choose; these need no quoting anywhere. */
const PREFIX = /^[A-Za-z0-9][A-Za-z0-9.-]{0,63}$/;

/** What the flags ask for, as part of the request. Throws USAGE. */
export function cloudRequest(
  to: readonly string[],
  flags: CloudFlags,
  config: CloudConfigFields,
  env: NodeJS.ProcessEnv = process.env,
): { cloud: string | undefined; glance: GlanceRequest | undefined } {
  const cloud = cloudName(flags.osCloud ?? config.osCloud, env);
  const wanted = flags.upload !== false && config.upload !== false;
  if (cloud === undefined || !wanted || !to.includes('openstack')) {
    if (
      wanted &&
      (flags.uploadMethod ?? flags.glanceStore ?? flags.onExists ?? flags.visibility) !== undefined
    ) {
      throw new PortError('USAGE', 'an upload is asked for, but no OpenStack cloud is named', {
        hint: 'use --to openstack with --os-cloud NAME, or set OS_CLOUD',
      });
    }
    return { cloud, glance: undefined };
  }
  const stores = flags.glanceStore ?? config.glanceStores ?? [];
  const signKey = flags.signKey ?? config.signKey;
  const parsed = GlanceRequest.safeParse({
    cloud,
    method: flags.uploadMethod ?? config.uploadMethod,
    stores: stores === 'all' || stores.includes('all') ? 'all' : stores,
    onExists: flags.onExists ?? config.onExists,
    visibility: flags.visibility ?? config.visibility,
    members: flags.member ?? config.members,
    protected: flags.protected ?? config.protected,
    signKey: signKey === undefined ? undefined : path.resolve(signKey),
    signCertificate: flags.signCertificate ?? config.signCertificate,
  });
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new PortError('USAGE', `upload: ${issue?.path.join('.')}: ${issue?.message ?? 'wrong'}`);
  }
  return { cloud, glance: parsed.data };
}

/** The URL of the data store in its one form; the cloud's Swift when an image goes to that cloud. Throws USAGE. */
export function storeRequest(
  given: string | undefined,
  fallbackDir: string,
  cloud: string | undefined,
  glance: GlanceRequest | undefined,
): Pick<Request, 'store' | 'storeCloud'> {
  const url = given ?? (glance === undefined ? `file:${fallbackDir}` : 'swift:');
  if (url.startsWith('file:')) {
    return { store: `file:${path.resolve(url.slice('file:'.length).replace(/^\/\/(?=\/)/, ''))}` };
  }
  if (!url.startsWith('swift:')) {
    // Its driver checks the rest; nothing is asked of the cloud here.
    openStore(url);
    return { store: url };
  }
  const prefix = url.slice('swift:'.length) || DEFAULT_PREFIX;
  if (!PREFIX.test(prefix)) {
    throw new PortError('USAGE', `not a prefix for containers: ${printable(prefix)}`, {
      hint: 'letters, digits, dots and dashes, at most 64',
    });
  }
  if (cloud === undefined) {
    throw new PortError('USAGE', 'a swift: store needs a cloud', {
      hint: 'use --os-cloud NAME, or set OS_CLOUD',
    });
  }
  return { store: `swift:${prefix}`, storeCloud: cloud };
}
