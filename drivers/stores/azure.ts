/**
 * `azure:ACCOUNT/PREFIX`: data sets in Azure Blob, each in a container of its own, so that a signed address opens it alone.
 * Key `ID/rest` is blob `rest` of that container.
 */
import type { Readable } from 'node:stream';
import type { ContainerClient } from '@azure/storage-blob';
import type { Provision } from '../../core/contract.ts';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { readBlob } from '../../tools/azure/blob-read.ts';
import { putBlocks } from '../../tools/azure/block-put.ts';
import { revokeContainer, signContainer } from '../../tools/azure/container-sas.ts';
import { azureError, codeOf, statusOf } from '../../tools/azure/errors.ts';
import { AzureContainers, parseAzureStore, unlessAbsent } from './azure-containers.ts';
import { checkKey, idsBelow, splitKey } from './key.ts';
import type {
  Content,
  GetOptions,
  Provisioned,
  ProvisionOptions,
  PutOptions,
  Store,
  StoredObject,
} from './store.ts';

const MANIFEST = 'manifest.json';

/** A store in Azure Blob. Throws CONFIG, CLOUD_LOGIN, CLOUD, CLOUD_REFUSED, CLOUD_CONFLICT, STORE. */
export class AzureStore implements Store {
  readonly url: string;
  readonly lanes = 4;
  readonly #containers: AzureContainers;
  readonly #blockBytes: number | undefined;

  /** `text` is what stands behind `azure:`. Throws USAGE. */
  constructor(text: string, options: { blockBytes?: number } = {}) {
    const place = parseAzureStore(text);
    this.#containers = new AzureContainers(place);
    this.#blockBytes = options.blockBytes;
    const query = text.includes('?') ? text.slice(text.indexOf('?')) : '';
    this.url = `azure:${place.account}/${place.prefix}${query}`;
  }

  /** Name of a data set's container. */
  containerOf(id: string): string {
    return this.#containers.nameOf(id);
  }

  check(): Promise<void> {
    return this.#containers.check();
  }

  async put(key: string, content: Content, options: PutOptions = {}): Promise<StoredObject> {
    const { id, name } = splitKey(key);
    const put = async () => {
      const container = await this.#containers.ensure(id, options.signal);
      return putBlocks(container.getBlockBlobClient(name), content, {
        ...options,
        blockBytes: this.#blockBytes,
      });
    };
    const done = await put().catch(async (error: unknown) => {
      if (codeOf(error) !== 'ContainerNotFound') throw error;
      // Somebody removed the empty container since we looked.
      this.#containers.forget(id);
      return put();
    });
    return { key, ...done };
  }

  async get(key: string, options: GetOptions = {}): Promise<Readable> {
    const { id, name } = splitKey(key);
    const { signal, ...range } = options;
    try {
      return await readBlob((await this.#containers.of(id)).getBlobClient(name), range, signal);
    } catch (error) {
      if (statusOf(error) !== 404) throw error;
      throw new PortError('STORE', `${key} is not in the store ${this.url}`, { cause: error });
    }
  }

  async head(key: string): Promise<StoredObject | undefined> {
    const { id, name } = splitKey(key);
    const blob = (await this.#containers.of(id)).getBlobClient(name);
    const found = await unlessAbsent(`asking for ${key}`, () => blob.getProperties());
    if (found?.contentLength === undefined) return undefined;
    return stored(key, { ...found, contentLength: found.contentLength });
  }

  async *list(prefix: string): AsyncIterable<StoredObject> {
    const several = await idsBelow(prefix, () => this.ids());
    if (several !== undefined) {
      for (const id of several) yield* this.list(`${id}/`);
      return;
    }
    const slash = prefix.indexOf('/');
    const id = prefix.slice(0, slash);
    const container = await this.#containers.existing(id);
    if (container === undefined) return;
    try {
      const blobs = container.listBlobsFlat({ prefix: prefix.slice(slash + 1) });
      for await (const { name, properties } of blobs)
        yield stored(`${id}/${name}`, {
          ...properties,
          contentLength: properties.contentLength ?? 0,
        });
    } catch (error) {
      if (statusOf(error) !== 404) throw azureError(error, `listing ${printable(prefix)}`);
    }
  }

  async remove(key: string): Promise<void> {
    const { id, name } = splitKey(key);
    const container = await this.#containers.existing(id);
    if (container === undefined) return;
    await unlessAbsent(`removing ${key}`, () =>
      container.getBlobClient(name).deleteIfExists({ deleteSnapshots: 'include' }),
    );
    // A container goes with all that is in it, so only one that holds nothing, not even staged blocks, is removed.
    const left = await unlessAbsent(`listing ${id}`, () =>
      container.listBlobsFlat({ includeUncommitedBlobs: true }).next(),
    );
    if (left?.done !== true) return;
    await unlessAbsent(`removing container ${container.containerName}`, () => container.delete());
    this.#containers.forget(id);
  }

  async *ids(): AsyncIterable<string> {
    yield* await this.#containers.ids();
  }

  async sweep(prefix: string, options: { keepResumable?: boolean } = {}): Promise<number> {
    if (options.keepResumable === true) return 0;
    const [id = '', ...rest] = checkKey(prefix);
    const container = await this.#containers.existing(id);
    if (container === undefined) return 0;
    const below = rest.join('/');
    const committed = new Set<string>();
    const all = new Set<string>();
    try {
      for await (const { name } of container.listBlobsFlat({ prefix: below })) committed.add(name);
      for await (const { name } of container.listBlobsFlat({ prefix: below, includeUncommitedBlobs: true }))
        all.add(name);
      const left = [...all].filter(
        (name) => !committed.has(name) && (below === '' || name === below || name.startsWith(`${below}/`)),
      );
      for (const name of left) {
        // Staged blocks alone cannot be deleted; an empty blob takes their place and goes.
        const blob = container.getBlockBlobClient(name);
        await blob.commitBlockList([], { conditions: { ifNoneMatch: '*' } });
        await blob.delete();
      }
      return left.length;
    } catch (error) {
      throw azureError(error, `clearing ${printable(prefix)}`);
    }
  }

  async provision(ids: readonly string[], options: ProvisionOptions): Promise<Provisioned> {
    const signer = await this.#containers.signer();
    const data: Provision['data'] = {};
    const paths: string[] = [];
    for (const id of ids) {
      const container = await this.#required(id);
      const signed = await signContainer(signer, container, MANIFEST, options);
      data[id] = { url: `${container.url}/?${signed.query}`, expires: signed.expires.toISOString() };
      paths.push(`${new URL(container.url).pathname}/`);
    }
    return {
      document: { version: 1, data },
      upstream: new URL(signer.service.url).origin,
      paths,
      caFile: this.#containers.place.caFile,
    };
  }

  async revoke(id: string, options: { signal?: AbortSignal | undefined } = {}): Promise<void> {
    await revokeContainer(
      await this.#containers.signer(),
      await this.#required(id),
      MANIFEST,
      options.signal,
    );
  }

  async #required(id: string): Promise<ContainerClient> {
    const container = await this.#containers.existing(id);
    if (container === undefined)
      throw new PortError('STORE', `data set ${printable(id)} is not in the store ${this.url}`);
    return container;
  }
}

/** The sha256 of the metadata is ours, no proof of what is stored: it is not told, so that who wants proof reads. */
function stored(
  key: string,
  blob: { contentLength: number; etag?: string; lastModified?: Date },
): StoredObject {
  return {
    key,
    bytes: blob.contentLength,
    ...(blob.etag === undefined ? {} : { etag: blob.etag.replaceAll('"', '') }),
    ...(blob.lastModified === undefined ? {} : { modifiedMs: blob.lastModified.getTime() }),
  };
}
