/** The containers of a store in Azure Blob: one for each data set, marked as ours. */
import { createHash } from 'node:crypto';
import type { ContainerClient } from '@azure/storage-blob';
import { DATA_SET_ID } from '../../core/data-set.ts';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { blobService } from '../../tools/azure/blob.ts';
import type { Signer } from '../../tools/azure/container-sas.ts';
import { blobAccess, tokenCredential } from '../../tools/azure/credentials.ts';
import { ACCOUNT_NAME, blobServiceUrl, transport } from '../../tools/azure/endpoint.ts';
import { azureError, codeOf, statusOf } from '../../tools/azure/errors.ts';
import { withRetries } from '../../tools/openstack/retry.ts';

/** Container names have 63 characters; the rest is for a dash and a digest. */
const PREFIX = /^(?!.*--)[a-z0-9](?:[a-z0-9-]{0,28}[a-z0-9])?$/;
const DEFAULT_PREFIX = 'port-image';
/** Ids that are a part of a container's name as they are. */
const PLAIN_ID = /^(?!.*--)[a-z0-9](?:[a-z0-9-]{0,29}[a-z0-9])?$/;
const MARK = { port_image: 'data_set_1' };

/** What a URL names. */
export interface AzureStorePlace {
  account: string;
  prefix: string;
  endpoint: string | undefined;
  authority: string | undefined;
  caFile: string | undefined;
}

/** Reads `ACCOUNT/PREFIX?endpoint=URL&authority=URL&cacert=FILE`. Throws USAGE. */
export function parseAzureStore(text: string): AzureStorePlace {
  const [, account = '', prefix = '', query = ''] = /^([^/?]*)(?:\/([^?]*))?(?:\?(.*))?$/s.exec(text) ?? [];
  const options = new URLSearchParams(query);
  const known = new Set(['endpoint', 'authority', 'cacert']);
  const wrong = [...options.keys()].find((key) => !known.has(key));
  if (wrong !== undefined || !ACCOUNT_NAME.test(account) || (prefix !== '' && !PREFIX.test(prefix)))
    throw new PortError(
      'USAGE',
      `not a store in Azure Blob: azure:${printable(text.split('?')[0] ?? '').slice(0, 200)}`,
      {
        hint: 'azure:ACCOUNT/PREFIX, a prefix of at most 30 lower-case letters, digits and single dashes; after ? endpoint, authority, cacert',
      },
    );
  const of = (key: string) => options.get(key) ?? undefined;
  return {
    account,
    prefix: prefix === '' ? DEFAULT_PREFIX : prefix,
    endpoint: of('endpoint'),
    authority: of('authority'),
    caFile: of('cacert'),
  };
}

/** A call whose 404 is an answer. Throws as azureError. */
export async function unlessAbsent<T>(
  what: string,
  call: () => Promise<T>,
  signal?: AbortSignal,
): Promise<T | undefined> {
  try {
    return await call();
  } catch (error) {
    if (statusOf(error) === 404) return undefined;
    throw azureError(error, what, signal);
  }
}

/** The containers of one store. Throws CONFIG, CLOUD_LOGIN, CLOUD, CLOUD_REFUSED, CLOUD_CONFLICT. */
export class AzureContainers {
  readonly place: AzureStorePlace;
  #signer: Promise<Signer> | undefined;
  /** Containers seen to be ours. */
  readonly #ours = new Map<string, Promise<ContainerClient>>();

  constructor(place: AzureStorePlace) {
    this.place = place;
  }

  /** Name of a data set's container. */
  nameOf(id: string): string {
    const own = PLAIN_ID.test(id) ? id : `x${createHash('sha256').update(id).digest('hex').slice(0, 31)}`;
    return `${this.place.prefix}-${own}`;
  }

  /** Service and credentials, found at the first use. */
  signer(): Promise<Signer> {
    this.#signer ??= (async () => {
      const { account, endpoint, authority, caFile } = this.place;
      const wire = await transport(caFile);
      const access = blobAccess(account, () => tokenCredential({ transport: wire, authority }));
      const service = blobService(blobServiceUrl(account, endpoint), access, wire);
      return { service, access, account, transport: wire };
    })();
    return this.#signer;
  }

  /** The container of a data set, there or not. */
  async of(id: string): Promise<ContainerClient> {
    return (await this.signer()).service.getContainerClient(this.nameOf(id));
  }

  #mark(id: string): Record<string, string> {
    return { ...MARK, port_image_prefix: this.place.prefix, port_image_id: id };
  }

  #isMarked(metadata: Record<string, string> | undefined, id: string): boolean {
    return Object.entries(this.#mark(id)).every(([name, value]) => metadata?.[name] === value);
  }

  /** The container of a data set, when it is there and ours. */
  async existing(id: string): Promise<ContainerClient | undefined> {
    if (!DATA_SET_ID.test(id)) return undefined;
    const container = await this.of(id);
    const found = await unlessAbsent(`container ${container.containerName}`, () => container.getProperties());
    return this.#isMarked(found?.metadata, id) ? container : undefined;
  }

  /** The container of a data set, made when it is not there. */
  ensure(id: string, signal?: AbortSignal): Promise<ContainerClient> {
    const known = this.#ours.get(id);
    if (known !== undefined) return known;
    const making = this.#make(id, signal).catch((error: unknown) => {
      this.#ours.delete(id);
      throw error;
    });
    this.#ours.set(id, making);
    return making;
  }

  /** Looks again at the next `ensure`. */
  forget(id: string): void {
    this.#ours.delete(id);
  }

  async #make(id: string, signal?: AbortSignal): Promise<ContainerClient> {
    const container = await this.of(id);
    const what = `container ${container.containerName}`;
    await withRetries(
      async () => {
        try {
          await container.create({
            metadata: this.#mark(id),
            ...(signal === undefined ? {} : { abortSignal: signal }),
          });
        } catch (error) {
          if (codeOf(error) === 'ContainerAlreadyExists') return;
          // The name of a removed container is free again after half a minute.
          if (codeOf(error) === 'ContainerBeingDeleted')
            throw new PortError('CLOUD', `${what} is being removed`, { temporary: true, cause: error });
          throw azureError(error, `making ${what}`, signal);
        }
      },
      { signal, retries: 8 },
    );
    if ((await this.existing(id)) === undefined)
      throw new PortError('CLOUD_CONFLICT', `${what} is there already and not of this store`, {
        hint: 'name another prefix: azure:ACCOUNT/PREFIX',
      });
    return container;
  }

  /** Proves the right to write: asks for a change of a container that is not there; 404 when it would be allowed. */
  async check(): Promise<void> {
    const { service } = await this.signer();
    const absent = service.getContainerClient(`${this.place.prefix}-check-${'0'.repeat(20)}`);
    await unlessAbsent('the right to write', () => absent.setMetadata(MARK));
  }

  /** Ids of the data sets, in order. */
  async ids(): Promise<string[]> {
    const { service } = await this.signer();
    const ids: string[] = [];
    try {
      const found = service.listContainers({ prefix: `${this.place.prefix}-`, includeMetadata: true });
      for await (const { name, metadata } of found) {
        const id = metadata?.port_image_id;
        if (id === undefined || !DATA_SET_ID.test(id)) continue;
        if (this.#isMarked(metadata, id) && name === this.nameOf(id)) ids.push(id);
      }
    } catch (error) {
      throw azureError(error, 'listing the containers');
    }
    return ids.sort();
  }
}
