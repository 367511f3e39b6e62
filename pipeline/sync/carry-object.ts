/** One object from store to store: every byte is hashed on its way, and what is not as it should be never becomes an object. */
import { createHash } from 'node:crypto';
import { asPortError, PortError } from '../../core/errors.ts';
import { formatBytes } from '../../core/sizes.ts';
import { verifyObject } from '../../drivers/stores/read-back.ts';
import type { Content, Store, StoredObject } from '../../drivers/stores/store.ts';
import { withRetries } from '../../tools/openstack/retry.ts';

/** Attempts after the first, beside those the stores make by themselves. */
const RETRIES = 3;

/** An object as the manifest has it. */
export interface WantedObject {
  key: string;
  bytes: number;
  sha256: string;
  /** The bytes, where they follow from the manifest: nothing is read for it. */
  content?: Buffer | undefined;
}

/** What was learned by putting it. */
export interface CarriedObject extends WantedObject {
  etag?: string | undefined;
  /** The store had it already, which its own tag proved. */
  kept: boolean;
}

/** Where it comes from, where it goes. */
export interface CarryStores {
  from: Store;
  to: Store;
  signal: AbortSignal;
  /** Told what travels, and by a negative number what travelled in vain. */
  onBytes(bytes: number): void;
  onRetry(error: PortError): void;
}

/** Copies it. Throws STORE_MISMATCH naming it when the source is rotten, and as the stores do. */
export async function carryObject(wanted: WantedObject, stores: CarryStores): Promise<CarriedObject> {
  const { key, bytes, sha256 } = wanted;
  const { to, signal } = stores;
  const wrong = new Set<string>();
  return withRetries(
    async () => {
      let told = 0;
      // A store may ask for the content twice, to compare leftovers: it counts once.
      const tell = (count: number) => {
        stores.onBytes(count - told);
        told = count;
      };
      try {
        const put = await to.put(key, checkedContent(wanted, stores, tell, wrong), { bytes, signal });
        if (put.sha256 !== sha256 || put.bytes !== bytes)
          throw new PortError('STORE_MISMATCH', `${key}: ${to.url} took other bytes than were sent`, {
            temporary: true,
          });
        tell(bytes);
        return { ...wanted, etag: put.etag, kept: put.kept === true };
      } catch (error) {
        tell(0);
        throw error;
      }
    },
    { retries: RETRIES, signal, onRetry: (error) => stores.onRetry(error) },
  );
}

/**
 * Its bytes from the source. The last piece is held back until the digest of the whole is known: a store that was told the length
 * has no whole object before it.
 */
function checkedContent(
  wanted: WantedObject,
  stores: CarryStores,
  tell: (bytes: number) => void,
  wrong: Set<string>,
): Content {
  const { key, bytes, sha256, content } = wanted;
  const { from, signal } = stores;
  return async function* () {
    const hash = createHash('sha256');
    let length = 0;
    let held: Uint8Array | undefined;
    const source = content === undefined ? await from.get(key, { signal }) : [content];
    for await (const piece of source as AsyncIterable<Uint8Array>) {
      if (held !== undefined) yield held;
      hash.update(piece);
      length += piece.byteLength;
      if (length > bytes) throw rotten(from, key, `has more than ${formatBytes(bytes)}`);
      tell(length);
      held = piece;
    }
    if (length < bytes) throw await short(from, key, length, bytes);
    const digest = hash.digest('hex');
    if (digest !== sha256) {
      const what = `has sha256 ${digest}, its manifest says ${sha256}`;
      // The same wrong bytes twice are what lies there; once, they may have become wrong on the way.
      if (wrong.has(digest)) throw rotten(from, key, what);
      wrong.add(digest);
      throw new PortError('STORE_MISMATCH', `${key} of ${from.url} ${what}`, { temporary: true });
    }
    if (held !== undefined) yield held;
  };
}

/** A read that ended early heals when the object itself is whole. */
async function short(from: Store, key: string, length: number, bytes: number): Promise<PortError> {
  const there = await from.head(key).catch((error: unknown) => asPortError(error));
  if (there instanceof PortError) return there;
  if (there?.bytes !== bytes) return rotten(from, key, `has ${there?.bytes ?? 0} bytes, not ${bytes}`);
  return new PortError('STORE', `${key} of ${from.url} broke off after ${length} of ${bytes} bytes`, {
    temporary: true,
  });
}

function rotten(from: Store, key: string, what: string): PortError {
  return new PortError('STORE_MISMATCH', `${key} of ${from.url} ${what}`, {
    hint: 'the source lost or changed data; nothing of the data set was published: port-image data verify tells more',
  });
}

/**
 * Whether what lies in the target is this object: by the store's own digest, by a manifest it was proved with, else by reading it.
 */
export async function isThere(
  wanted: WantedObject,
  found: StoredObject | undefined,
  proved: ReadonlyMap<string, string>,
  { to, signal }: CarryStores,
): Promise<boolean> {
  if (found === undefined || found.bytes !== wanted.bytes) return false;
  if (found.sha256 !== undefined) return found.sha256 === wanted.sha256;
  if (proved.get(wanted.key) === wanted.sha256) return true;
  try {
    await verifyObject(to, wanted.key, wanted, signal);
    return true;
  } catch (error) {
    if (error instanceof PortError && error.code === 'STORE_MISMATCH') return false;
    throw error;
  }
}
