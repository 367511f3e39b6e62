import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';

interface Lock {
  packages: Record<string, { optionalDependencies?: Record<string, string> }>;
}

// npm leaves out packages of other systems when it writes the lock file where they cannot be had,
// and then `npm ci` refuses that file.
test('package-lock.json names the optional packages of every system', () => {
  const text = readFileSync(new URL('../../package-lock.json', import.meta.url), 'utf8');
  const { packages } = JSON.parse(text) as Lock;
  const missing = Object.entries(packages).flatMap(([at, entry]) =>
    Object.keys(entry.optionalDependencies ?? {}).filter(
      (name) =>
        packages[`node_modules/${name}`] === undefined &&
        packages[`${at}/node_modules/${name}`] === undefined,
    ),
  );
  expect(missing).toEqual([]);
});
