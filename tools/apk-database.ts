/** Alpine's database of installed packages, `/lib/apk/db/installed`: paragraphs of `letter:value` lines (apk-v2(5)). */
import type { Facts } from '../core/facts.ts';

/** Place of the database; apk 3 has it below /usr/lib. */
export const APK_DATABASES: readonly string[] = ['/lib/apk/db/installed', '/usr/lib/apk/db/installed'];

/** Installed packages and all they provide, without versions. */
export function parseApkInstalled(text: string): { packages: Facts['packages']; provides: Set<string> } {
  const packages: Facts['packages'] = [];
  const provides = new Set<string>();
  for (const paragraph of text.split(/\n\n+/)) {
    const field = (letter: string) => new RegExp(`^${letter}:(.*)$`, 'm').exec(paragraph)?.[1]?.trim() ?? '';
    const name = field('P');
    if (name === '' || field('V') === '') continue;
    packages.push({ name, version: field('V'), architecture: field('A') });
    provides.add(name);
    for (const word of field('p').split(/\s+/)) {
      if (word !== '') provides.add(word.replace(/[<>=~].*$/, ''));
    }
  }
  return { packages, provides };
}

/**
 * `/etc/apk/world` with `names` added: what the owner asked for stays as it was, what apk wrote for package files (names
 * tied to a checksum) and for dependencies does not.
 */
export function withWorld(before: string, names: readonly string[]): string {
  const lines = before.split('\n').filter((line) => line !== '');
  const present = new Set(lines.map((line) => line.replace(/[<>=~@].*$/, '')));
  return `${[...lines, ...names.filter((name) => !present.has(name))].join('\n')}\n`;
}
