/** Package lists shared between runs: verified by apt when they came, used again within a day or when the network fails. */
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { PortError } from '../../core/errors.ts';
import { exists, makeDir, writeJson } from '../../core/files.ts';
import { type AptRoot, aptUpdate } from '../../tools/apt.ts';

/** How long complete lists are used without asking the network again. */
export const LISTS_MAX_AGE_MS = 24 * 3_600_000;

interface Stamp {
  updatedMs: number;
  /** False when some source could not be reached. */
  complete: boolean;
}

/** Puts lists into `root`: cached ones when fresh, otherwise from the network. `force` always asks the network. */
export async function provideLists(
  root: AptRoot,
  options: { cacheDir: string; key: string; force: boolean; warn: (text: string) => void },
): Promise<{ fromCache: boolean }> {
  const shelf = path.join(options.cacheDir, 'lists');
  const cached = await newest(shelf, options.key);
  if (cached !== undefined) {
    await fs.cp(path.join(shelf, cached.name, 'lists'), root.lists, { recursive: true, force: true });
    const age = Date.now() - cached.stamp.updatedMs;
    if (!options.force && cached.stamp.complete && age >= 0 && age < LISTS_MAX_AGE_MS)
      return { fromCache: true };
  }
  const { problems } = await aptUpdate(root);
  const usable = (await fs.readdir(root.lists)).some((n) => /_Packages(?:\.\w+)?$|Packages$/.test(n));
  if (!usable) {
    throw new PortError(
      'PACKAGES',
      `none of the guest's package sources can be used: ${problems.slice(0, 2).join(' | ') || 'no answer'}`,
      { hint: 'look at the network and the proxy of this machine, or use --packages DIR', temporary: true },
    );
  }
  if (problems.length > 0) {
    options.warn(
      `some package sources could not be refreshed${cached === undefined ? '' : ', older lists are used'}: ${problems.slice(0, 2).join(' | ')}`,
    );
    if (cached !== undefined) return { fromCache: true };
  }
  await store(shelf, options.key, root.lists, { updatedMs: Date.now(), complete: problems.length === 0 });
  return { fromCache: false };
}

async function newest(shelf: string, key: string): Promise<{ name: string; stamp: Stamp } | undefined> {
  if (!(await exists(shelf))) return undefined;
  const names = (await fs.readdir(shelf)).filter((n) => n.startsWith(`${key}-`)).sort();
  for (const name of names.reverse()) {
    try {
      const stamp = JSON.parse(await fs.readFile(path.join(shelf, name, 'stamp.json'), 'utf8')) as Stamp;
      return { name, stamp };
    } catch {
      // Removed by another run, or never finished: the next one.
    }
  }
  return undefined;
}

/** A new folder under a final name of its own; older ones of the same key go. */
async function store(shelf: string, key: string, lists: string, stamp: Stamp): Promise<void> {
  await makeDir(shelf);
  const name = `${key}-${String(stamp.updatedMs).padStart(15, '0')}-${randomBytes(4).toString('hex')}`;
  const temporary = path.join(shelf, `.${name}.tmp`);
  await makeDir(temporary);
  try {
    await fs.cp(lists, path.join(temporary, 'lists'), {
      recursive: true,
      filter: (from) => !['lock', 'partial'].includes(path.basename(from)),
    });
    await writeJson(path.join(temporary, 'stamp.json'), stamp);
    await fs.rename(temporary, path.join(shelf, name));
  } catch (error) {
    await fs.rm(temporary, { recursive: true, force: true });
    throw error;
  }
  for (const old of await fs.readdir(shelf)) {
    if (old.startsWith(`${key}-`) && old < name)
      await fs.rm(path.join(shelf, old), { recursive: true, force: true });
  }
}
