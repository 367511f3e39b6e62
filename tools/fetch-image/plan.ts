/** Proves that an image elsewhere can be fetched, without fetching it. */
import { createHash } from 'node:crypto';
import { PortError } from '../../core/errors.ts';
import type { Source } from '../../core/source.ts';
import { printable } from '../../core/text.ts';
import { loadCloud } from '../openstack/config.ts';
import { GlanceApi } from '../openstack/glance.ts';
import { HttpClient } from '../openstack/http.ts';
import { withRetries } from '../openstack/retry.ts';
import { CloudSession } from '../openstack/session.ts';
import { findInList, parseChecksum } from './checksum.ts';
import { checkedImage, GlanceOrigin } from './glance-origin.ts';
import { HttpOrigin, shownUrl } from './http-origin.ts';
import { netrcLogin } from './netrc.ts';
import type { Digest, FetchPlan } from './types.ts';

/** How to plan. */
export interface PlanOptions {
  /** `sha256:HEX`, `sha512:HEX` or the URL of a list beside the image. */
  checksum?: string | undefined;
  /** HOME, NETRC, SSL_CERT_FILE, OS_*. Default: those of this process. */
  env?: NodeJS.ProcessEnv | undefined;
  /** A silent connection is given up after it. Default: that of HttpClient. */
  stallTimeoutMs?: number | undefined;
  /** Attempts after the first for each request of the plan. Default PLAN_RETRIES. */
  retries?: number;
  signal?: AbortSignal | undefined;
}

/** Sources that are fetched. */
export type FetchSource = Extract<Source, { kind: 'http' | 'glance' }>;

/** Three take 4 to 7 seconds: who mistyped a name wants to know, and what heals later is healed while bytes are fetched. */
const PLAN_RETRIES = 3;

/** A list of checksums of a big mirror has some hundred lines. */
const LIST_LIMIT_BYTES = 1024 * 1024;

const NO_CHECKSUM = 'no --checksum was given: nothing proves that the image is the one meant';

function sourceIdentity(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

async function operatorsDigest(
  checksum: Digest | { listUrl: URL },
  url: URL,
  origin: HttpOrigin,
  options: PlanOptions,
): Promise<Digest> {
  if (!('listUrl' in checksum)) return checksum;
  const { listUrl } = checksum;
  if (listUrl.origin !== url.origin) {
    throw new PortError('USAGE', 'the list of checksums is on another server than the image', {
      hint: 'read the digest there and give it as --checksum sha256:HEX',
    });
  }
  if (listUrl.username !== '' || listUrl.password !== '') {
    throw new PortError('USAGE', 'a user or password in the URL of the list is refused', {
      hint: 'put it into ~/.netrc',
    });
  }
  const list = await withRetries(() => origin.text(listUrl, LIST_LIMIT_BYTES, options.signal), options);
  const last = url.pathname.split('/').at(-1) ?? '';
  try {
    return findInList(list, decodeURIComponent(last));
  } catch (error) {
    if (error instanceof URIError) return findInList(list, last);
    throw error;
  }
}

async function planHttp(text: string, options: PlanOptions): Promise<FetchPlan> {
  const url = new URL(text);
  url.hash = '';
  const user = url.username === '' ? undefined : decodeURIComponent(url.username);
  url.username = '';
  const env = options.env ?? process.env;
  const checksum = options.checksum === undefined ? undefined : parseChecksum(options.checksum);
  const found = await netrcLogin(url.hostname, user, env);
  const warnings: string[] = [];
  if (found?.isOpenToOthers) warnings.push('the netrc file can be read by others: chmod 600 it');
  if (found !== undefined && url.protocol === 'http:') {
    warnings.push('name and password travel in the clear: use https');
  }
  if (url.protocol === 'http:' && checksum === undefined) {
    warnings.push('http without TLS: anybody on the way can change the image');
  }
  if (checksum === undefined) warnings.push(NO_CHECKSUM);
  if (checksum !== undefined && 'listUrl' in checksum && checksum.listUrl.protocol === 'http:') {
    warnings.push(
      'the list of checksums comes without TLS: it proves only that nothing was damaged by accident',
    );
  }
  const authorization =
    found === undefined
      ? undefined
      : `Basic ${Buffer.from(`${found.login.user}:${found.login.password}`).toString('base64')}`;
  const client = await HttpClient.create({
    caFile: env.SSL_CERT_FILE,
    stallTimeoutMs: options.stallTimeoutMs,
  });
  const origin = new HttpOrigin(client, url, authorization);
  try {
    const { facts, acceptsRanges } = await withRetries(() => origin.probe(options.signal), options);
    const digests = checksum === undefined ? [] : [await operatorsDigest(checksum, url, origin, options)];
    return {
      kind: 'http',
      name: shownUrl(url),
      // a signature that was renewed must not cost the download, where something else tells that the content is the same
      identity: sourceIdentity(
        facts.validator === undefined && digests.length === 0 ? url.href : `${url.origin}${url.pathname}`,
      ),
      facts,
      acceptsRanges,
      digests,
      diskFormat: undefined,
      warnings,
      origin,
    };
  } catch (error) {
    await client.close();
    throw error;
  }
}

async function planGlance(cloud: string, id: string, options: PlanOptions): Promise<FetchPlan> {
  const name = `image ${id} in ${printable(cloud)}`;
  const checksum = options.checksum === undefined ? undefined : parseChecksum(options.checksum);
  if (checksum !== undefined && 'listUrl' in checksum) {
    throw new PortError('USAGE', 'a list of checksums is of no use for an image in Glance', {
      hint: 'give --checksum sha256:HEX, or none: Glance knows the digest',
    });
  }
  const { signal, stallTimeoutMs } = options;
  const config = await loadCloud(cloud, options.env ?? process.env);
  const session = await CloudSession.open(config, { signal, stallTimeoutMs });
  try {
    const glance = await GlanceApi.open(session, { signal });
    const { facts, digests, diskFormat } = checkedImage(await glance.show(id, { signal }), name);
    if (checksum !== undefined) digests.push(checksum);
    return {
      kind: 'glance',
      name,
      identity: sourceIdentity(`${config.authUrl.href} ${id}`),
      facts,
      acceptsRanges: true,
      digests,
      diskFormat,
      warnings: digests.length === 0 ? ['Glance keeps no sha256 or sha512 of this image'] : [],
      origin: new GlanceOrigin(glance, id, name),
    };
  } catch (error) {
    await session.close();
    throw error;
  }
}

/**
 * Asks the server about the image: reachable, allowed, how long, which one. Close `plan.origin` when done. Throws USAGE,
 * CONFIG, SOURCE_REMOTE, CLOUD_LOGIN, CLOUD, UNSUPPORTED_FORMAT, EMPTY_DISK, INTERRUPTED.
 */
export async function planFetch(source: FetchSource, options: PlanOptions = {}): Promise<FetchPlan> {
  return source.kind === 'http'
    ? planHttp(source.url, { retries: PLAN_RETRIES, ...options })
    : planGlance(source.cloud, source.id, options);
}
