/** Passes reads of the machine under verification on to the one real store its provision document names. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { pipeline } from 'node:stream/promises';
import { Pool } from 'undici';
import type { Provision } from '../../core/contract.ts';
import { PortError } from '../../core/errors.ts';

/** Where the machine's reads go. */
export interface RelayOptions {
  /** `https://host:port` or `http://host:port`, nothing behind it. */
  upstream: string;
  /** What a path must start with; each begins and ends with a slash. */
  allowed: readonly string[];
  /** Certificates in PEM to trust instead of the system's. */
  ca?: string | undefined;
  /** Unix socket to listen on; without it a free port of the loopback. */
  socketPath?: string;
}

/** A running relay. */
export interface Relay {
  /** Port on 127.0.0.1, or 0 when it listens on a unix socket. */
  port: number;
  /** Bytes of content passed on so far. */
  sentBytes(): number;
  close(): Promise<void>;
}

/** Silence of the store that ends a request, in milliseconds; the client in the instance asks again. */
const SILENCE_MS = 60_000;
/** What an object's answer needs; nothing else of the store's headers is the guest's business. */
const PASSED_ON = [
  'content-length',
  'content-type',
  'content-range',
  'accept-ranges',
  'etag',
  'last-modified',
  'retry-after',
];

/**
 * GET and HEAD below the allowed prefixes, with the query (a TempURL's signature covers method, path and expiry, so it
 * stays valid at another host). One upstream, its certificate verified; a redirect is not followed but is an error
 * to the guest. Throws CONFIG when `upstream` is no origin.
 */
export async function relayStore(options: RelayOptions): Promise<Relay> {
  const origin = originOf(options.upstream);
  // A pool: the machine fetches several data sets at once, and one slow answer must not hold the others.
  const pool = new Pool(origin, {
    headersTimeout: SILENCE_MS,
    bodyTimeout: SILENCE_MS,
    connect: { timeout: 20_000, ...(options.ca === undefined ? {} : { ca: options.ca }) },
  });
  let sent = 0;
  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method, url = '' } = request;
    if (method !== 'GET' && method !== 'HEAD') {
      response.writeHead(405, { allow: 'GET, HEAD' }).end();
      return;
    }
    if (!isAllowed(url, options.allowed)) {
      response.writeHead(404).end();
      return;
    }
    const stop = new AbortController();
    response.on('close', () => stop.abort());
    const { range } = request.headers;
    const { statusCode, headers, body } = await pool.request({
      method,
      path: url,
      headers: range === undefined ? {} : { range },
      signal: stop.signal,
    });
    if (statusCode >= 300 && statusCode < 400) {
      body.destroy();
      response.writeHead(502).end();
      return;
    }
    const kept = PASSED_ON.flatMap((name) => (headers[name] === undefined ? [] : [[name, headers[name]]]));
    response.writeHead(statusCode, Object.fromEntries(kept));
    body.on('data', (chunk: Buffer) => {
      sent += chunk.length;
    });
    await pipeline(body, response);
  }
  const server = createServer((request, response) => {
    answer(request, response).catch(() => {
      if (response.headersSent) response.destroy();
      else response.writeHead(502).end();
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    if (options.socketPath === undefined) server.listen(0, '127.0.0.1', resolve);
    else server.listen(options.socketPath, resolve);
  });
  return {
    port: options.socketPath === undefined ? (server.address() as AddressInfo).port : 0,
    sentBytes: () => sent,
    close: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
      await pool.destroy();
    },
  };
}

function originOf(upstream: string): string {
  const origin = /^https?:\/\/[^/?#@\s]+\/?$/.test(upstream) ? URL.parse(upstream)?.origin : undefined;
  if (origin === undefined) {
    throw new PortError('CONFIG', 'the address of the store must be http(s)://host:port');
  }
  return origin;
}

/** True for a path below a prefix that cannot mean anything else: no dot segments, however they are written. */
export function isAllowed(target: string, allowed: readonly string[]): boolean {
  const path = target.split('?')[0] ?? '';
  if (!/^\/[\x21-\x7e]*$/.test(path) || path.includes('#') || path.includes('\\')) return false;
  let decoded: string;
  try {
    decoded = decodeURIComponent(path);
  } catch {
    return false;
  }
  if (decoded.split(/[/\\]/).some((part) => part === '.' || part === '..')) return false;
  return allowed.some((prefix) => prefix.endsWith('/') && path.startsWith(prefix));
}

/** What the machine gets instead of a minted document, and what the relay must let through for it. */
export interface RelayedProvision {
  document: Provision;
  allowed: string[];
}

/**
 * The same document with every URL at `address` (`http://10.0.2.100`). Throws CONFIG when a URL is not below `upstream`,
 * or when the document asks the machine to sign in: it can only read.
 */
export function relayedProvision(document: Provision, upstream: string, address: string): RelayedProvision {
  const origin = originOf(upstream);
  const allowed: string[] = [];
  const data: Provision['data'] = {};
  for (const [id, entry] of Object.entries(document.data)) {
    if (entry.auth !== undefined) {
      throw new PortError(
        'CONFIG',
        `${id} is fetched with an application credential, which cannot be verified`,
        {
          hint: 'mint a document with signed URLs: port-image data mint',
        },
      );
    }
    const [, host = '', path = '', query = ''] =
      /^(https?:\/\/[^/?#]+)([^?#]*)(\?[^#]*)?/.exec(entry.url) ?? [];
    if (URL.parse(host)?.origin !== origin) {
      throw new PortError('CONFIG', `the document names another store for ${id} than ${origin}`);
    }
    const prefix = path.endsWith('/') ? path : `${path}/`;
    allowed.push(prefix);
    data[id] = { ...entry, url: `${address}${prefix}${query}` };
  }
  // Without the prefetch: what is used of its own accord, and when, is what this boot shall show.
  return { document: { version: document.version, data }, allowed };
}

/** The one origin of a document's URLs. Throws CONFIG when there is none or more than one. */
export function upstreamOf(document: Provision): string {
  const origins = new Set(Object.values(document.data).map((entry) => URL.parse(entry.url)?.origin ?? ''));
  const [origin = '', more] = origins;
  if (origin === '' || more !== undefined) {
    throw new PortError('CONFIG', `the document must name one store, it names ${origins.size}`);
  }
  return origin;
}
