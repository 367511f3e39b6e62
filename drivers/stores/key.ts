/** Rules for object keys that hold in every store. */
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
