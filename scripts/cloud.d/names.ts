/** Clouds by name: `--name A` is a state folder and a range of ports of its own. */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync } from 'node:fs';
import * as path from 'node:path';
import { DEFAULTS, readJson, type Settings } from './settings.ts';

/** What may be a name: it is part of a folder's and of clouds' names. */
export const NAME = /^[A-Za-z0-9][A-Za-z0-9-]{0,19}$/;

/** A range has thirteen ports; round numbers are easier to read. */
const STEP = 20;
/** A letter always has the same ports, behind those of the tests (15000 to 15399): A 15500, B 15520, … */
const LETTERS = 15_500;
/** Words share what follows, to 20480: below the ports the kernel gives to clients (from 32768). */
const WORDS = LETTERS + 26 * STEP;
const WORD_RANGES = 223;

/** Folder of a named cloud. */
export function folderOf(cache: string, name: string): string {
  return path.join(cache, `cloud-${name}`);
}

/** First port for a new cloud of this name: none that another cloud of the cache remembers. */
export function portsFor(cache: string, name: string): number {
  const taken = new Set(rangesTaken(cache, folderOf(cache, name)));
  const letter = /^[a-z]$/i.test(name) ? name.toLowerCase().charCodeAt(0) - 97 : undefined;
  if (letter !== undefined && !taken.has(LETTERS + letter * STEP)) return LETTERS + letter * STEP;
  const first = createHash('sha256').update(name).digest().readUInt32BE();
  for (let tried = 0; tried < WORD_RANGES; tried++) {
    const base = WORDS + ((first + tried) % WORD_RANGES) * STEP;
    if (!taken.has(base)) return base;
  }
  throw new Error(`no range of ports is left for the cloud ${name}; remove one: scripts/cloud down --forget`);
}

/** First ports of the other clouds of the cache. */
function rangesTaken(cache: string, own: string): number[] {
  if (!existsSync(cache)) return [];
  return readdirSync(cache)
    .filter((entry) => /^cloud(-|$)/.test(entry) && path.join(cache, entry) !== own)
    .flatMap((entry) => readJson<Partial<Settings>>(path.join(cache, entry, 'settings.json')) ?? [])
    .map(({ portsBase }) => portsBase ?? DEFAULTS.portsBase);
}
