/** A reverse proxy before one real service: counts what passes and breaks it on demand. It rewrites nothing else. */
import * as http from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Readable, Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';

/** Which requests a fault hits. Everything given must match. */
export interface Match {
  method?: string;
  /** Tested against path and query. */
  path?: RegExp;
  /** Matching requests let through before the fault begins (default 0). */
  after?: number;
  /** Matching requests it hits (default: all). */
  times?: number;
}

/** A place in a body: bytes, or a fraction of its Content-Length. */
export type Place = { bytes: number } | { fraction: number };

/** What happens to a request. Several may be combined, but `status` and `stall` leave the service out. */
export interface Action {
  /** Answers this instead of the service, after the whole request body was read. */
  status?: number;
  /** With `status`: answers without reading the body. */
  early?: boolean;
  /** Headers of that answer; otherwise they replace headers of the service's answer. */
  headers?: Record<string, string>;
  body?: string;
  /** Never reads the body, never answers. */
  stall?: boolean;
  /** Closes both connections after this much of the request body. */
  cutRequest?: Place;
  /** Closes the connection after this much of the answer's body; 0 bytes: after the service did its work. */
  cutResponse?: Place;
  /** Stops passing the request body on here, for good. */
  stallRequest?: Place;
  /** Stops passing the answer's body on here, for good. */
  stallResponse?: Place;
  /** Inverts the byte at this offset of the request body. */
  flipRequestByte?: number;
  /** Inverts the byte at this offset of the answer's body. */
  flipResponseByte?: number;
  /** Waits before the request is passed on. */
  delayMs?: number;
  /** Speed limit of both bodies. */
  bytesPerS?: number;
}

/** One request that arrived. */
export interface Seen {
  method: string;
  /** Path and query as sent. */
  path: string;
  headers: http.IncomingHttpHeaders;
  /** Status sent to the client; undefined when none was. */
  status: number | undefined;
  /** Body bytes passed on (or read, when the service was left out). */
  requestBytes: number;
  responseBytes: number;
  /** Whether a fault hit it. */
  faulty: boolean;
}

/** A running proxy. */
export interface FaultProxy {
  /** Base URL without a path; stands for the target's. */
  url: string;
  /** Every request in order of arrival. */
  requests: Seen[];
  /** Adds a fault; the first one that matches and is not used up is taken. Returns a function that removes it. */
  on(match: Match, action: Action): () => void;
  /** Requests that match, faulty ones included. */
  count(match?: Pick<Match, 'method' | 'path'>): number;
  /** Request body bytes of those. */
  sentBytes(match?: Pick<Match, 'method' | 'path'>): number;
  /** Forgets requests and faults. */
  reset(): void;
  /** Ends it, stalled connections too. */
  close(): Promise<void>;
}

/** Connection headers belong to one hop. */
const HOP_HEADERS = ['connection', 'keep-alive', 'transfer-encoding', 'expect'];

/** Starts a proxy on a free port of 127.0.0.1 before `targetUrl` (scheme, host and port). */
export async function startFaultProxy(targetUrl: string): Promise<FaultProxy> {
  const target = new URL(targetUrl);
  const agent = new http.Agent({ keepAlive: true });
  const rules: { match: Match; action: Action; seen: number }[] = [];
  const requests: Seen[] = [];

  const take = (seen: Seen): Action | undefined => {
    for (const rule of rules) {
      const { after = 0, times = Number.POSITIVE_INFINITY } = rule.match;
      if (!matches(rule.match, seen) || rule.seen >= after + times) continue;
      rule.seen += 1;
      if (rule.seen > after) return rule.action;
    }
    return undefined;
  };

  const server = http.createServer((request, response) => {
    const { method = 'GET', url = '/', headers } = request;
    const seen: Seen = {
      method,
      path: url,
      headers,
      status: undefined,
      requestBytes: 0,
      responseBytes: 0,
      faulty: false,
    };
    requests.push(seen);
    const action = take(seen);
    seen.faulty = action !== undefined;
    serve(target, agent, { request, response, seen, action: action ?? {} }).catch(() => response.destroy());
  });
  // A stalled or throttled transfer must last as long as the client lets it.
  server.requestTimeout = 0;
  server.headersTimeout = 0;
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));

  const some = (match: Match = {}) => requests.filter((seen) => matches(match, seen));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    on(match, action) {
      const rule = { match, action, seen: 0 };
      rules.push(rule);
      return () => void rules.splice(rules.indexOf(rule), rules.includes(rule) ? 1 : 0);
    },
    count: (match) => some(match).length,
    sentBytes: (match) => some(match).reduce((sum, seen) => sum + seen.requestBytes, 0),
    reset() {
      rules.length = 0;
      requests.length = 0;
    },
    async close() {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      agent.destroy();
      await closed;
    },
  };
}

function matches(match: Match, seen: Seen): boolean {
  return (
    (match.method === undefined || match.method === seen.method) &&
    (match.path === undefined ||
      new RegExp(match.path.source, match.path.flags.replace(/[gy]/g, '')).test(seen.path))
  );
}

interface Exchange {
  request: http.IncomingMessage;
  response: http.ServerResponse;
  seen: Seen;
  action: Action;
}

async function serve(target: URL, agent: http.Agent, exchange: Exchange): Promise<void> {
  const { request, response, seen, action } = exchange;
  if (action.delayMs !== undefined) await sleep(action.delayMs);
  if (action.stall) return;
  if (action.status !== undefined) {
    if (!action.early) for await (const chunk of request) seen.requestBytes += chunk.length;
    seen.status = action.status;
    response.writeHead(action.status, action.headers).end(action.body ?? 'injected fault\n');
    return;
  }
  const upstream = http.request({
    agent,
    host: target.hostname,
    port: target.port,
    method: seen.method,
    path: seen.path,
    // The target's name, as if the client had asked there.
    headers: { ...passedOn(request), host: target.host },
  });
  response.once('close', () => upstream.destroy());
  const answered = new Promise<http.IncomingMessage>((resolve, reject) =>
    upstream.once('response', resolve).on('error', reject),
  );
  const sent = sendRequest(exchange, upstream);
  // A service may answer and hang up before it read everything; then its answer counts.
  sent.catch(() => undefined);
  await answer(exchange, await answered);
}

async function sendRequest(exchange: Exchange, upstream: http.ClientRequest): Promise<void> {
  const { request, response, seen, action } = exchange;
  const total = request.headers['content-length'];
  const cut = placeIn(action.cutRequest, total);
  const whole = await pump(request, upstream, {
    limit: cut ?? placeIn(action.stallRequest, total),
    flipAt: action.flipRequestByte,
    bytesPerS: action.bytesPerS,
    count: (bytes) => {
      seen.requestBytes += bytes;
    },
  });
  if (whole) upstream.end();
  else if (cut !== undefined) {
    upstream.destroy();
    response.destroy();
  }
}

async function answer({ response, seen, action }: Exchange, incoming: http.IncomingMessage): Promise<void> {
  const headers = { ...passedOn(incoming), ...lowerKeys(action.headers) };
  seen.status = incoming.statusCode;
  const total = incoming.headers['content-length'];
  const cut = placeIn(action.cutResponse, total);
  if (cut === 0) {
    seen.status = undefined;
    response.destroy();
    return;
  }
  response.writeHead(incoming.statusCode ?? 502, headers);
  response.flushHeaders();
  const whole = await pump(incoming, response, {
    limit: cut ?? placeIn(action.stallResponse, total),
    flipAt: action.flipResponseByte,
    bytesPerS: action.bytesPerS,
    count: (bytes) => {
      seen.responseBytes += bytes;
    },
  });
  if (whole) response.end();
  else if (cut !== undefined) response.destroy();
}

interface Flow {
  limit: number | undefined;
  flipAt: number | undefined;
  bytesPerS: number | undefined;
  count(bytes: number): void;
}

/** Passes a body on up to the limit; says whether it ended before. */
async function pump(from: Readable, to: Writable, flow: Flow): Promise<boolean> {
  let done = 0;
  const limit = flow.limit ?? Number.POSITIVE_INFINITY;
  if (limit === 0) return false;
  for await (const whole of from.iterator({ destroyOnReturn: false })) {
    const chunk: Buffer = (whole as Buffer).subarray(0, limit - done);
    const at = (flow.flipAt ?? -1) - done;
    if (at >= 0 && at < chunk.length) chunk[at] = (chunk[at] ?? 0) ^ 0xff;
    await new Promise<void>((resolve, reject) =>
      to.write(chunk, (error) => (error ? reject(error) : resolve())),
    );
    done += chunk.length;
    flow.count(chunk.length);
    if (done >= limit) return false;
    if (flow.bytesPerS !== undefined) await sleep((chunk.length / flow.bytesPerS) * 1000);
  }
  return true;
}

function placeIn(place: Place | undefined, total: string | undefined): number | undefined {
  if (place === undefined || 'bytes' in place) return place?.bytes;
  if (total === undefined) throw new Error('a fraction of a body without Content-Length: give bytes');
  return Math.floor(Number(total) * place.fraction);
}

/** End-to-end headers, as sent. A length is kept, so the framing stays the same. */
function passedOn(message: http.IncomingMessage): http.OutgoingHttpHeaders {
  const headers: http.OutgoingHttpHeaders = { ...message.headersDistinct };
  for (const name of HOP_HEADERS) delete headers[name];
  return headers;
}

function lowerKeys(headers: Record<string, string> = {}): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}
