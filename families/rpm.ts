/** Packages of the RHEL and SUSE families: chosen on the host from a folder, installed by the guest's own rpm. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { PortError } from '../core/errors.ts';
import type { GuestSession } from '../core/guest.ts';
import { type Log, silentLog } from '../core/log.ts';
import { rpmMissing } from '../tools/rpm-database.ts';
import { readRpmFile } from '../tools/rpm-file.ts';
import { compareRpmVersions } from '../tools/rpm-version.ts';
import type { PackageSet, ResolveOptions } from './family.ts';
import { installFiles, requireInstalled } from './packages-send.ts';
import { chooseFromPool, type PoolPackage } from './pool.ts';

const INSTALL_TIMEOUT_MS = 3_600_000;

/**
 * rpm checks the whole set before it changes anything; signatures too, when the guest has the keys. Nothing is started:
 * systemctl in scriptlets works on files only.
 */
const INSTALL = `
set -e
cd /
work=$1/packages
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_OFFLINE=1
rpm -U --test "$work"/in/*.rpm </dev/null
rpm -U "$work"/in/*.rpm </dev/null
`;

const INSTALLER = { tool: 'rpm', suffix: '.rpm', script: INSTALL, timeoutMs: INSTALL_TIMEOUT_MS };

const REMOVE = `
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_OFFLINE=1
rpm -e -- "$@" </dev/null
`;

async function readPool(dir: string, signal: AbortSignal): Promise<PoolPackage[]> {
  const names = (await fs.readdir(dir)).filter((n) => n.endsWith('.rpm') && !n.endsWith('.src.rpm')).sort();
  const pool: PoolPackage[] = [];
  for (const name of names) {
    signal.throwIfAborted();
    const file = path.join(dir, name);
    pool.push({ ...(await readRpmFile(file)), file, bytes: (await fs.stat(file)).size });
  }
  return pool;
}

/** Architecture rpm builds and installs for. */
async function guestArchitecture(guest: GuestSession): Promise<string> {
  return (await guest.guest(`LC_ALL=C rpm --eval '%{_arch}'`)).trim();
}

/** Makes a family's `resolvePackages`; `fetch` is the command that downloads packages with their dependencies. */
export function rpmResolver(
  fetch: string,
): (guest: GuestSession, names: readonly string[], options: ResolveOptions) => Promise<PackageSet> {
  return async (guest, names, options) => {
    const lacking = await rpmMissing(guest, names);
    if (lacking.size === 0) return { files: [], packages: [] };
    const hint = `on a machine of the same release run: ${fetch} ${[...lacking].join(' ')}; then convert with --packages DIR`;
    if (options.offlinePool === undefined) {
      throw new PortError('PACKAGES', `the guest lacks ${[...lacking].join(', ')}`, { hint });
    }
    const machine = await guestArchitecture(guest);
    const pool = await readPool(path.resolve(options.offlinePool), options.signal);
    return chooseFromPool({
      pool: pool.filter((p) => p.architecture === 'noarch' || p.architecture === machine),
      wanted: names,
      missing: (list) => rpmMissing(guest, list),
      compareVersions: compareRpmVersions,
      hint,
    });
  };
}

/** See Family. Throws GUEST_BROKEN when rpm refuses. */
export async function installRpms(
  guest: GuestSession,
  set: PackageSet,
  log: Log = silentLog,
  signal: AbortSignal = new AbortController().signal,
): Promise<void> {
  if (set.files.length === 0) return;
  await installFiles(guest, set.files, INSTALLER, log, signal);
  const names = set.packages.map((p) => p.name);
  requireInstalled(await rpmMissing(guest, names));
}

/** See Family. Throws GUEST_BROKEN when others need them. */
export async function removeRpms(guest: GuestSession, names: readonly string[]): Promise<void> {
  if (names.length === 0) return;
  await guest.guest(REMOVE, names, INSTALL_TIMEOUT_MS);
}
