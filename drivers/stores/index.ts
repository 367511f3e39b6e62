/** Stores by the scheme of their URL. A new kind is one file and one line here. */
import { fileURLToPath } from 'node:url';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { FileStore } from './file.ts';
import type { Store } from './store.ts';

const KINDS: Readonly<Record<string, (url: string) => Store>> = {
  file: (url) => new FileStore(url.startsWith('file://') ? fileURLToPath(url) : url.slice('file:'.length)),
};

/** Opens the store of a URL such as `file:/srv/store`; touches nothing yet. Throws USAGE for an unknown kind. */
export function openStore(url: string): Store {
  const scheme = /^([a-z][a-z0-9+]*):./.exec(url)?.[1] ?? '';
  const open = KINDS[scheme];
  if (open === undefined) {
    throw new PortError('USAGE', `not a data store: ${printable(url)}`, {
      hint: `kinds of store: ${Object.keys(KINDS)
        .map((kind) => `${kind}:…`)
        .join(', ')}`,
    });
  }
  return open(url);
}
