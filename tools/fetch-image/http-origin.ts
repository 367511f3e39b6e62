/** An image on a web server: requests for a range of it, same-host redirects, answers in our words. */
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { type HttpClient, HttpError, type HttpResponse, retryAfter } from '../openstack/http.ts';
import type { ContentFacts, ImageOrigin, OpenedContent } from './types.ts';

/** Redirects followed for one request. */
const MOST_REDIRECTS = 5;
/** Every status comes back: error bodies of stores repeat signatures and are never shown. */
const ANY_STATUS = Array.from({ length: 500 }, (_, i) => 100 + i);
const REDIRECTS = new Set([301, 302, 303, 307, 308]);
/** What heals: as in tools/openstack/http.ts. */
const TEMPORARY = new Set([408, 425, 429, 500, 502, 503, 504, 507]);
const HINTS: Readonly<Record<number, string>> = {
  401: 'put name and password into ~/.netrc, or use a signed URL',
  403: 'the server does not allow it; a signed URL may have expired',
  404: 'check the URL',
  410: 'the image was removed from there',
  407: 'the proxy between wants a login',
};

/** A failure in the words of a source. What the server said about it is left out, only its status stays. */
function refused(name: string, response: HttpResponse): HttpError {
  const { status } = response;
  const hint = HINTS[status];
  return new HttpError('SOURCE_REMOTE', `${name}: the server answers ${status}`, {
    status,
    temporary: TEMPORARY.has(status),
    retryAfterMs: retryAfter(response.headers['retry-after']),
    ...(hint === undefined ? {} : { hint }),
  });
}

/** Errors of the client speak of clouds. */
function asSource(error: unknown): unknown {
  if (!(error instanceof HttpError) || error.code === 'SOURCE_REMOTE') return error;
  return new HttpError('SOURCE_REMOTE', error.message, {
    status: error.status,
    temporary: error.temporary,
    cause: error,
    hint:
      error.hint === undefined
        ? 'check the URL, and that the server is up and can be reached from here'
        : 'name the certificate authority with SSL_CERT_FILE',
  });
}

/** Where a redirect may lead: the same place, or the same host with TLS. Throws SOURCE_REMOTE. */
function redirected(from: URL, location: string | undefined, name: string): URL {
  if (location === undefined || !URL.canParse(location, from.href)) {
    throw new PortError('SOURCE_REMOTE', `${name}: a redirect to nowhere`);
  }
  const to = new URL(location, from);
  if (to.protocol !== 'http:' && to.protocol !== 'https:') {
    throw new PortError(
      'SOURCE_REMOTE',
      `${name}: redirected to ${printable(to.protocol)}, which is not followed`,
    );
  }
  const isUpgrade = from.protocol === 'http:' && to.protocol === 'https:' && from.hostname === to.hostname;
  if (to.origin === from.origin || isUpgrade) return to;
  if (from.protocol === 'https:' && to.protocol === 'http:') {
    throw new PortError('SOURCE_REMOTE', `${name}: redirected from https to http, which is not followed`);
  }
  throw new PortError(
    'SOURCE_REMOTE',
    `${name}: redirected to another host, ${printable(to.host)}, which is not followed`,
    { hint: `if you trust ${printable(to.host)}, give the URL there as the source` },
  );
}

/** A URL for messages: without user, query and fragment. */
export function shownUrl(url: URL): string {
  return printable(`${url.origin}${url.pathname}${url.search === '' ? '' : '?…'}`);
}

/** One GET, redirects followed. The answer has any status. Throws SOURCE_REMOTE, INTERRUPTED. */
async function get(
  client: HttpClient,
  url: URL,
  name: string,
  headers: Readonly<Record<string, string>>,
  signal: AbortSignal | undefined,
): Promise<HttpResponse> {
  let at = url;
  for (let hops = 0; hops <= MOST_REDIRECTS; hops++) {
    const response = await client
      .request(at, { method: 'GET', headers, okStatus: ANY_STATUS, signal, what: 'fetching the image' })
      .catch((error: unknown) => {
        throw asSource(error);
      });
    if (!REDIRECTS.has(response.status)) return response;
    response.body.destroy();
    at = redirected(at, response.headers.location, name);
  }
  throw new PortError('SOURCE_REMOTE', `${name}: more than ${MOST_REDIRECTS} redirects`);
}

/** What the headers of an answer say; `sizeBytes` of the whole content. */
function factsOf(response: HttpResponse): ContentFacts {
  const { etag, 'last-modified': modified } = response.headers;
  const total =
    response.status === 200
      ? response.headers['content-length']
      : /^bytes (?:\d+-\d+|\*)\/(\d+)$/.exec(response.headers['content-range'] ?? '')?.[1];
  const size = total !== undefined && /^\d+$/.test(total) ? Number(total) : undefined;
  return {
    sizeBytes: Number.isSafeInteger(size) ? size : undefined,
    // If-Range wants a strong one (RFC 9110, 13.1.5)
    validator: etag !== undefined && !etag.startsWith('W/') ? etag : modified,
  };
}

/** An image at a URL. */
export class HttpOrigin implements ImageOrigin {
  readonly #client: HttpClient;
  readonly #url: URL;
  readonly #name: string;
  readonly #headers: Readonly<Record<string, string>>;

  /** `authorization`: the value of that header, sent to the URL's host alone. */
  constructor(client: HttpClient, url: URL, authorization: string | undefined) {
    this.#client = client;
    this.#url = url;
    this.#name = shownUrl(url);
    this.#headers = {
      // packed by the way, ranges would be those of the packed form
      'accept-encoding': 'identity',
      ...(authorization === undefined ? {} : { authorization }),
    };
  }

  /** Asks for the first byte: what the server tells, and whether it can give parts. Throws as `open`; EMPTY_DISK. */
  async probe(signal: AbortSignal | undefined): Promise<{ facts: ContentFacts; acceptsRanges: boolean }> {
    const headers = { ...this.#headers, range: 'bytes=0-0' };
    const response = await get(this.#client, this.#url, this.#name, headers, signal);
    response.body.destroy();
    const facts = factsOf(response);
    const { status } = response;
    if (facts.sizeBytes === 0 && (status === 200 || status === 416)) {
      throw new PortError('EMPTY_DISK', `${this.#name} is empty`);
    }
    if (status !== 200 && status !== 206) throw refused(this.#name, response);
    return { facts, acceptsRanges: status === 206 };
  }

  async open(
    fromBytes: number,
    facts: ContentFacts,
    signal: AbortSignal | undefined,
  ): Promise<OpenedContent> {
    const { validator } = facts;
    const ranged =
      fromBytes === 0
        ? {}
        : { range: `bytes=${fromBytes}-`, ...(validator === undefined ? {} : { 'if-range': validator }) };
    const headers = { ...this.#headers, ...ranged };
    const response = await get(this.#client, this.#url, this.#name, headers, signal);
    const { status, body } = response;
    if (status === 200) return { fromBytes: 0, facts: factsOf(response), body };
    const now = factsOf(response);
    const start = /^bytes (\d+)-/.exec(response.headers['content-range'] ?? '')?.[1];
    const isWanted =
      status === 206 &&
      fromBytes > 0 &&
      Number(start) === fromBytes &&
      now.sizeBytes === facts.sizeBytes &&
      (now.validator === undefined || now.validator === validator);
    if (isWanted) return { fromBytes, facts, body };
    body.destroy();
    // A shorter file, or a part of another one: from the start then.
    if (fromBytes > 0 && (status === 416 || status === 206)) return this.open(0, facts, signal);
    throw refused(this.#name, response);
  }

  /** A short text from the same origin, such as a list of checksums. Throws as `open`. */
  async text(url: URL, limitBytes: number, signal: AbortSignal | undefined): Promise<string> {
    const response = await get(this.#client, url, shownUrl(url), this.#headers, signal);
    if (response.status !== 200) {
      response.body.destroy();
      throw refused(shownUrl(url), response);
    }
    return response.text(limitBytes).catch((error: unknown) => {
      throw asSource(error);
    });
  }

  async close(): Promise<void> {
    await this.#client.close();
  }
}
