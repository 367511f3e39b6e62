/** Empties a stripped folder in the overlay and leaves a note in it. */
import type { GuestSession } from '../../core/guest.ts';
import { type GuestDataSet, STUB_NAME, stubText } from '../../tools/guest-side.ts';

// $1 is the folder, the rest are conditions for find. The folder itself stays with its owner, mode and xattrs.
const EMPTY = `
set -eu
cd "$1"
shift
find . -xdev -mindepth 1 -depth "$@" -delete
`;

const pattern = (path: string) => `./${path.replace(/[*?[\]\\]/g, '\\$&')}`;

/** Conditions that spare the kept paths, what is in them, and the folders above them. */
export function spare(keep: readonly string[]): string[] {
  const patterns = keep.flatMap((path) => {
    const parts = path.split('/');
    return [...parts.map((_, i) => pattern(parts.slice(0, i + 1).join('/'))), `${pattern(path)}/*`];
  });
  return [...new Set(patterns)].flatMap((p) => ['!', '-path', p]);
}

/** Removes the content and writes the note. */
export async function emptyTree(guest: GuestSession, set: GuestDataSet): Promise<void> {
  await guest.appliance(EMPTY, [`/sysroot${set.path}`, ...spare(set.keep)], 3_600_000);
  await guest.write(`${set.path}/${STUB_NAME}`, stubText(set), { mode: 0o644, uid: 0, gid: 0 });
}
