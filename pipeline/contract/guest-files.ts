/** Looks at files of the guest whose owner matters, because root runs or reads them at boot. */
import { PortError } from '../../core/errors.ts';
import type { GuestFiles, GuestSession } from '../../core/guest.ts';

/** Owner and mode of a path, the last link not followed. */
export interface Owned {
  uid: number;
  gid: number;
  /** With the file type, as lstat gives it. */
  mode: number;
}

/** lstat; undefined when nothing is there. The appliance resolves the path inside the guest. */
export async function ownedAt(guest: Pick<GuestSession, 'call'>, path: string): Promise<Owned | undefined> {
  let text: string;
  try {
    text = await guest.call('lstatns', [path]);
  } catch (error) {
    if (error instanceof PortError && /No such file or directory|Not a directory/.test(error.message))
      return undefined;
    throw error;
  }
  const field = (name: string): number => Number(new RegExp(`^${name}: (\\d+)$`, 'm').exec(text)?.[1] ?? NaN);
  return { uid: field('st_uid'), gid: field('st_gid'), mode: field('st_mode') };
}

const TYPE_MASK = 0o170000;
const TYPES = { file: 0o100000, dir: 0o040000 } as const;

/** What is wrong with a file or folder only root may change; empty when all is well. */
export async function rootOwnedFaults(
  guest: Pick<GuestSession, 'call'>,
  path: string,
  want: { kind: 'file' | 'dir'; executable?: boolean },
): Promise<string[]> {
  const found = await ownedAt(guest, path);
  if (found === undefined) return [`${path} is missing`];
  if ((found.mode & TYPE_MASK) !== TYPES[want.kind])
    return [`${path} is no ${want.kind === 'file' ? 'regular file' : 'folder'}`];
  const faults: string[] = [];
  if (found.uid !== 0) faults.push(`${path} belongs to user ${found.uid}, not to root`);
  if ((found.mode & 0o022) !== 0) faults.push(`${path} can be changed by others than root`);
  if (want.executable === true && (found.mode & 0o111) !== 0o111) faults.push(`${path} is not executable`);
  return faults;
}

/** True when every part of the path is a folder and none is a link: only then may appliance scripts enter it. */
export async function isPlainFolder(guest: GuestFiles, path: string): Promise<boolean> {
  const parts = path.split('/').filter((p) => p !== '');
  if (parts.some((p) => p === '.' || p === '..')) return false;
  for (const [i] of parts.entries()) {
    if ((await guest.kind(`/${parts.slice(0, i + 1).join('/')}`)) !== 'dir') return false;
  }
  return true;
}
