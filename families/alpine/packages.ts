/** Packages of Alpine: chosen from a folder on the host, installed by the guest's apk without network. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { PortError } from '../../core/errors.ts';
import type { GuestFiles, GuestSession } from '../../core/guest.ts';
import { type Log, silentLog } from '../../core/log.ts';
import type { AgentRole } from '../../core/platform.ts';
import { APK_DATABASES, parseApkInstalled, withWorld } from '../../tools/apk-database.ts';
import { readPkgInfo } from '../../tools/pkginfo.ts';
import type { PackageSet, ResolveOptions } from '../family.ts';
import { installFiles, requireInstalled } from '../packages-send.ts';
import { chooseFromPool, type PoolPackage } from '../pool.ts';
import { enableServices } from './services.ts';

/** Names per role. cloud-init of Alpine has its helpers as packages of their own. */
export const ROLES: Readonly<Record<AgentRole, readonly string[]>> = {
  'cloud-init': ['cloud-init', 'util-linux', 'e2fsprogs-extra', 'eudev'],
  growpart: ['cloud-utils-growpart'],
  fetch: ['curl', 'tar', 'zstd', 'ca-certificates', 'coreutils'],
  'qemu-guest-agent': ['qemu-guest-agent'],
  'amazon-ec2-utils': [],
  'azure-agent': [],
  'hyperv-daemons': ['hvtools'],
  'google-guest-agent': [],
  'google-oslogin': [],
  'open-vm-tools': ['open-vm-tools', 'open-vm-tools-guestinfo', 'open-vm-tools-deploypkg'],
  'xe-guest-utilities': ['xe-guest-utilities'],
};

const WORLD = '/etc/apk/world';
const TIMEOUT_MS = 3_600_000;

/** Signatures are checked by apk with the guest's keys. Triggers may not build an initramfs: the stage does that once. */
const INSTALL = `
set -e
cd /
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
apk add --no-network --no-progress --repositories-file /dev/null "$1"/packages/in/*.apk </dev/null
`;
const INSTALLER = { tool: 'apk', suffix: '.apk', script: INSTALL, timeoutMs: TIMEOUT_MS };
const REMOVE = `
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
apk del --no-network --no-progress -- "$@" </dev/null
`;

async function installed(guest: GuestFiles): Promise<ReturnType<typeof parseApkInstalled>> {
  for (const file of APK_DATABASES) {
    const text = await guest.readText(file);
    if (text !== undefined) return parseApkInstalled(text);
  }
  throw new PortError('GUEST_BROKEN', 'the guest has no database of installed packages');
}

/** Numbers as numbers; good enough to prefer one file of a folder over another, apk itself has the last word. */
function compareVersions(a: string, b: string): number {
  return a.localeCompare(b, 'en', { numeric: true });
}

/** See Family. Throws PACKAGES. */
export async function resolvePackages(
  guest: GuestSession,
  names: readonly string[],
  options: ResolveOptions,
): Promise<PackageSet> {
  const { provides, packages } = await installed(guest);
  const lacking = names.filter((name) => !provides.has(name));
  if (lacking.length === 0) return { files: [], packages: [] };
  const hint = `on a machine of the same release run: apk fetch --recursive --output DIR ${lacking.join(' ')}; then convert with --packages DIR`;
  if (options.offlinePool === undefined)
    throw new PortError('PACKAGES', `the guest lacks ${lacking.join(', ')}`, { hint });
  const dir = path.resolve(options.offlinePool);
  const machine = packages.find((p) => p.name === 'apk-tools' || p.name === 'musl')?.architecture;
  const pool: PoolPackage[] = [];
  for (const name of (await fs.readdir(dir)).filter((n) => n.endsWith('.apk')).sort()) {
    options.signal.throwIfAborted();
    const file = path.join(dir, name);
    const info = await readPkgInfo(file);
    if (machine !== undefined && info.architecture !== machine && info.architecture !== 'noarch') continue;
    pool.push({ ...info, file, bytes: (await fs.stat(file)).size });
  }
  return chooseFromPool({
    pool,
    wanted: names,
    missing: async (list) => new Set(list.filter((name) => !provides.has(name))),
    compareVersions,
    hint,
  });
}

/** See Family. Throws GUEST_BROKEN when apk refuses or something is not installed afterwards. */
export async function installPackages(
  guest: GuestSession,
  set: PackageSet,
  log: Log = silentLog,
  signal: AbortSignal = new AbortController().signal,
): Promise<void> {
  if (set.files.length > 0) {
    const world = (await guest.readText(WORLD)) ?? '';
    await installFiles(guest, set.files, INSTALLER, log, signal);
    const requested = set.packages.filter((p) => p.requested).map((p) => p.name);
    await guest.write(WORLD, withWorld(world, requested));
    const now = await installed(guest);
    requireInstalled(set.packages.map((p) => p.name).filter((name) => !now.provides.has(name)));
  }
  await enableServices(guest);
}

/** See Family. Throws GUEST_BROKEN. */
export async function removePackages(guest: GuestSession, names: readonly string[]): Promise<void> {
  if (names.length > 0) await guest.guest(REMOVE, names, TIMEOUT_MS);
}
