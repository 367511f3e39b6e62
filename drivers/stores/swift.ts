/**
 * `swift:PREFIX`: data sets in OpenStack Swift, each in a container of its own named PREFIX.ID, so that its signing key
 * opens it alone. Key `ID/rest` is object `rest` of that container.
 */
import type { Readable } from 'node:stream';
import type { Provision } from '../../core/contract.ts';
import { DATA_SET_ID } from '../../core/data-set.ts';
import { PortError } from '../../core/errors.ts';
import { formatBytes } from '../../core/sizes.ts';
import { printable } from '../../core/text.ts';
import { HttpError } from '../../tools/openstack/http.ts';
import type { CloudSession } from '../../tools/openstack/session.ts';
import { SwiftApi } from '../../tools/openstack/swift.ts';
import type { SwiftInfo } from '../../tools/openstack/swift-info.ts';
import { MARK_HEADER, type SwiftObject } from '../../tools/openstack/swift-object.ts';
import { quotasOf } from '../../tools/openstack/swift-put.ts';
import { putStream } from '../../tools/openstack/swift-put-stream.ts';
import { isPartName, sweepParts } from '../../tools/openstack/swift-slo.ts';
import { proveTempUrls, revokeTempUrls, tempUrlDigest } from '../../tools/openstack/tempurl.ts';
import { checkKey, idsBelow, notOfDataSet, splitKey } from './key.ts';
import type {
  Content,
  GetOptions,
  Provisioned,
  ProvisionOptions,
  PutOptions,
  Store,
  StoredObject,
} from './store.ts';

/** Prefix of `swift:`. */
const DEFAULT_PREFIX = 'port-image';
const PREFIX = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;
const MANIFEST = 'manifest.json';
const LANES = 8;

/** How to open a Swift store. */
export interface SwiftStoreOptions {
  /** Logs in; called at the first use. */
  open: () => Promise<CloudSession>;
  /** Size of the parts of objects that do not fit into one. */
  partBytes?: number;
  /** Replaces what the service says of itself. */
  limits?: Partial<SwiftInfo>;
}

/** A store in Swift. Throws CLOUD_LOGIN, CLOUD, CLOUD_REFUSED, CLOUD_CONFLICT, STORE. */
export class SwiftStore implements Store {
  readonly url: string;
  readonly prefix: string;
  readonly lanes = 4;
  readonly #options: SwiftStoreOptions;
  #api: Promise<SwiftApi> | undefined;
  /** Containers seen to be ours. */
  readonly #ours = new Map<string, Promise<unknown>>();

  /** Throws USAGE for a prefix that is none. */
  constructor(prefix: string, options: SwiftStoreOptions) {
    this.prefix = prefix === '' ? DEFAULT_PREFIX : prefix;
    if (!PREFIX.test(this.prefix)) {
      throw new PortError('USAGE', `not a prefix of containers: ${printable(prefix).slice(0, 200)}`, {
        hint: 'letters, digits, dot, hyphen and underscore: swift:PREFIX',
      });
    }
    this.url = `swift:${this.prefix}`;
    this.#options = options;
  }

  /** Name of a data set's container. */
  containerOf(id: string): string {
    return `${this.prefix}.${id}`;
  }

  /** What marks a container as one of this store; the prefix in it keeps `a` + `b.x` and `a.b` + `x` apart. */
  get mark(): string {
    return `data-set/1 ${this.prefix}`;
  }

  /** The calls below, with the login of this store. */
  api(): Promise<SwiftApi> {
    const { limits } = this.#options;
    this.#api ??= this.#options
      .open()
      .then((session) => new SwiftApi(session, limits === undefined ? {} : { limits }))
      .catch((error: unknown) => {
        this.#api = undefined;
        throw error;
      });
    return this.#api;
  }

  #locate(key: string): { container: string; name: string } {
    const { id, name } = splitKey(key);
    if (isPartName(`${key}/`)) throw notOfDataSet(key);
    return { container: this.containerOf(id), name };
  }

  #ensure(api: SwiftApi, container: string, signal?: AbortSignal): Promise<unknown> {
    const known = this.#ours.get(container);
    if (known !== undefined) return known;
    const asking = api.ensureContainer(container, this.mark, signal).catch((error: unknown) => {
      this.#ours.delete(container);
      throw error;
    });
    this.#ours.set(container, asking);
    return asking;
  }

  async check(neededBytes: number): Promise<void> {
    const api = await this.api();
    const info = await api.info();
    // Asks for a change of a container that is not there: 404 when it would be allowed, 403 when not.
    const absent = `${this.prefix}.-check`;
    await api
      .send(api.url(absent), {
        method: 'POST',
        okStatus: [200, 202, 204, 404],
        what: 'test of the right to write',
        retries: 5,
      })
      .catch((error: unknown) => {
        throw refused(error, api.session);
      });
    if (info.slo === undefined && info.maxFileBytes < neededBytes && info.maxFileBytes < 2 ** 30) {
      throw new PortError(
        'CLOUD_REFUSED',
        `the object store takes ${formatBytes(info.maxFileBytes)} an object and cannot join several (no slo)`,
      );
    }
    for (const quota of await quotasOf(api)) {
      if (quota.isFull || (quota.leftBytes !== undefined && quota.leftBytes < neededBytes)) {
        throw new PortError('CLOUD_REFUSED', `${quota.text}, ${formatBytes(neededBytes)} are needed`, {
          hint: 'ask the operator of the cloud for a larger quota, or remove data sets: port-image data list',
        });
      }
    }
  }

  async put(key: string, content: Content, options: PutOptions = {}): Promise<StoredObject> {
    const { container, name } = this.#locate(key);
    const api = await this.api();
    const { signal, bytes, maxBytes, contentType } = options;
    await this.#ensure(api, container, signal);
    const { partBytes } = this.#options;
    const put = () =>
      putStream(api, container, name, content, { bytes, maxBytes, contentType, partBytes, signal });
    const done = await put().catch(async (error: unknown) => {
      if (!(error instanceof HttpError) || error.status !== 404) throw error;
      // Somebody removed the empty container since we looked.
      this.#ours.delete(container);
      await this.#ensure(api, container, signal);
      return put();
    });
    return { key, bytes: done.bytes, sha256: done.sha256, etag: done.etag, kept: done.kept };
  }

  async get(key: string, options: GetOptions = {}): Promise<Readable> {
    const { container, name } = this.#locate(key);
    return (await this.api()).getObject(container, name, options);
  }

  async head(key: string): Promise<StoredObject | undefined> {
    const { container, name } = this.#locate(key);
    const found = await (await this.api()).headObject(container, name);
    return found === undefined ? undefined : stored(key, found);
  }

  async *list(prefix: string): AsyncIterable<StoredObject> {
    const several = await idsBelow(prefix, () => this.ids());
    if (several !== undefined) {
      for (const id of several) yield* this.list(`${id}/`);
      return;
    }
    const slash = prefix.indexOf('/');
    const id = prefix.slice(0, slash);
    if (!DATA_SET_ID.test(id)) return;
    const api = await this.api();
    if (!(await this.#isOurs(api, id))) return;
    for await (const object of api.listObjects(this.containerOf(id), prefix.slice(slash + 1))) {
      if (!isPartName(object.name)) yield stored(`${id}/${object.name}`, object);
    }
  }

  async #isOurs(api: SwiftApi, id: string): Promise<boolean> {
    return (await api.headContainer(this.containerOf(id)))?.[MARK_HEADER] === this.mark;
  }

  async remove(key: string): Promise<void> {
    const { container, name } = this.#locate(key);
    const api = await this.api();
    if (!(await this.#isOurs(api, checkKey(key)[0] ?? ''))) return;
    await api.removeObject(container, name);
    // Refused while something is left in it.
    if (await api.removeContainer(container)) this.#ours.delete(container);
  }

  async *ids(): AsyncIterable<string> {
    const api = await this.api();
    const start = `${this.prefix}.`;
    let waiting: Promise<string | undefined>[] = [];
    const look = async (id: string) => ((await this.#isOurs(api, id)) ? id : undefined);
    const flush = async function* (pending: Promise<string | undefined>[]) {
      for (const id of await Promise.all(pending)) if (id !== undefined) yield id;
    };
    for await (const name of api.listContainers(start)) {
      const id = name.slice(start.length);
      if (!DATA_SET_ID.test(id)) continue;
      waiting.push(look(id));
      if (waiting.length < LANES) continue;
      yield* flush(waiting);
      waiting = [];
    }
    yield* flush(waiting);
  }

  async sweep(prefix: string, options: { keepResumable?: boolean } = {}): Promise<number> {
    if (options.keepResumable === true) return 0;
    const [id = '', ...rest] = checkKey(prefix);
    const api = await this.api();
    if (!DATA_SET_ID.test(id) || !(await this.#isOurs(api, id))) return 0;
    return sweepParts(api, this.containerOf(id), rest.join('/'));
  }

  async provision(ids: readonly string[], options: ProvisionOptions): Promise<Provisioned> {
    const api = await this.api();
    const { lifeMs, ipRange, signal } = options;
    await tempUrlDigest(api, signal);
    const data: Provision['data'] = {};
    const paths: string[] = [];
    for (const id of ids) {
      const container = this.containerOf(id);
      if (!DATA_SET_ID.test(id) || !(await this.#isOurs(api, id))) {
        throw new PortError('STORE', `data set ${printable(id)} is not in the store ${this.url}`);
      }
      await proveTempUrls(api, container, MANIFEST, signal);
      const url = await api.tempUrl({ container, prefix: '', method: 'GET', lifeMs, ipRange, signal });
      const expires = Number(new URL(url).searchParams.get('temp_url_expires')) * 1000;
      data[id] = { url, expires: new Date(expires).toISOString() };
      paths.push(new URL(url).pathname);
    }
    return {
      document: { version: 1, data },
      upstream: api.endpoint.origin,
      paths,
      caFile: api.session.config.caFile,
    };
  }

  async revoke(id: string, options: { signal?: AbortSignal | undefined } = {}): Promise<void> {
    const api = await this.api();
    if (!DATA_SET_ID.test(id) || !(await this.#isOurs(api, id))) {
      throw new PortError('STORE', `data set ${printable(id)} is not in the store ${this.url}`);
    }
    await revokeTempUrls(api, this.containerOf(id), MANIFEST, options.signal);
  }

  async close(): Promise<void> {
    const api = await this.#api?.catch(() => undefined);
    this.#api = undefined;
    await api?.session.close();
  }
}

function stored(key: string, object: SwiftObject): StoredObject {
  const { bytes, etag, modifiedMs } = object;
  return { key, bytes, etag, ...(modifiedMs === undefined ? {} : { modifiedMs }) };
}

function refused(error: unknown, session: CloudSession): unknown {
  if (!(error instanceof HttpError) || (error.status !== 403 && error.status !== 401)) return error;
  const roles = printable(session.roles.join(', ')) || 'none';
  return new PortError(
    'CLOUD_REFUSED',
    `this login may not write to the object store of ${printable(session.config.name)}`,
    { hint: `it has the roles: ${roles}; Swift usually asks for member or swiftoperator`, cause: error },
  );
}
