/** Skips tests whose foreign programs are not on this machine, with the reason. */
import { accessSync, constants } from 'node:fs';
import * as path from 'node:path';

/**
 * The reason to skip, or undefined when all programs are there:
 *
 *     const missing = requires('qemu-img');
 *     test.skipIf(missing)('…', …)
 */
export function requires(...programs: string[]): string | undefined {
  const folders = `${process.env.PATH ?? ''}:/usr/sbin:/sbin`.split(':').filter((f) => f !== '');
  const missing = programs.filter((p) => !folders.some((f) => isExecutable(path.join(f, p))));
  return missing.length === 0 ? undefined : `not installed: ${missing.join(', ')}`;
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
