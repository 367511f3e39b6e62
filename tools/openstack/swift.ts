/** Swift's calls: account, containers, objects. Large objects are in swift-put-file.ts, swift-put-stream.ts and swift-slo.ts, signed URLs in tempurl.ts. */
import { Readable } from 'node:stream';
import * as z from 'zod';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import type { HttpRequest, HttpResponse } from './http.ts';
import { withRetries } from './retry.ts';
import type { CloudSession, SessionRequest } from './session.ts';
import { readResuming } from './swift-get.ts';
import { readSwiftInfo, type SwiftInfo } from './swift-info.ts';
import { healing, MARK_HEADER, plainEtag, type SwiftObject } from './swift-object.ts';
import { type FilePut, type PutFileOptions, putFile } from './swift-put-file.ts';
import { removeLarge } from './swift-slo.ts';
import { type TempUrlRequest, tempUrl } from './tempurl.ts';

const ListedObject = z.looseObject({
  name: z.string(),
  bytes: z.number(),
  hash: z.string(),
  last_modified: z.string().optional(),
  slo_etag: z.string().optional(),
});
const ListedContainer = z.looseObject({ name: z.string(), bytes: z.number(), count: z.number() });

/** One account of Swift. Names are plain text, encoded here. */
export class SwiftApi {
  readonly session: CloudSession;
  readonly #limits: Partial<SwiftInfo>;
  #info: Promise<SwiftInfo> | undefined;

  /** `limits` replaces what `/info` says. */
  constructor(session: CloudSession, options: { limits?: Partial<SwiftInfo> } = {}) {
    this.session = session;
    this.#limits = options.limits ?? {};
  }

  /** Limits and abilities, asked once. Throws CLOUD. */
  async info(signal?: AbortSignal): Promise<SwiftInfo> {
    this.#info ??= readSwiftInfo(this.session, this.endpoint, signal).catch((error: unknown) => {
      this.#info = undefined;
      throw error;
    });
    return { ...(await this.#info), ...this.#limits };
  }

  /** URL of the account. Throws CLOUD_REFUSED when the catalog has none. */
  get endpoint(): URL {
    return this.session.endpoint('object-store');
  }

  /** URL of a container or object. */
  url(container = '', object = '', query: Readonly<Record<string, string>> = {}): URL {
    const encode = (text: string) => text.split('/').map(encodeURIComponent).join('/');
    const path =
      container === '' ? '' : `${encodeURIComponent(container)}${object === '' ? '' : `/${encode(object)}`}`;
    const url = new URL(path, this.endpoint);
    if (container === '') url.pathname = url.pathname.replace(/\/$/, '');
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
    return url;
  }

  /** A request whose answer has no body of interest. */
  async send(url: URL, options: SessionRequest): Promise<HttpResponse> {
    const answer = await this.session.request(url, options);
    await answer.drain();
    return answer;
  }

  /** Headers of the account: usage and quotas. */
  async headAccount(signal?: AbortSignal): Promise<HttpResponse['headers']> {
    const request: SessionRequest = { method: 'HEAD', what: 'object storage account', signal };
    return (await this.send(this.url(), request)).headers;
  }

  /** Headers of a container, undefined when there is none. */
  async headContainer(name: string, signal?: AbortSignal): Promise<HttpResponse['headers'] | undefined> {
    const answer = await this.send(this.url(name), {
      method: 'HEAD',
      okStatus: [200, 204, 404],
      what: `container ${printable(name)}`,
      signal,
    });
    return answer.status === 404 ? undefined : answer.headers;
  }

  /** Names of the containers that start with `prefix`, in order. */
  async *listContainers(prefix: string, signal?: AbortSignal): AsyncIterable<string> {
    for await (const item of this.#pages(ListedContainer, '', { prefix }, 'list of containers', signal)) {
      yield item.name;
    }
  }

  /**
   * Makes a private container marked as ours, or finds it. Throws CLOUD_CONFLICT when one of the name has another mark
   * or none, and CLOUD_REFUSED when everybody may read it.
   */
  async ensureContainer(name: string, mark: string, signal?: AbortSignal): Promise<HttpResponse['headers']> {
    let headers = await this.headContainer(name, signal);
    if (headers === undefined) {
      await this.send(this.url(name), {
        method: 'PUT',
        headers: { [MARK_HEADER]: mark },
        what: `new container ${printable(name)}`,
        signal,
      });
      headers = (await this.headContainer(name, signal)) ?? {};
    }
    if (headers[MARK_HEADER] !== mark) {
      const found = headers[MARK_HEADER];
      throw new PortError(
        'CLOUD_CONFLICT',
        `container ${printable(name)} is there but ${found === undefined ? 'was not made by port-image' : `belongs to ${printable(found)}`}`,
        { hint: 'take another prefix for the store: swift:PREFIX' },
      );
    }
    if (/(^|,)\s*\.r:/.test(headers['x-container-read'] ?? '')) {
      throw new PortError('CLOUD_REFUSED', `container ${printable(name)} can be read without a login`, {
        hint: `take that away: swift post ${printable(name)} --read-acl ''`,
      });
    }
    return headers;
  }

  /** Sets headers of a container. */
  async postContainer(
    name: string,
    headers: Readonly<Record<string, string>>,
    signal?: AbortSignal,
  ): Promise<void> {
    const what = `settings of container ${printable(name)}`;
    await this.send(this.url(name), { method: 'POST', headers, what, signal, retries: 5 });
  }

  /** Removes an empty container; false when it still holds something. */
  async removeContainer(name: string, signal?: AbortSignal): Promise<boolean> {
    const answer = await this.send(this.url(name), {
      method: 'DELETE',
      okStatus: [204, 404, 409],
      what: `removal of container ${printable(name)}`,
      signal,
    });
    return answer.status !== 409;
  }

  /** What is known about an object, undefined when it is not there. */
  async headObject(container: string, name: string, signal?: AbortSignal): Promise<SwiftObject | undefined> {
    const answer = await this.send(this.url(container, name), {
      method: 'HEAD',
      okStatus: [200, 204, 404],
      what: `object ${printable(name)}`,
      signal,
    });
    if (answer.status === 404) return undefined;
    const { headers } = answer;
    const modifiedMs = Date.parse(headers['last-modified'] ?? '');
    return {
      name,
      bytes: Number(headers['content-length'] ?? 0),
      etag: plainEtag(headers.etag),
      isLarge: headers['x-static-large-object']?.toLowerCase() === 'true',
      ...(Number.isNaN(modifiedMs) ? {} : { modifiedMs }),
    };
  }

  /** Objects whose name starts with `prefix`, in order; nothing when there is no such container. */
  async *listObjects(container: string, prefix: string, signal?: AbortSignal): AsyncIterable<SwiftObject> {
    const what = `list of ${printable(container)}`;
    for await (const item of this.#pages(ListedObject, container, { prefix }, what, signal)) {
      // Swift gives UTC without saying so.
      const modifiedMs = Date.parse(`${(item.last_modified ?? '').replace(/Z$/, '')}Z`);
      yield {
        name: item.name,
        bytes: item.bytes,
        etag: plainEtag(item.hash),
        isLarge: item.slo_etag !== undefined,
        ...(Number.isNaN(modifiedMs) ? {} : { modifiedMs }),
      };
    }
  }

  /** Content of an object; a connection cut on the way is continued. Throws STORE when it is not there. */
  async getObject(
    container: string,
    name: string,
    options: { offsetBytes?: number; lengthBytes?: number; signal?: AbortSignal | undefined } = {},
  ): Promise<Readable> {
    const what = `download of ${printable(name)}`;
    const get = (headers: Record<string, string>) =>
      this.session.request(this.url(container, name), {
        method: 'GET',
        headers,
        okStatus: [200, 206, 404, 412, 416],
        what,
        signal: options.signal,
      });
    const chunks = await readResuming(get, { ...options, what, name });
    return Readable.from(chunks, { objectMode: false, highWaterMark: 1 << 18 });
  }

  /** Removes an object with the parts of a large one. No error when there is none. */
  async removeObject(container: string, name: string, signal?: AbortSignal): Promise<void> {
    await removeLarge(this, container, name, signal);
  }

  /** Removes one object as it is, without its parts. */
  async removePlain(container: string, name: string, signal?: AbortSignal): Promise<void> {
    const options: HttpRequest = {
      method: 'DELETE',
      okStatus: [200, 204, 404],
      what: `removal of ${printable(name)}`,
      signal,
    };
    await withRetries(
      async () => {
        try {
          await this.send(this.url(container, name), options);
        } catch (error) {
          throw healing(error, [409]);
        }
      },
      { signal },
    );
  }

  /** Puts a file of this machine, in parts where it is large; see swift-put-file.ts. */
  async putFile(
    container: string,
    name: string,
    file: string,
    options: PutFileOptions = {},
  ): Promise<FilePut> {
    return putFile(this, container, name, file, options);
  }

  /** A signed URL with the container's own key; see tempurl.ts. */
  async tempUrl(request: TempUrlRequest): Promise<string> {
    return tempUrl(this, request);
  }

  async *#pages<T extends { name: string }>(
    schema: z.ZodType<T>,
    container: string,
    query: Readonly<Record<string, string>>,
    what: string,
    signal?: AbortSignal,
  ): AsyncIterable<T> {
    const limit = (await this.info(signal)).listingLimit;
    for (let marker = ''; ; ) {
      const url = this.url(container, '', {
        format: 'json',
        limit: String(limit),
        ...query,
        ...(marker === '' ? {} : { marker }),
      });
      const items = await withRetries(
        async () => {
          const answer = await this.session.request(url, {
            method: 'GET',
            okStatus: [200, 204, 404],
            what,
            signal,
          });
          if (answer.status !== 200) {
            await answer.drain();
            return [];
          }
          const parsed = z.array(schema).safeParse(await answer.json(64 * 1024 * 1024));
          if (!parsed.success) throw new PortError('CLOUD', `${what}: the answer is no listing`);
          return parsed.data;
        },
        { signal },
      );
      yield* items;
      const last = items.at(-1);
      if (last === undefined || items.length < limit) return;
      marker = last.name;
    }
  }
}
