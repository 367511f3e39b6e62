/** Data sets read with nothing but a provision document: signed URLs or application credentials, GET and HEAD only. */
import { Readable } from 'node:stream';
import type { Provision, ProvisionAuth } from '../../core/contract.ts';
import { asPortError, PortError } from '../../core/errors.ts';
import { pause } from '../../core/pause.ts';
import { HttpClient, HttpError, type HttpRequest, type HttpResponse } from '../../tools/openstack/http.ts';
import { withRetries } from '../../tools/openstack/retry.ts';
import { CloudSession } from '../../tools/openstack/session.ts';
import { checkKey } from './key.ts';
import type { GetOptions, Store, StoredObject } from './store.ts';

/** A download that breaks off so often without a byte more is given up. */
const BREAKS = 5;
const BREAK_PAUSE_MS = 500;

/** How to reach the URLs. */
export interface HttpStoreOptions {
  /** PEM file with further certificate authorities. */
  caFile?: string | undefined;
  /** A silent connection is given up after it. */
  stallTimeoutMs?: number;
}

const readOnly = () => new PortError('STORE', 'a provision document only allows reading');

/** The data sets of one provision document. */
export class HttpStore implements Store {
  readonly url = 'a provision document';
  readonly #provision: Provision;
  readonly #http: HttpClient;
  readonly #options: HttpStoreOptions;
  readonly #sessions = new Map<string, Promise<CloudSession>>();

  private constructor(provision: Provision, http: HttpClient, options: HttpStoreOptions) {
    this.#provision = provision;
    this.#http = http;
    this.#options = options;
  }

  /** Reads the CA file, if any; connects to nothing yet. Throws CONFIG. */
  static async open(provision: Provision, options: HttpStoreOptions = {}): Promise<HttpStore> {
    return new HttpStore(provision, await HttpClient.create(options), options);
  }

  async #session(auth: ProvisionAuth): Promise<CloudSession> {
    const name = `${auth.authUrl}\n${auth.id}`;
    let open = this.#sessions.get(name);
    if (open === undefined) {
      open = CloudSession.open(
        {
          name: 'of the provision document',
          authUrl: new URL(auth.authUrl),
          auth: { type: 'application_credential', id: auth.id, secret: auth.secret },
          region: undefined,
          interface: 'public',
          caFile: this.#options.caFile,
          endpoints: {},
        },
        { stallTimeoutMs: this.#options.stallTimeoutMs },
      );
      this.#sessions.set(name, open);
    }
    return open;
  }

  async #request(key: string, options: Omit<HttpRequest, 'what'>): Promise<HttpResponse> {
    const [id = '', ...rest] = checkKey(key);
    const entry = Object.hasOwn(this.#provision.data, id) ? this.#provision.data[id] : undefined;
    if (entry === undefined) {
      throw new PortError('STORE', `the provision document does not name the data set ${id}`, {
        hint: `it names: ${Object.keys(this.#provision.data).join(', ') || 'none'}`,
      });
    }
    const url = new URL(entry.url);
    url.pathname = `${url.pathname.replace(/\/?$/, '/')}${rest.join('/')}`;
    const request = { ...options, what: key };
    try {
      if (entry.auth !== undefined) return await (await this.#session(entry.auth)).request(url, request);
      return await withRetries(() => this.#http.request(url, request), { signal: options.signal });
    } catch (error) {
      throw inStoreWords(error, key, id, entry.expires);
    }
  }

  async get(key: string, options: GetOptions = {}): Promise<Readable> {
    const { signal } = options;
    const start = options.offsetBytes ?? 0;
    const end = options.lengthBytes === undefined ? undefined : start + options.lengthBytes;
    if (end === start) return Readable.from([]);
    const open = async (at: number): Promise<HttpResponse> => {
      const ranged = at > 0 || end !== undefined;
      return this.#request(key, {
        method: 'GET',
        ...(ranged ? { headers: { range: `bytes=${at}-${end === undefined ? '' : end - 1}` } } : {}),
        okStatus: ranged ? [200, 206] : [200],
        signal,
      });
    };
    const first = await open(start);
    return Readable.from(resumable(key, open, first, start, end, signal), { objectMode: false });
  }

  async head(key: string): Promise<StoredObject | undefined> {
    const answer = await this.#request(key, { method: 'HEAD', okStatus: [200, 404] });
    await answer.drain();
    if (answer.status === 404) return undefined;
    const bytes = Number(answer.headers['content-length'] ?? Number.NaN);
    if (!Number.isSafeInteger(bytes))
      throw new PortError('STORE', `${key}: the store does not tell its size`);
    return { key, bytes };
  }

  async *ids(): AsyncIterable<string> {
    yield* Object.keys(this.#provision.data).sort();
  }

  async check(): Promise<void> {
    throw readOnly();
  }

  async put(): Promise<StoredObject> {
    throw readOnly();
  }

  // biome-ignore lint/correctness/useYield: signed URLs list nothing
  async *list(): AsyncIterable<StoredObject> {
    throw new PortError('STORE', 'a provision document does not allow listing');
  }

  async remove(): Promise<void> {
    throw readOnly();
  }

  async close(): Promise<void> {
    await this.#http.close();
    for (const open of this.#sessions.values()) {
      await open.then(
        (session) => session.close(),
        () => {},
      );
    }
  }
}

function inStoreWords(error: unknown, key: string, id: string, expires: string | undefined): PortError {
  if (!(error instanceof HttpError)) return asPortError(error);
  const { status } = error;
  if (status === 401 || status === 403) {
    const until = expires === undefined ? '' : `; it was made to last until ${expires}`;
    return new PortError('STORE', `the store refuses the URL of ${id} (HTTP ${status})${until}`, {
      cause: error,
      hint: `it is expired, revoked, or bound to another address: port-image data mint ${id} makes a new document`,
    });
  }
  if (status === 404 || status === 410)
    return new PortError('STORE', `${key} is not in the store`, { cause: error });
  return new PortError('STORE', error.message, {
    temporary: error.temporary,
    cause: error,
    ...(error.hint === undefined ? {} : { hint: error.hint }),
  });
}

/** The body from `start` to `end`; a connection that breaks is continued where it broke. */
async function* resumable(
  key: string,
  open: (at: number) => Promise<HttpResponse>,
  first: HttpResponse,
  start: number,
  end: number | undefined,
  signal: AbortSignal | undefined,
): AsyncGenerator<Buffer> {
  const { etag } = first.headers;
  let answer = first;
  let at = start;
  let breaks = 0;
  for (;;) {
    // a server without ranges sends all of it again
    let skip = answer.status === 206 ? 0 : at;
    const length = Number(answer.headers['content-length'] ?? Number.NaN);
    const stop = end ?? (Number.isNaN(length) ? undefined : length + (answer.status === 206 ? at : 0));
    let handedOut = false;
    try {
      for await (const part of answer.body) {
        const whole = part as Buffer;
        let chunk = whole.subarray(Math.min(skip, whole.length));
        skip -= whole.length - chunk.length;
        if (stop !== undefined) chunk = chunk.subarray(0, stop - at);
        if (chunk.length === 0) continue;
        at += chunk.length;
        breaks = 0;
        handedOut = true;
        yield chunk;
        handedOut = false;
        if (at === stop && answer.status !== 206) break;
      }
      if (stop === undefined || at >= stop) return;
    } catch (error) {
      if (signal?.aborted) throw new PortError('INTERRUPTED', 'interrupted', { cause: error });
      // thrown in by the reader, who wants no more
      if (handedOut) throw error;
    }
    breaks += 1;
    if (breaks > BREAKS) {
      throw new PortError('STORE', `${key}: the download broke off ${breaks} times at byte ${at}`, {
        temporary: true,
      });
    }
    await pause(BREAK_PAUSE_MS * breaks, signal);
    answer = await open(at);
    if (answer.headers.etag !== etag) {
      await answer.drain();
      throw new PortError('STORE', `${key} changed while it was read`);
    }
  }
}
