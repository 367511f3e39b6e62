/** Sends JSON to an address that is a secret itself: whoever knows a webhook's URL may write there. */
import { Agent, request } from 'undici';
import { PortError } from '../core/errors.ts';
import { withRetries } from './openstack/retry.ts';

/** How to send. */
export interface PostOptions {
  signal?: AbortSignal | undefined;
  /** For one attempt, everything counted. */
  timeoutMs?: number;
}

const ATTEMPTS = 3;
const ATTEMPT_MS = 15_000;
const MOST_REDIRECTS = 3;
/** Throttling and faults of the server heal; the rest says that it does not want this. */
const TEMPORARY_STATUS = new Set([408, 425, 429, 500, 502, 503, 504]);
const REDIRECTS = new Set([307, 308]);

/**
 * Posts it, three times at most. TLS is verified; plain http goes to this machine only, and redirects are followed on the same host
 * alone. Throws CONFIG for an address that is none, CLOUD, INTERRUPTED; no message has the address.
 */
export async function postJson(url: string, json: string, options: PostOptions = {}): Promise<void> {
  const target = checked(url);
  const { signal, timeoutMs = ATTEMPT_MS } = options;
  const agent = new Agent({ connect: { timeout: timeoutMs }, maxResponseSize: 64 * 1024 });
  try {
    await withRetries(() => post(agent, target, json, timeoutMs, signal), { retries: ATTEMPTS - 1, signal });
  } finally {
    await agent.destroy();
  }
}

function checked(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const isLoopback = url !== undefined && /^(127(\.\d{1,3}){3}|\[::1\]|localhost)$/.test(url.hostname);
  if (url?.protocol === 'https:' || (url?.protocol === 'http:' && isLoopback)) return url;
  throw new PortError('CONFIG', 'its address is neither https nor http of this machine');
}

async function post(
  agent: Agent,
  first: URL,
  json: string,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const timeout = AbortSignal.timeout(timeoutMs);
  const both = signal === undefined ? timeout : AbortSignal.any([signal, timeout]);
  let url = first;
  for (let hops = 0; ; hops++) {
    const { status, location } = await once(agent, url, json, both, signal, timeout);
    if (status >= 200 && status < 300) return;
    if (!REDIRECTS.has(status) || location === undefined)
      throw new PortError('CLOUD', `answer ${status}`, { temporary: TEMPORARY_STATUS.has(status) });
    const next = URL.canParse(location, url.href) ? new URL(location, url) : undefined;
    // the report and the secret in the path are for this host alone
    if (next === undefined || next.host !== first.host || next.protocol !== first.protocol)
      throw new PortError('CLOUD', 'it redirects to another host');
    if (hops >= MOST_REDIRECTS) throw new PortError('CLOUD', 'it redirects without end');
    url = next;
  }
}

async function once(
  agent: Agent,
  url: URL,
  json: string,
  both: AbortSignal,
  signal: AbortSignal | undefined,
  timeout: AbortSignal,
): Promise<{ status: number; location: string | undefined }> {
  try {
    const { statusCode, headers, body } = await request(withoutLogin(url), {
      dispatcher: agent,
      method: 'POST',
      headers: { 'content-type': 'application/json', 'user-agent': 'port-image', ...login(url) },
      body: json,
      signal: both,
    });
    await body.dump({ limit: 64 * 1024, signal: both }).catch(() => undefined);
    const { location } = headers;
    return { status: statusCode, location: typeof location === 'string' ? location : undefined };
  } catch (error) {
    if (signal?.aborted === true) throw new PortError('INTERRUPTED', 'interrupted', { cause: error });
    if (timeout.aborted) throw new PortError('CLOUD', 'no answer in time', { temporary: true });
    // messages of the client may have host and path; its code is enough
    const { code } = error as { code?: unknown };
    const isTls = typeof code === 'string' && /CERT|SSL|TLS|SELF_SIGNED|UNABLE_TO/.test(code);
    throw new PortError('CLOUD', `no connection${typeof code === 'string' ? ` (${code})` : ''}`, {
      temporary: !isTls,
    });
  }
}

function login({ username, password }: URL): Record<string, string> {
  if (username === '' && password === '') return {};
  const pair = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
  return { authorization: `Basic ${Buffer.from(pair).toString('base64')}` };
}

function withoutLogin(url: URL): URL {
  const plain = new URL(url);
  plain.username = '';
  plain.password = '';
  plain.hash = '';
  return plain;
}
