/** Packages of Arch Linux: chosen from a folder on the host, installed by the guest's pacman from files. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { PortError } from '../../core/errors.ts';
import type { GuestSession } from '../../core/guest.ts';
import { type Log, silentLog } from '../../core/log.ts';
import type { AgentRole } from '../../core/platform.ts';
import { readPkgInfo } from '../../tools/pkginfo.ts';
import type { PackageSet, ResolveOptions } from '../family.ts';
import { installFiles, requireInstalled } from '../packages-send.ts';
import { chooseFromPool, type PoolPackage } from '../pool.ts';

/** Names per role; what only the user repository (AUR) has is left out. */
export const ROLES: Readonly<Record<AgentRole, readonly string[]>> = {
  'cloud-init': ['cloud-init'],
  growpart: ['cloud-guest-utils', 'gptfdisk'],
  fetch: ['curl', 'tar', 'zstd', 'ca-certificates'],
  'qemu-guest-agent': ['qemu-guest-agent'],
  'amazon-ec2-utils': [],
  'azure-agent': ['walinuxagent'],
  'hyperv-daemons': ['hyperv'],
  'google-guest-agent': [],
  'google-oslogin': [],
  'open-vm-tools': ['open-vm-tools'],
  'xe-guest-utilities': [],
};

const TIMEOUT_MS = 3_600_000;
const ENVIRONMENT = 'export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin';

/** Prints the dependencies nothing installed gives, one a line; ends with 127 when there are some. */
const MISSING = `${ENVIRONMENT}\npacman -T -- "$@" || [ $? = 127 ]\n`;
/** Unused hooks stay: the one for mkinitcpio only runs when a kernel is installed. */
const INSTALL = `
set -e
cd /
${ENVIRONMENT}
pacman -U --noconfirm --noprogressbar --needed "$1"/packages/in/*.pkg.tar.* </dev/null
`;
// pacman tells the compression by content, the name only has to fit the pattern.
const INSTALLER = { tool: 'pacman', suffix: '.pkg.tar.zst', script: INSTALL, timeoutMs: TIMEOUT_MS };
const MARK_DEPENDENCIES = `${ENVIRONMENT}\npacman -D --asdeps -- "$@" </dev/null\n`;
const REMOVE = `${ENVIRONMENT}\npacman -R --noconfirm --noprogressbar -- "$@" </dev/null\n`;

async function missing(guest: GuestSession, names: readonly string[]): Promise<Set<string>> {
  if (names.length === 0) return new Set();
  const lines = new Set((await guest.guest(MISSING, names)).split('\n').map((line) => line.trim()));
  return new Set(names.filter((name) => lines.has(name)));
}

/** Numbers as numbers; pacman itself has the last word. */
function compareVersions(a: string, b: string): number {
  return a.localeCompare(b, 'en', { numeric: true });
}

/** See Family. Throws PACKAGES. */
export async function resolvePackages(
  guest: GuestSession,
  names: readonly string[],
  options: ResolveOptions,
): Promise<PackageSet> {
  const lacking = await missing(guest, names);
  if (lacking.size === 0) return { files: [], packages: [] };
  const hint = `on an up to date Arch system run: pacman -Sw --cachedir DIR ${[...lacking].join(' ')}; then convert with --packages DIR`;
  if (options.offlinePool === undefined)
    throw new PortError('PACKAGES', `the guest lacks ${[...lacking].join(', ')}`, { hint });
  const dir = path.resolve(options.offlinePool);
  const pool: PoolPackage[] = [];
  for (const name of (await fs.readdir(dir)).filter((n) => /\.pkg\.tar\.(?:zst|gz)$/.test(n)).sort()) {
    options.signal.throwIfAborted();
    const file = path.join(dir, name);
    pool.push({ ...(await readPkgInfo(file)), file, bytes: (await fs.stat(file)).size });
  }
  return chooseFromPool({
    pool,
    wanted: names,
    missing: (list) => missing(guest, list),
    compareVersions,
    hint,
  });
}

/** See Family. Throws GUEST_BROKEN when pacman refuses or something is not installed afterwards. */
export async function installPackages(
  guest: GuestSession,
  set: PackageSet,
  log: Log = silentLog,
  signal: AbortSignal = new AbortController().signal,
): Promise<void> {
  if (set.files.length === 0) return;
  await installFiles(guest, set.files, INSTALLER, log, signal);
  const names = set.packages.map((p) => p.name);
  requireInstalled(await missing(guest, names));
  const dependencies = set.packages.filter((p) => !p.requested).map((p) => p.name);
  if (dependencies.length > 0) await guest.guest(MARK_DEPENDENCIES, dependencies);
}

/** See Family. Throws GUEST_BROKEN when others need them. */
export async function removePackages(guest: GuestSession, names: readonly string[]): Promise<void> {
  if (names.length > 0) await guest.guest(REMOVE, names, TIMEOUT_MS);
}
