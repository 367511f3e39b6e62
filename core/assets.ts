/** Where the files that ship beside the code are: `guest/…`, `schemas/…`. */
import { existsSync } from 'node:fs';
import * as path from 'node:path';
import { PortError } from './errors.ts';

// core/ lies in the root of a checkout, but in dist/ of the installed package: the root is where package.json is.
function packageRoot(): string {
  let dir = import.meta.dirname;
  while (!existsSync(path.join(dir, 'package.json'))) {
    const parent = path.dirname(dir);
    if (parent === dir) throw new PortError('BUG', `no package.json above ${import.meta.dirname}`);
    dir = parent;
  }
  return dir;
}

/**
 * Absolute path of a shipped file, named from the package's root: `assetPath('guest/port-image-data')`.
 * Throws BUG when it is not there.
 */
export function assetPath(name: string): string {
  const file = path.join(packageRoot(), name);
  if (!existsSync(file)) throw new PortError('BUG', `the installation lacks ${name} (looked for ${file})`);
  return file;
}
