/**
 * A bucket of Cloud Storage. Objects are sent by a request of our own: the library's stream never ends when the connection
 * is cut in the middle of a body (@google-cloud/storage 8.4). The rest is the library's.
 */
import { randomBytes } from 'node:crypto';
import type { Readable } from 'node:stream';
import type { Bucket } from '@google-cloud/storage';
import type { GoogleAuth } from 'google-auth-library';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { checkEndpoint } from '../endpoint.ts';
import { HttpClient, HttpError, type ReplayableBody } from '../openstack/http.ts';
import { withRetries } from '../openstack/retry.ts';
import { GcpError, gcpError } from './errors.ts';
import { googleAuth, openStorage } from './login.ts';

const STORAGE = 'https://storage.googleapis.com';
/** A login that is refused again so soon is not made a third time. */
const RENEWAL_MS = 60_000;

/** An object as the bucket tells of it. */
export interface GcsObject {
  name: string;
  bytes: number;
  /** Base64, as Google writes it. */
  crc32c: string;
  metadata: Record<string, string>;
  generation: string;
  modifiedMs: number;
}

/** What to send. */
export interface GcsPut {
  name: string;
  content: ReplayableBody;
  /** Exact length when known. */
  bytes?: number | undefined;
  contentType: string;
  metadata?: Readonly<Record<string, string>>;
  /** 412 when there is an object of this name. */
  mustBeNew?: boolean;
  /** 412 unless the object is of this generation. */
  onlyOver?: string | undefined;
  signal?: AbortSignal | undefined;
}

interface Told {
  name?: string | undefined;
  size?: string | number | undefined;
  crc32c?: string | undefined;
  generation?: string | number | undefined;
  updated?: string | undefined;
  metadata?: Record<string, unknown> | undefined;
}

function objectOf(told: Told, name: string): GcsObject {
  return {
    name: told.name ?? name,
    bytes: Number(told.size ?? Number.NaN),
    crc32c: told.crc32c ?? '',
    generation: String(told.generation ?? ''),
    modifiedMs: Date.parse(told.updated ?? ''),
    metadata: Object.fromEntries(Object.entries(told.metadata ?? {}).map(([k, v]) => [k, String(v)])),
  };
}

/** Throws CLOUD, CLOUD_LOGIN, CLOUD_REFUSED, CLOUD_CONFLICT (412), INTERRUPTED. */
export class GcsBucket {
  readonly name: string;
  readonly #bucket: Bucket;
  readonly #http: HttpClient;
  readonly #base: string;
  /** Undefined for an emulator, which wants no login. */
  #auth: GoogleAuth | undefined;
  #renewedAt = Number.NEGATIVE_INFINITY;
  readonly #onRequest: () => void;

  private constructor(
    bucket: Bucket,
    http: HttpClient,
    base: string,
    auth: GoogleAuth | undefined,
    onRequest: () => void,
  ) {
    this.#bucket = bucket;
    this.#onRequest = onRequest;
    this.name = bucket.name;
    this.#http = http;
    this.#base = base;
    this.#auth = auth;
  }

  /** Asks nothing yet. Close it. `login`: unless the endpoint is on this machine. */
  static async open(
    name: string,
    options: {
      project?: string;
      endpoint?: string | undefined;
      login?: boolean;
      /** Told of each attempt. */
      onRequest?: () => void;
    } = {},
  ): Promise<GcsBucket> {
    const { project } = options;
    const endpoint = options.endpoint === undefined ? undefined : checkEndpoint(options.endpoint);
    const { login = !endpoint?.startsWith('http:') } = options;
    const auth = login ? await googleAuth(project) : undefined;
    const storage = await openStorage({ project, endpoint, auth });
    const { onRequest = () => {} } = options;
    return new GcsBucket(
      storage.bucket(name),
      await HttpClient.create(),
      endpoint ?? STORAGE,
      auth,
      onRequest,
    );
  }

  #what(name: string): string {
    return `gs://${this.name}/${printable(name)}`;
  }

  async #try<T>(what: string, signal: AbortSignal | undefined, ask: () => Promise<T>): Promise<T> {
    return withRetries(
      async () => {
        try {
          signal?.throwIfAborted();
          this.#onRequest();
          return await ask();
        } catch (error) {
          throw gcpError(error, what, signal);
        }
      },
      { signal },
    );
  }

  /** One attempt; what arrived is what Google says. The caller compares. */
  async put(put: GcsPut): Promise<GcsObject> {
    const { name, content, bytes, contentType, metadata, signal } = put;
    const boundary = randomBytes(16).toString('hex');
    const head = Buffer.from(
      `--${boundary}\r\ncontent-type: application/json\r\n\r\n${JSON.stringify({ name, contentType, metadata })}\r\n--${boundary}\r\ncontent-type: ${contentType}\r\n\r\n`,
    );
    const tail = Buffer.from(`\r\n--${boundary}--`);
    const url = new URL(`${this.#base}/upload/storage/v1/b/${encodeURIComponent(this.name)}/o`);
    url.search = new URLSearchParams({
      uploadType: 'multipart',
      name,
      ...(put.mustBeNew ? { ifGenerationMatch: '0' } : {}),
      ...(put.onlyOver === undefined ? {} : { ifGenerationMatch: put.onlyOver }),
    }).toString();
    this.#onRequest();
    try {
      const answer = await this.#http.request(url, {
        method: 'POST',
        headers: {
          ...(await this.#headers(url)),
          'content-type': `multipart/related; boundary=${boundary}`,
        },
        body: async function* () {
          yield head;
          yield* content();
          yield tail;
        },
        ...(bytes === undefined ? {} : { bodyBytes: head.length + bytes + tail.length }),
        what: `upload of ${this.#what(name)}`,
        signal,
      });
      return objectOf((await answer.json()) as Told, name);
    } catch (error) {
      throw await this.#explained(error, name, signal);
    }
  }

  async #headers(url: URL): Promise<Record<string, string>> {
    if (this.#auth === undefined) return {};
    try {
      return Object.fromEntries(await this.#auth.getRequestHeaders(url.href));
    } catch (error) {
      throw gcpError(error, `bucket ${this.name}`);
    }
  }

  /** The object, or undefined when there is none. */
  async head(name: string, signal?: AbortSignal): Promise<GcsObject | undefined> {
    try {
      return await this.#try(this.#what(name), signal, async () => {
        const [told] = await this.#bucket.file(name).getMetadata();
        return objectOf(told, name);
      });
    } catch (error) {
      if (error instanceof GcpError && error.status === 404) return undefined;
      throw error;
    }
  }

  /** Replaces the object's own metadata. */
  async setMetadata(name: string, metadata: Readonly<Record<string, string>>, signal?: AbortSignal) {
    await this.#try(this.#what(name), signal, () =>
      this.#bucket.file(name).setMetadata({ metadata: { ...metadata } }),
    );
  }

  /** Content of this generation from `start` on, before `end`; one attempt. */
  async read(
    { name, generation }: GcsObject,
    start: number,
    end: number,
    signal?: AbortSignal,
  ): Promise<Readable> {
    const url = new URL(
      `${this.#base}/storage/v1/b/${encodeURIComponent(this.name)}/o/${encodeURIComponent(name)}`,
    );
    url.search = new URLSearchParams({ alt: 'media', generation }).toString();
    const headers = { ...(await this.#headers(url)), range: `bytes=${start}-${end - 1}` };
    try {
      const what = `download of ${this.#what(name)}`;
      return (await this.#http.request(url, { method: 'GET', headers, okStatus: [206], what, signal })).body;
    } catch (error) {
      throw await this.#explained(error, name, signal);
    }
  }

  async #explained(error: unknown, name: string, signal: AbortSignal | undefined): Promise<unknown> {
    if (!(error instanceof HttpError) || error.status === 0) return error;
    const now = performance.now();
    if (error.status === 401 && this.#auth !== undefined && now - this.#renewedAt > RENEWAL_MS) {
      // The token was revoked, or this clock is wrong: the next attempt logs in anew.
      this.#auth = await googleAuth();
      this.#renewedAt = now;
      return new HttpError('CLOUD', error.message, { status: 401, temporary: true, cause: error });
    }
    return gcpError({ status: error.status, message: error.message }, this.#what(name), signal);
  }

  /** Joins at most 32 objects into a new one. True when there was one of that name already. */
  async compose(names: readonly string[], target: string, contentType: string, signal?: AbortSignal) {
    const object = this.#bucket.file(target);
    object.metadata.contentType = contentType;
    try {
      await this.#try(`joining the parts of ${this.#what(target)}`, signal, () =>
        this.#bucket.combine([...names], object, { ifGenerationMatch: 0 }),
      );
      return false;
    } catch (error) {
      if (error instanceof GcpError && error.status === 412) return true;
      throw error;
    }
  }

  /** No error when there is no such object. With a generation, one that was written over stays. */
  async remove(name: string, signal?: AbortSignal, generation?: string): Promise<void> {
    const options = generation === undefined ? {} : { generation };
    await this.#try(`removing ${this.#what(name)}`, signal, () =>
      this.#bucket.file(name, options).delete({ ignoreNotFound: true }),
    );
  }

  /** What a 404 for the whole bucket means, or the error as it was. */
  explainMissing(error: unknown): unknown {
    if (!(error instanceof GcpError) || error.status !== 404) return error;
    return new PortError(
      'CLOUD_REFUSED',
      `there is no bucket ${this.name}, or it is not shown to this login`,
      { cause: error, hint: `gcloud storage buckets create gs://${this.name}` },
    );
  }

  /** Objects whose name begins so, in order of their names. */
  async *list(prefix: string, signal?: AbortSignal): AsyncGenerator<GcsObject> {
    let pageToken: string | undefined;
    do {
      const [files, next] = await this.#try(`list of gs://${this.name}`, signal, () =>
        this.#bucket.getFiles({
          prefix,
          autoPaginate: false,
          maxResults: 1000,
          ...(pageToken === undefined ? {} : { pageToken }),
        }),
      );
      for (const file of files) yield objectOf(file.metadata, file.name);
      pageToken = (next as { pageToken?: string } | null)?.pageToken;
    } while (pageToken !== undefined);
  }

  /** Folders right below a prefix that ends with a slash or is empty, without the slash, in order. */
  async *folders(prefix: string, signal?: AbortSignal): AsyncGenerator<string> {
    let pageToken: string | undefined;
    do {
      const [, next, told] = await this.#try(`list of gs://${this.name}`, signal, () =>
        this.#bucket.getFiles({
          prefix,
          delimiter: '/',
          autoPaginate: false,
          ...(pageToken === undefined ? {} : { pageToken }),
        }),
      );
      const { prefixes } = (told ?? {}) as { prefixes?: string[] };
      for (const found of prefixes ?? []) yield found.slice(prefix.length, -1);
      pageToken = (next as { pageToken?: string } | null)?.pageToken;
    } while (pageToken !== undefined);
  }

  /** Proves that objects can be made and removed, with one of a few bytes that is gone after. */
  async probe(name: string, signal?: AbortSignal): Promise<void> {
    const content = Buffer.from('port-image');
    await withRetries(
      () =>
        this.put({
          name,
          content: async function* () {
            yield content;
          },
          bytes: content.length,
          contentType: 'text/plain',
          signal,
        }),
      { signal },
    ).catch((error: unknown) => {
      throw this.explainMissing(error);
    });
    await this.remove(name, signal);
  }

  async close(): Promise<void> {
    await this.#http.close();
  }
}
