/** Rules for object keys that hold in every store. */
import { DATA_SET_ID } from '../../core/data-set.ts';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';

const PART = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;

/** Returns the key's parts. Throws UNSAFE_PATH unless each is a plain name (no `..`, no leading dot, no control bytes). */
export function checkKey(key: string): string[] {
  const parts = key.split('/');
  if (key.length > 1024 || !parts.every((part) => PART.test(part))) {
    throw new PortError('UNSAFE_PATH', `not a key of a data store: ${printable(key).slice(0, 200)}`);
  }
  return parts;
}

/** Id of the data set a key belongs to, and the rest of the key. Throws UNSAFE_PATH when it belongs to none. */
export function splitKey(key: string): { id: string; name: string } {
  const [id = '', ...rest] = checkKey(key);
  if (!DATA_SET_ID.test(id) || rest.length === 0) throw notOfDataSet(key);
  return { id, name: rest.join('/') };
}

/** The error for a key that no data set may have. */
export function notOfDataSet(key: string): PortError {
  return new PortError('UNSAFE_PATH', `not a key of a data set: ${printable(key).slice(0, 200)}`);
}

/** Whether something found in a bucket has the key of an object of a data set. */
export function isDataSetKey(key: string): boolean {
  try {
    splitKey(key);
    return true;
  } catch {
    return false;
  }
}

/**
 * Ids a listing must go through when `prefix` names no whole data set, in the order their objects have in a listing of keys.
 * Undefined when it names one.
 */
export async function idsBelow(
  prefix: string,
  ids: () => AsyncIterable<string>,
): Promise<string[] | undefined> {
  if (prefix.includes('/')) return undefined;
  const found: string[] = [];
  for await (const id of ids()) if (`${id}/`.startsWith(prefix)) found.push(id);
  // whole keys decide the order, and there `/` counts
  return found.sort((a, b) => (`${a}/` < `${b}/` ? -1 : 1));
}
