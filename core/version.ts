/** The version of port-image itself, from the nearest package.json (a checkout and the packed npm package differ). */
import { readFile } from 'node:fs/promises';
import * as path from 'node:path';

let cached: string | undefined;

/** Version such as `0.1.0`; `unknown` when the package file is gone. */
export async function toolVersion(): Promise<string> {
  let dir = import.meta.dirname;
  while (cached === undefined) {
    try {
      const json = JSON.parse(await readFile(path.join(dir, 'package.json'), 'utf8')) as {
        name?: string;
        version?: string;
      };
      if (json.name === 'port-image') cached = json.version ?? 'unknown';
    } catch {
      // not here: look one folder up
    }
    const parent = path.dirname(dir);
    if (parent === dir) cached ??= 'unknown';
    dir = parent;
  }
  return cached;
}
