/** Signed URLs (TempURL) with a key of the container's own, so that one key opens exactly one container. */
import { createHmac, randomBytes } from 'node:crypto';
import { PortError } from '../../core/errors.ts';
import { pause } from '../../core/pause.ts';
import { printable } from '../../core/text.ts';
import type { SwiftApi } from './swift.ts';
import type { TempUrlDigest } from './swift-info.ts';
import { KEY_HEADER, KEY2_HEADER } from './swift-object.ts';

/** What a URL shall open. */
export interface TempUrlRequest {
  container: string;
  /** One object. */
  object?: string;
  /** Every object whose name starts with this; `''` for all of the container. */
  prefix?: string;
  method: 'GET' | 'PUT';
  lifeMs: number;
  /** Only from this address or range in CIDR form. */
  ipRange?: string | undefined;
  signal?: AbortSignal | undefined;
}

const KEY_BYTES = 32;
const PROBE_LIFE_MS = 600_000;
/** Proxies keep what they know of a container for up to a minute (recheck_container_existence). */
const REVOKED_WITHIN_MS = 90_000;
const POLL_MS = 1000;

/** What a signature covers. */
export interface SignInput {
  /** URL of the object, or of the container with the prefix behind it. */
  url: URL;
  prefix?: string | undefined;
  method: string;
  expires: number;
  key: string;
  digest: TempUrlDigest;
  ipRange?: string | undefined;
}

/** Signs; the URL is returned with its query. Form: swift/common/middleware/tempurl.py. */
export function signTempUrl(input: SignInput): string {
  const { url, prefix, method, expires, key, digest, ipRange } = input;
  const decoded = decodeURIComponent(url.pathname);
  const at = decoded.indexOf('/v1/');
  const path = at > 0 ? decoded.slice(at) : decoded;
  const lines = [method, String(expires), prefix === undefined ? path : `prefix:${path}`];
  if (ipRange !== undefined) lines.unshift(`ip=${ipRange}`);
  const signature = createHmac(digest, key).update(lines.join('\n')).digest('hex');
  const query = new URLSearchParams({ temp_url_sig: signature, temp_url_expires: String(expires) });
  if (prefix !== undefined) query.set('temp_url_prefix', prefix);
  if (ipRange !== undefined) query.set('temp_url_ip_range', ipRange);
  return `${url.href}?${query}`;
}

/** The digest to sign with. Throws CLOUD_REFUSED with the reason and the way out where signing would not be safe. */
export async function tempUrlDigest(api: SwiftApi, signal?: AbortSignal): Promise<TempUrlDigest> {
  const info = await api.info(signal);
  const hint = 'use an application credential with access rules instead: docs/openstack-swift.md';
  if (info.isRgw) {
    throw new PortError(
      'CLOUD_REFUSED',
      'this object store is Ceph RGW: its signing keys belong to the whole account, so one URL could not be revoked without all others',
      { hint },
    );
  }
  if (info.tempUrl === undefined) {
    throw new PortError('CLOUD_REFUSED', 'this object store has no signed URLs (tempurl)', { hint });
  }
  const [digest] = info.tempUrl.digests;
  if (digest === undefined) {
    throw new PortError('CLOUD_REFUSED', 'this object store signs URLs with sha1 only, which is not safe', {
      hint,
    });
  }
  return digest;
}

/** A container's key, made when it has none, and the service's time in ms. Throws CLOUD_REFUSED when it cannot be read back. */
async function containerKey(
  api: SwiftApi,
  container: string,
  signal?: AbortSignal,
): Promise<{ key: string; nowMs: number }> {
  let headers = await api.headContainer(container, signal);
  if (headers === undefined) throw new PortError('STORE', `there is no container ${printable(container)}`);
  if (!headers[KEY_HEADER]) {
    const fresh = randomBytes(KEY_BYTES).toString('hex');
    await api.postContainer(container, { [KEY_HEADER]: fresh }, signal);
    headers = (await api.headContainer(container, signal)) ?? {};
  }
  const key = headers[KEY_HEADER];
  if (!key) {
    throw new PortError(
      'CLOUD_REFUSED',
      `the signing key of container ${printable(container)} is not shown`,
      {
        hint: 'the login needs an operator role for the object store (usually `member`)',
      },
    );
  }
  // Expiry is judged by the service's clock, not by ours.
  return { key, nowMs: Date.parse(headers.date ?? '') || Date.now() };
}

/** A signed URL; the container's key is made when it has none. Throws CLOUD_REFUSED, STORE, CLOUD. */
export async function tempUrl(api: SwiftApi, request: TempUrlRequest): Promise<string> {
  const { container, object, prefix, method, lifeMs, ipRange, signal } = request;
  if ((object === undefined) === (prefix === undefined))
    throw new PortError('BUG', 'one of object and prefix');
  const digest = await tempUrlDigest(api, signal);
  const { key, nowMs } = await containerKey(api, container, signal);
  const expires = Math.floor((nowMs + lifeMs) / 1000);
  return signTempUrl({
    url: urlOf(api, container, object ?? prefix ?? ''),
    prefix,
    method,
    expires,
    key,
    digest,
    ipRange,
  });
}

/** URL of a name in a container, with the slash behind the container also where the name is empty. */
function urlOf(api: SwiftApi, container: string, name: string): URL {
  return name === '' ? new URL(`${api.url(container).href}/`) : api.url(container, name);
}

/** True when the service honours a URL: the object is there, or would be found missing. Sends no token. */
export async function isHonoured(api: SwiftApi, url: string, signal?: AbortSignal): Promise<boolean> {
  const answer = await api.session.http.request(new URL(url), {
    method: 'GET',
    headers: { range: 'bytes=0-0' },
    okStatus: [200, 206, 401, 403, 404, 416],
    what: 'test of a signed URL',
    signal,
  });
  await answer.drain();
  return answer.status !== 401 && answer.status !== 403;
}

/** Proves that URLs made with the container's key open it, and only signed ones. Throws CLOUD_REFUSED. */
export async function proveTempUrls(
  api: SwiftApi,
  container: string,
  object: string,
  signal?: AbortSignal,
): Promise<void> {
  const url = await tempUrl(api, { container, object, method: 'GET', lifeMs: PROBE_LIFE_MS, signal });
  const forged = new URL(url);
  const signature = forged.searchParams.get('temp_url_sig') ?? '';
  forged.searchParams.set(
    'temp_url_sig',
    signature.replace(/^./, (c) => (c === '0' ? '1' : '0')),
  );
  const hint = 'use an application credential with access rules instead: docs/openstack-swift.md';
  if (await isHonoured(api, forged.href, signal)) {
    throw new PortError('CLOUD_REFUSED', 'the object store takes URLs with a wrong signature', { hint });
  }
  if (!(await soon(() => isHonoured(api, url, signal), signal))) {
    throw new PortError('CLOUD_REFUSED', 'the object store does not take URLs signed with a container key', {
      hint,
    });
  }
}

/**
 * Gives a container a new key and takes its second one away, then waits until a URL signed with each old one is refused and
 * one with the new key is not. Throws CLOUD_REFUSED, CLOUD (temporary) when old URLs stay good.
 */
export async function revokeTempUrls(
  api: SwiftApi,
  container: string,
  object: string,
  signal?: AbortSignal,
): Promise<void> {
  const digest = await tempUrlDigest(api, signal);
  const headers = await api.headContainer(container, signal);
  if (headers === undefined) throw new PortError('STORE', `there is no container ${printable(container)}`);
  const nowMs = Date.parse(headers.date ?? '') || Date.now();
  const expires = Math.floor((nowMs + PROBE_LIFE_MS) / 1000);
  const sign = (key: string) =>
    signTempUrl({ url: api.url(container, object), method: 'GET', expires, key, digest });
  const old: string[] = [];
  for (const key of [headers[KEY_HEADER], headers[KEY2_HEADER]]) {
    if (key && (await isHonoured(api, sign(key), signal))) old.push(sign(key));
  }
  const fresh = randomBytes(KEY_BYTES).toString('hex');
  const settings = { [KEY_HEADER]: fresh, [`x-remove-${KEY2_HEADER.slice(2)}`]: 'yes' };
  await api.postContainer(container, settings, signal);
  for (const url of old) {
    if (!(await soon(async () => !(await isHonoured(api, url, signal)), signal))) {
      throw new PortError('CLOUD', `container ${printable(container)}: URLs of the old key are still good`, {
        temporary: true,
        hint: 'the object store keeps old settings for longer than usual; run the command again later',
      });
    }
  }
  if (!(await soon(() => isHonoured(api, sign(fresh), signal), signal))) {
    throw new PortError('CLOUD', `container ${printable(container)} does not take its new key`, {
      temporary: true,
    });
  }
}

/** Asks until the answer is yes three times running, or the time is over: the service has several proxies. */
async function soon(ask: () => Promise<boolean>, signal?: AbortSignal): Promise<boolean> {
  const until = performance.now() + REVOKED_WITHIN_MS;
  for (let running = 0; ; ) {
    running = (await ask()) ? running + 1 : 0;
    if (running === 3) return true;
    if (performance.now() > until) return false;
    if (running > 0) continue;
    await pause(POLL_MS, signal);
  }
}
