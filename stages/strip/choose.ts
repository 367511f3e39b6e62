/** Which paths are stripped: the candidates of inspect or the user's own, each checked before anything is read. */
import type { DataMode } from '../../core/data-set.ts';
import { PortError } from '../../core/errors.ts';
import type { Facts, Filesystem } from '../../core/facts.ts';
import type { GuestSession } from '../../core/guest.ts';
import type { Request } from '../../core/request.ts';
import { printable } from '../../core/text.ts';

/** A path to strip. */
export interface Choice {
  path: string;
  rule: string;
  reason: string;
  neededBy: string[];
  mode: DataMode;
  /** Relative paths that stay in the image too, such as `.ssh`. */
  keep: string[];
}

/** Trees without which nothing boots, or that tell the system what it is. Their children may be data, except where `deep`. */
const SYSTEM: readonly { path: string; deep: boolean }[] = [
  ...['/', '/var', '/var/lib', '/var/cache', '/home', '/opt', '/root', '/mnt', '/media'].map((path) => ({
    path,
    deep: false,
  })),
  ...[
    '/etc',
    '/usr',
    '/boot',
    '/bin',
    '/sbin',
    '/lib',
    '/lib32',
    '/lib64',
    '/libx32',
    '/dev',
    '/proc',
    '/sys',
  ].map((path) => ({ path, deep: true })),
  ...[
    '/run',
    '/tmp',
    '/var/run',
    '/var/lock',
    '/var/lib/dpkg',
    '/var/lib/rpm',
    '/var/lib/apt',
    '/var/lib/systemd',
  ].map((path) => ({ path, deep: true })),
  ...['/var/lib/cloud', '/var/lib/port-image', '/var/lib/pacman', '/lib/apk'].map((path) => ({
    path,
    deep: true,
  })),
];
// Software under these belongs to no package but is not data either.
const EXCEPTIONS = ['/usr/local', '/usr/share/nginx/html'];

const below = (path: string, folder: string) =>
  path === folder || path.startsWith(folder === '/' ? '/' : `${folder}/`);

/** Folders that may be data as a whole when a file system of their own is mounted there. */
const WHOLE_MOUNTS = ['/home', '/opt', '/mnt', '/media', '/var/cache'];

/**
 * Normalises a path of the user, or a mount point: no `.`/`..`, no double or ending slash, nothing of the system.
 * Throws UNSAFE_PATH.
 */
export function checkPath(text: string, what: 'folder' | 'mount point' = 'folder'): string {
  const path = text.length > 1 ? text.replace(/\/+$/, '') : text;
  const clean =
    path.startsWith('/') &&
    !path
      .slice(1)
      .split('/')
      .some((p) => p === '' || p === '.' || p === '..');
  // A unit file, a configuration line and a manifest must be able to carry it.
  if (!clean || path.includes('\0') || path.includes('\n') || path.includes('\ufffd')) {
    throw new PortError('UNSAFE_PATH', `cannot strip ${printable(text)}: not a plain absolute path`, {
      hint: 'name a folder such as /srv/app, without . or .. in it',
    });
  }
  if (what === 'mount point' && WHOLE_MOUNTS.includes(path)) return path;
  const system = SYSTEM.find((s) => path === s.path || (s.deep && below(path, s.path)));
  if (system !== undefined && !EXCEPTIONS.some((e) => path !== e && below(path, e))) {
    throw new PortError('UNSAFE_PATH', `cannot strip ${printable(path)}: it belongs to the system`, {
      hint: 'name the folders below it that hold application data',
    });
  }
  return path;
}

/** Drops paths that lie in another one of the list. */
export function mergePaths(paths: readonly string[]): string[] {
  const sorted = [...new Set(paths)].sort();
  return sorted.filter((p) => !sorted.some((other) => other !== p && below(p, other)));
}

/** Units that cannot wait for the network: making them wait would stop the boot that brings the data. */
const TOO_EARLY =
  /^(ssh|sshd|networking|network|NetworkManager|dbus|cron|crond|systemd-.*|cloud-.*|qemu-guest-agent|port-image.*|rsyslog|getty.*|serial-getty.*)(@.*)?\.(service|socket|target)$/;

/** Units that name the path, or a path in it, or a folder above it that is not the system's; else multi-user.target. */
export function unitsFor(path: string, facts: Facts): string[] {
  const units = facts.services
    .filter(
      (s) =>
        s.enabled && s.paths.some((p) => below(p, path) || (p !== '/' && below(path, p) && !isSystem(p))),
    )
    .map((s) => s.unit);
  return safeUnits(units);
}

const isSystem = (path: string) => SYSTEM.some((s) => s.path === path || (s.deep && below(path, s.path)));

/** Leaves out units that must not wait; multi-user.target when none is left. */
export function safeUnits(units: readonly string[]): string[] {
  const safe = [...new Set(units)].filter(
    (u) => u.endsWith('.service') && !TOO_EARLY.test(u) && /^[\w.@\\:-]+$/.test(u),
  );
  return safe.length > 0 ? safe.sort() : ['multi-user.target'];
}

/** `.ssh` of every home inside the tree stays in the image: a login must not depend on the store. */
export function keptPaths(path: string, facts: Facts): string[] {
  return [
    ...new Set(
      facts.users
        .filter((u) => u.authorizedKeys > 0 && below(u.home, path))
        .map((u) => `${u.home.slice(path.length + 1)}/.ssh`.replace(/^\//, '')),
    ),
  ].sort();
}

/** The mount the path lies on, and its file system. */
export function filesystemOf(
  path: string,
  facts: Facts,
): { mount: string; filesystem: Filesystem | undefined } {
  const mount = facts.mounts
    .filter((m) => below(path, m.path))
    .sort((a, b) => b.path.length - a.path.length)
    .at(0);
  return {
    mount: mount?.path ?? '/',
    filesystem: facts.filesystems.find((f) => f.device === mount?.device),
  };
}

// Prints files (not folders: those may be shared) that Debian packages own below a path. $1 is the root, $2 the path.
const OWNED = `
set -eu
LC_ALL=C; export LC_ALL
cd "$1/var/lib/dpkg/info" 2>/dev/null || exit 0
find . -maxdepth 1 -name '*.list' -print0 |
  FOLDER="$2/" xargs -0 -r awk 'index($0, ENVIRON["FOLDER"]) == 1' |
  while IFS= read -r file; do
    if [ -L "$1$file" ] || [ -f "$1$file" ]; then printf '%s\\n' "$file"; fi
  done | head -n 3
`;

/** Refuses what is not a folder, reached over a link, or holds files of packages. Throws UNSAFE_PATH. */
async function lookAt(guest: GuestSession, path: string): Promise<void> {
  const parts = path.split('/').slice(1);
  for (const [i] of parts.entries()) {
    const part = `/${parts.slice(0, i + 1).join('/')}`;
    const kind = await guest.kind(part);
    if (kind === 'dir') continue;
    const why = kind === 'missing' ? 'is not there' : kind === 'symlink' ? 'is a link' : 'is no folder';
    throw new PortError('UNSAFE_PATH', `cannot strip ${printable(path)}: ${printable(part)} ${why}`, {
      hint: 'name an existing folder by its real path',
    });
  }
  const owned = (await guest.appliance(OWNED, ['/sysroot', path])).split('\n').filter((l) => l !== '');
  if (owned.length > 0) {
    throw new PortError(
      'UNSAFE_PATH',
      `cannot strip ${printable(path)}: packages own files in it (${owned.map(printable).join(', ')})`,
      { hint: 'name the folders in it that hold only application data' },
    );
  }
}

/** Refuses other file systems inside the tree, which would have to travel on their own. */
function checkMounts(path: string, facts: Facts): void {
  const inner = facts.mounts.filter((m) => m.path !== path && below(m.path, path)).map((m) => m.path);
  if (inner.length > 0) {
    throw new PortError('USAGE', `cannot strip ${printable(path)}: other file systems are mounted in it`, {
      hint: `strip them on their own: --strip ${inner.map(printable).join(' ')}`,
    });
  }
}

/** The paths of a request. Throws UNSAFE_PATH or USAGE for a path of the user; a bad candidate is only left out. */
export async function choosePaths(
  request: Request,
  facts: Facts,
  guest: GuestSession,
  warn: (text: string) => void,
): Promise<Choice[]> {
  if (request.strip === 'none') return [];
  const asked = request.strip === 'auto' ? ['auto'] : request.strip;
  const named: Choice[] = [];
  for (const path of mergePaths(asked.filter((p) => p !== 'auto').map((p) => checkPath(p)))) {
    checkMounts(path, facts);
    await lookAt(guest, path);
    const known = facts.candidates.find((c) => c.path === path);
    const neededBy = known === undefined ? unitsFor(path, facts) : safeUnits(known.neededBy);
    named.push({
      path,
      rule: 'requested',
      reason: 'named with --strip',
      neededBy,
      mode: request.dataMode,
      keep: keptPaths(path, facts),
    });
  }
  const proposed = asked.includes('auto') ? await proposedChoices(request, facts, guest, warn) : [];
  // what the user named wins over a proposal inside or around it
  const apart = proposed.filter(({ path }) => named.every((n) => mergePaths([n.path, path]).length === 2));
  return [...named, ...apart].sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** What inspect proposes; a proposal that cannot be stripped stays in the image, with a warning. */
async function proposedChoices(
  request: Request,
  facts: Facts,
  guest: GuestSession,
  warn: (text: string) => void,
): Promise<Choice[]> {
  const mode = request.dataMode;
  const choices: Choice[] = [];
  const paths = new Set(mergePaths(facts.candidates.map((c) => c.path)));
  for (const candidate of facts.candidates) {
    if (!paths.delete(candidate.path)) continue;
    try {
      const path = checkPath(candidate.path);
      checkMounts(path, facts);
      await lookAt(guest, path);
      choices.push({
        path,
        rule: candidate.rule,
        reason: candidate.reason,
        neededBy: safeUnits(candidate.neededBy),
        mode,
        keep: keptPaths(path, facts),
      });
    } catch (error) {
      if (!(error instanceof PortError) || (error.code !== 'UNSAFE_PATH' && error.code !== 'USAGE'))
        throw error;
      warn(`${error.message}; it stays in the image`);
    }
  }
  return choices;
}
