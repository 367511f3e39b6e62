/** Files beside a descriptor, by a name found inside it: plain name, regular file, no link. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { type OpenedSource, openSource } from '../image-format/open.ts';
import { requirePlainName } from './names.ts';

/**
 * Opens the file of this name in the descriptor's folder; undefined when there is none. `owner` is printable. Throws UNSAFE_PATH
 * for a name that is none or a file that is a link or no regular file, OUTSIDE_REFERENCE for a path or URL.
 */
export async function openBeside(
  folder: string,
  name: string,
  owner: string,
): Promise<OpenedSource | undefined> {
  requirePlainName(owner, name);
  const file = path.join(folder, name);
  const stat = await fs.lstat(file).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (stat === undefined) return undefined;
  if (!stat.isFile()) {
    throw new PortError(
      'UNSAFE_PATH',
      `${owner} refers to ${printable(name)}, which is no regular file (not opened)`,
      {
        hint: 'put the file itself beside it, not a link',
      },
    );
  }
  const source = await openSource(file);
  if (source.path !== path.join(await fs.realpath(folder), name) || source.isDevice) {
    await source.close();
    throw new PortError('UNSAFE_PATH', `${owner} refers to ${printable(name)}, which changed meanwhile`);
  }
  return source;
}
