/** Stores by the scheme of their URL. A new kind is one file and one line here. */
import { fileURLToPath } from 'node:url';
import { PortError } from '../../core/errors.ts';
import type { Request } from '../../core/request.ts';
import { printable } from '../../core/text.ts';
import { cloudName, loadCloud } from '../../tools/openstack/config.ts';
import { CloudSession } from '../../tools/openstack/session.ts';
import { AzureStore } from './azure.ts';
import { FileStore } from './file.ts';
import { GcsStore } from './gcs.ts';
import { S3Store } from './s3.ts';
import type { Store } from './store.ts';
import { SwiftStore } from './swift.ts';

/** What a store needs besides its URL. */
export interface StoreOptions {
  /** Cloud of a `swift:` store, as in clouds.yaml; OS_CLOUD or the OS_* variables when absent. */
  cloud?: string | undefined;
  signal?: AbortSignal | undefined;
}

const KINDS: Readonly<Record<string, (url: string, options: StoreOptions) => Store>> = {
  file: (url) => new FileStore(url.startsWith('file://') ? fileURLToPath(url) : url.slice('file:'.length)),
  azure: (url) => new AzureStore(url.slice('azure:'.length)),
  s3: (url) => new S3Store(url.slice('s3:'.length)),
  gs: (url) => new GcsStore(url.slice('gs:'.length)),
  swift: (url, { cloud, signal }) =>
    new SwiftStore(url.slice('swift:'.length), {
      open: async () => {
        const name = cloudName(cloud);
        if (name === undefined) {
          throw new PortError('CONFIG', `no cloud is named for the store ${printable(url)}`, {
            hint: 'name one of clouds.yaml with --os-cloud, or set OS_CLOUD or OS_AUTH_URL',
          });
        }
        return CloudSession.open(await loadCloud(name), { signal });
      },
    }),
};
/** Kinds whose URL may end behind the colon. */
const BARE = new Set(['swift']);

/**
 * Opens the store of a URL such as `file:/srv/store` or `swift:PREFIX`; touches nothing yet. Throws USAGE for an unknown
 * kind. Close it when it has a `close`.
 */
export function openStore(url: string, options: StoreOptions = {}): Store {
  const [, scheme = '', rest = ''] = /^([a-z][a-z0-9+]*):(.*)$/s.exec(url) ?? [];
  const open = Object.hasOwn(KINDS, scheme) && (rest !== '' || BARE.has(scheme)) ? KINDS[scheme] : undefined;
  if (open === undefined) {
    throw new PortError('USAGE', `not a data store: ${printable(url)}`, {
      hint: `kinds of store: ${Object.keys(KINDS)
        .map((kind) => `${kind}:…`)
        .join(', ')}`,
    });
  }
  return open(url, options);
}

/** Opens the store a request names, and closes it when the work is over, however that ends. */
export async function withStore<T>(
  request: Pick<Request, 'store' | 'storeCloud'>,
  signal: AbortSignal,
  work: (store: Store) => Promise<T>,
): Promise<T> {
  const store = openStore(request.store, { cloud: request.storeCloud, signal });
  try {
    return await work(store);
  } finally {
    await store.close?.();
  }
}
