/**
 * `s3:BUCKET/PREFIX`: data sets in Amazon S3 or a store that speaks its protocol, below PREFIX (`port-image` when absent).
 * `?region=`, `?endpoint=` and `?profile=` say where and as whom. It makes no URLs for instances: S3 signs one object at a
 * time, and a provision document has one address per data set.
 */
import { Readable } from 'node:stream';
import { DATA_SET_ID } from '../../core/data-set.ts';
import { PortError } from '../../core/errors.ts';
import { GIB } from '../../core/sizes.ts';
import { printable } from '../../core/text.ts';
import { checkEndpoint } from '../../tools/endpoint.ts';
import { type S3Location, type S3Object, S3Objects } from '../../tools/s3-objects.ts';
import { continuedRead } from './continued-read.ts';
import { checkKey, isDataSetKey, splitKey } from './key.ts';
import type { Content, GetOptions, PutOptions, Store, StoredObject } from './store.ts';

const DEFAULT_PREFIX = 'port-image';
/** Names of buckets: docs.aws.amazon.com/AmazonS3, "General purpose bucket naming rules". */
const PLACE = /^([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:\/([A-Za-z0-9._-]+(?:\/[A-Za-z0-9._-]+)*))?$/;
const PARAMETERS = new Set(['region', 'endpoint', 'profile']);
/** Region of a store without regions, and the SDK's own default. */
const DEFAULT_REGION = 'us-east-1';
/** A segment without a known bound; parts are then as large as they must be for this. */
const UNKNOWN_BYTES = 64 * GIB;

/** A store in S3. Throws CLOUD, CLOUD_LOGIN, CLOUD_REFUSED, STORE, STORE_MISMATCH. */
export class S3Store implements Store {
  readonly url: string;
  readonly lanes = 4;
  readonly #prefix: string;
  readonly #place: S3Location;
  #objects: Promise<S3Objects> | undefined;

  /** `place` is what follows `s3:`. Throws USAGE. */
  constructor(place: string, env: NodeJS.ProcessEnv = process.env) {
    const [where = '', query = ''] = place.replace(/^\/\//, '').split('?', 2);
    const [, bucket, prefix = DEFAULT_PREFIX] = PLACE.exec(where) ?? [];
    const parameters = new URLSearchParams(query);
    const unknown = [...parameters.keys()].some((key) => !PARAMETERS.has(key));
    if (bucket === undefined || unknown || prefix.split('/').some((part) => /^\.+$/.test(part))) {
      throw new PortError('USAGE', `not a bucket with a prefix: ${printable(where).slice(0, 200)}`, {
        hint: 's3:BUCKET/PREFIX?region=REGION, with endpoint= for another store than Amazon',
      });
    }
    const endpoint = parameters.get('endpoint');
    this.#place = {
      bucket,
      region: parameters.get('region') ?? env.AWS_REGION ?? env.AWS_DEFAULT_REGION ?? DEFAULT_REGION,
      endpoint: endpoint === null ? undefined : checkEndpoint(endpoint),
      profile: parameters.get('profile') ?? undefined,
    };
    this.#prefix = prefix;
    this.url = `s3:${bucket}/${prefix}${query === '' ? '' : `?${query}`}`;
  }

  #open(): Promise<S3Objects> {
    this.#objects ??= S3Objects.open(this.#place);
    return this.#objects;
  }

  #nameOf(key: string): string {
    splitKey(key);
    return `${this.#prefix}/${key}`;
  }

  async check(): Promise<void> {
    await (await this.#open()).probe(`${this.#prefix}/.probe`);
  }

  async put(key: string, content: Content, options: PutOptions = {}): Promise<StoredObject> {
    const name = this.#nameOf(key);
    const { bytes, etag, sha256 } = await (await this.#open()).put(name, content(), {
      contentType: options.contentType ?? 'application/octet-stream',
      mostBytes: options.bytes ?? options.maxBytes ?? UNKNOWN_BYTES,
      signal: options.signal,
    });
    if (options.bytes !== undefined && options.bytes !== bytes) {
      await this.remove(key);
      throw new PortError('STORE_MISMATCH', `${key} has ${bytes} bytes, not ${options.bytes}`);
    }
    return { key, bytes, sha256, etag };
  }

  async get(key: string, options: GetOptions = {}): Promise<Readable> {
    const objects = await this.#open();
    const { signal, offsetBytes: start = 0, lengthBytes } = options;
    const object = await objects.head(this.#nameOf(key), signal);
    if (object === undefined) throw new PortError('STORE', `${key} is not in the store ${this.url}`);
    const end = Math.min(object.bytes, lengthBytes === undefined ? object.bytes : start + lengthBytes);
    const pieces = continuedRead(key, { start, end, signal }, (from) =>
      objects.read(object, from, end, signal),
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
    // S3 orders folders with their slash
    yield* found.filter((id) => DATA_SET_ID.test(id)).sort();
  }

  /** A put that was killed is begun anew by the next one of its key, so nothing is kept for it. */
  async sweep(prefix: string): Promise<number> {
    checkKey(prefix);
    return (await this.#open()).sweep(`${this.#prefix}/${prefix}/`);
  }

  async close(): Promise<void> {
    const objects = await this.#objects?.catch(() => undefined);
    this.#objects = undefined;
    objects?.close();
  }
}

function stored(key: string, { bytes, etag, modifiedMs }: S3Object): StoredObject {
  return { key, bytes, etag, ...(modifiedMs === undefined ? {} : { modifiedMs }) };
}
