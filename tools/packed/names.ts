/** Names found inside archives and descriptors. They are looked up in a list or beside the descriptor, never followed. */
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';

/** Longest file name of Linux file systems, in bytes (NAME_MAX). */
const MAX_NAME_BYTES = 255;

/** True for the name of a file in one folder: no separators, not the folder itself or its parent. */
export function isPlainName(name: string): boolean {
  return (
    name !== '' &&
    name !== '.' &&
    name !== '..' &&
    !/[/\\\0]/.test(name) &&
    Buffer.byteLength(name) <= MAX_NAME_BYTES
  );
}

/**
 * Throws OUTSIDE_REFERENCE for a URL or an absolute path, UNSAFE_PATH for every other name that is not one of a file in
 * the same folder. `owner` is printable.
 */
export function requirePlainName(owner: string, name: string): void {
  if (isPlainName(name)) return;
  const what = printable(name).slice(0, 200);
  if (/^([a-z][a-z0-9+.-]*:)?\/\//i.test(name) || /^([a-z]:)?[/\\]/i.test(name)) {
    throw new PortError('OUTSIDE_REFERENCE', `${owner} refers to something elsewhere: ${what} (not opened)`, {
      hint: 'put all its files into one folder or one OVA, and name them without a path',
    });
  }
  throw new PortError('UNSAFE_PATH', `${owner} refers to a file by a path: ${what} (not opened)`, {
    hint: 'put all its files into one folder or one OVA, and name them without a path',
  });
}
