/**
 * `gs:BUCKET/PREFIX`: data sets in Google Cloud Storage, below PREFIX (`port-image` when absent). `?endpoint=URL` names
 * another address of the service. It signs no URLs: Google signs one object at a time.
 */
import { Readable } from 'node:stream';
import { DATA_SET_ID } from '../../core/data-set.ts';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { GcsBucket, type GcsObject } from '../../tools/gcp/bucket.ts';
import { putStream } from '../../tools/gcp/put-stream.ts';
import { continuedRead } from './continued-read.ts';
import { checkKey, isDataSetKey, splitKey } from './key.ts';
import type { Content, GetOptions, PutOptions, Store, StoredObject } from './store.ts';

const DEFAULT_PREFIX = 'port-image';
const PLACE = /^([a-z0-9][-a-z0-9._]{1,220}[a-z0-9])(?:\/([A-Za-z0-9._-]+(?:\/[A-Za-z0-9._-]+)*))?$/;
/** Folder of parts under way; no key has a leading dot. */
const PARTS = '.parts';

/** A store in Cloud Storage. Throws CLOUD, CLOUD_LOGIN, CLOUD_REFUSED, STORE, STORE_MISMATCH. */
export class GcsStore implements Store {
  readonly url: string;
  readonly lanes = 4;
  readonly #name: string;
  readonly #prefix: string;
  readonly #endpoint: string | undefined;
  readonly #partBytes: number | undefined;
  #bucket: Promise<GcsBucket> | undefined;

  /** `place` is what follows `gs:`. Throws USAGE. */
  constructor(place: string, options: { partBytes?: number } = {}) {
    const [where = '', query = ''] = place.replace(/^\/\//, '').split('?', 2);
    const [, name, prefix = DEFAULT_PREFIX] = PLACE.exec(where) ?? [];
    const parameters = new URLSearchParams(query);
    const unknown = [...parameters.keys()].some((key) => key !== 'endpoint');
    if (name === undefined || unknown || prefix.split('/').some((part) => /^\.+$/.test(part))) {
      throw new PortError('USAGE', `not a bucket with a prefix: ${printable(where).slice(0, 200)}`, {
        hint: 'gs:BUCKET/PREFIX',
      });
    }
    this.#name = name;
    this.#prefix = prefix;
    this.#endpoint = parameters.get('endpoint') ?? undefined;
    this.#partBytes = options.partBytes;
    this.url = `gs:${name}/${prefix}${query === '' ? '' : `?${query}`}`;
  }

  #open(): Promise<GcsBucket> {
    this.#bucket ??= GcsBucket.open(this.#name, { endpoint: this.#endpoint });
    return this.#bucket;
  }

  #nameOf(key: string): string {
    splitKey(key);
    return `${this.#prefix}/${key}`;
  }

  async check(): Promise<void> {
    await (await this.#open()).probe(`${this.#prefix}/${PARTS}/probe`);
  }

  async put(key: string, content: Content, options: PutOptions = {}): Promise<StoredObject> {
    const name = this.#nameOf(key);
    const [id = '', ...rest] = key.split('/');
    const put = await putStream(await this.#open(), {
      name,
      partsPrefix: `${this.#prefix}/${id}/${PARTS}/${rest.join('/')}/`,
      content,
      bytes: options.bytes,
      contentType: options.contentType ?? 'application/octet-stream',
      partBytes: this.#partBytes,
      signal: options.signal,
    });
    return { key, bytes: put.bytes, sha256: put.sha256, etag: put.generation, kept: put.kept };
  }

  async get(key: string, options: GetOptions = {}): Promise<Readable> {
    const bucket = await this.#open();
    const { signal, offsetBytes: start = 0, lengthBytes } = options;
    const object = await bucket.head(this.#nameOf(key), signal);
    if (object === undefined) {
      throw new PortError('STORE', `${key} is not in the store ${this.url}`);
    }
    const end = Math.min(object.bytes, lengthBytes === undefined ? object.bytes : start + lengthBytes);
    const pieces = continuedRead(key, { start, end, signal }, async (from) =>
      bucket.read(object, from, end, signal),
    );
    return Readable.from(pieces, { objectMode: false });
  }

  async head(key: string): Promise<StoredObject | undefined> {
    const found = await (await this.#open()).head(this.#nameOf(key));
    return found === undefined ? undefined : stored(key, found);
  }

  async *list(prefix: string): AsyncIterable<StoredObject> {
    const start = `${this.#prefix}/`;
    for await (const object of (await this.#open()).list(`${start}${prefix}`)) {
      const key = object.name.slice(start.length);
      if (isDataSetKey(key)) yield stored(key, object);
    }
  }

  async remove(key: string): Promise<void> {
    await (await this.#open()).remove(this.#nameOf(key));
  }

  async *ids(): AsyncIterable<string> {
    const found: string[] = [];
    for await (const id of (await this.#open()).folders(`${this.#prefix}/`)) found.push(id);
    // Google orders folders with their slash
    yield* found.filter((id) => DATA_SET_ID.test(id)).sort();
  }

  async sweep(prefix: string, options: { keepResumable?: boolean } = {}): Promise<number> {
    if (options.keepResumable === true) return 0;
    const [id = '', ...rest] = checkKey(prefix);
    const bucket = await this.#open();
    let removed = 0;
    for await (const part of bucket.list(`${this.#prefix}/${id}/${PARTS}/${rest.join('/')}`)) {
      await bucket.remove(part.name);
      removed += 1;
    }
    return removed;
  }

  async close(): Promise<void> {
    const bucket = await this.#bucket?.catch(() => undefined);
    this.#bucket = undefined;
    await bucket?.close();
  }
}

function stored(key: string, { bytes, metadata, generation, modifiedMs }: GcsObject): StoredObject {
  const { sha256 } = metadata;
  return {
    key,
    bytes,
    etag: generation,
    ...(sha256 === undefined ? {} : { sha256 }),
    ...(Number.isNaN(modifiedMs) ? {} : { modifiedMs }),
  };
}
