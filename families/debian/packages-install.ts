/**
 * Installs and removes packages inside the appliance, with the guest's own dpkg. Under emulation each second is dear, so
 * packages arrive uncompressed, Python bytecode is compiled here, and hooks that only warm caches are answered by stand-ins
 * that lie in a tmpfs in front of PATH: nothing of the guest is replaced, so nothing has to be put back.
 */
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import PQueue from 'p-queue';
import { PortError } from '../../core/errors.ts';
import { makeDir } from '../../core/files.ts';
import type { GuestSession } from '../../core/guest.ts';
import { type Log, silentLog } from '../../core/log.ts';
import { debFields, storeUncompressed } from '../../tools/dpkg.ts';
import { createTar } from '../../tools/gnu-tar.ts';
import type { PackageSet } from '../family.ts';
import { makeBytecode } from './packages-bytecode.ts';
import { installCalls, type OrderEntry, relationNames } from './packages-order.ts';

/** More than this and the packages travel compressed: the exchange folder is memory of the appliance. */
const UNCOMPRESSED_LIMIT_BYTES = 200 * 1024 * 1024;
/** Time for a whole installation under emulation on a slow machine. */
const INSTALL_TIMEOUT_MS = 3_600_000;

/**
 * Common start of every script. $1 is the exchange folder. Services: policy-rc.d says no (and is put back as it was),
 * invoke-rc.d does nothing. man-db is told not to rebuild its index. dpkg -L of the Python library answers nothing, so
 * its postinst compiles nothing (the bytecode comes from outside or is made at first import).
 */
const PRELUDE = `
set -e
cd /
work=$1/packages
mkdir -p "$work/bin"
stand_in() { printf '#!/bin/sh\\n%s\\n' "$2" >"$work/bin/$1"; chmod 755 "$work/bin/$1"; }
stand_in invoke-rc.d 'exit 0'
stand_in deb-systemd-invoke 'exit 0'
stand_in py3compile 'exit 0'
stand_in pypy3compile 'exit 0'
stand_in update-initramfs 'echo "$*" >>'"$work"'/initramfs-wanted; exit 0'
stand_in dpkg 'case "$1 $2" in "-L libpython3"*) exit 0;; esac; exec /usr/bin/dpkg "$@"'
put_back() {
  rm -f /usr/sbin/policy-rc.d
  if [ -e "$work/had-policy" ]; then mv -f /usr/sbin/policy-rc.d.port-image /usr/sbin/policy-rc.d; fi
  if [ -e "$work/had-man-flag" ]; then mv -f /var/lib/man-db/auto-update.port-image /var/lib/man-db/auto-update; fi
}
trap put_back EXIT
if [ -e /usr/sbin/policy-rc.d ] || [ -L /usr/sbin/policy-rc.d ]; then
  mv /usr/sbin/policy-rc.d /usr/sbin/policy-rc.d.port-image
  : >"$work/had-policy"
fi
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
if [ -e /var/lib/man-db/auto-update ]; then
  mv /var/lib/man-db/auto-update /var/lib/man-db/auto-update.port-image
  : >"$work/had-man-flag"
fi
export PATH="$work/bin:/usr/sbin:/usr/bin:/sbin:/bin" HOME=/root LC_ALL=C LANG=C DEBIAN_FRONTEND=noninteractive
export DEBCONF_NONINTERACTIVE_SEEN=true DEBCONF_NOWARNINGS=yes UCF_FORCE_CONFFOLD=1 NEEDRESTART_SUSPEND=1
unset TMPDIR
`;

const INSTALL = `${PRELUDE}
for call in "$work"/debs/*; do
  /usr/bin/dpkg --force-unsafe-io --force-confdef --force-confold -i "$call"/*.deb </dev/null
done
if [ -e "$work/bytecode.tar" ]; then tar -C / --no-overwrite-dir --keep-directory-symlink -xf "$work/bytecode.tar"; fi
if [ -e "$work/auto" ]; then
  [ ! -s /var/lib/apt/extended_states ] || printf '\\n' >>/var/lib/apt/extended_states
  cat "$work/auto" >>/var/lib/apt/extended_states
fi
if [ -e "$work/initramfs-wanted" ]; then echo 'port-image: initramfs wanted'; fi
`;

const STATE = "dpkg-query -W -f '$" + '{Package} $' + '{Version} $' + '{Status}\\n\' -- "$@" || true\n';

const REMOVE = `${PRELUDE}
shift
/usr/bin/dpkg --force-unsafe-io --remove -- "$@" </dev/null
`;

/** Installs a set. Throws GUEST_BROKEN when dpkg fails or a package is not completely installed afterwards. */
export async function installPackages(
  guest: GuestSession,
  set: PackageSet,
  log: Log = silentLog,
  signal: AbortSignal = new AbortController().signal,
): Promise<void> {
  if (set.files.length === 0) return;
  const started = performance.now();
  const dir = await fs.mkdtemp(path.join(os.tmpdir(), 'port-image-packages-'));
  try {
    await prepare(dir, set, await guestPython(guest), signal, log);
    const tar = path.join(dir, 'packages.tar');
    await createTar(tar, path.join(dir, 'in'), signal);
    const target = `${guest.exchange}/packages`;
    const prepared = performance.now();
    // Also makes the exchange folder.
    await guest.guest('mkdir -p "$1/packages"', [guest.exchange]);
    await guest.call('tar-in', [tar, target]);
    const sent = performance.now();
    const output = await guest.guest(INSTALL, [guest.exchange], INSTALL_TIMEOUT_MS);
    log.debug('dpkg', { output: output.slice(-20_000) });
    if (output.includes('port-image: initramfs wanted'))
      log.warn('an installed package asked for a new initramfs; the one built by port-image stays');
    await requireInstalled(guest, set);
    const seconds = (from: number, to: number) => Number(((to - from) / 1000).toFixed(1));
    log.info('packages installed', {
      packages: set.packages.length,
      prepareSeconds: seconds(started, prepared),
      sendSeconds: seconds(prepared, sent),
      dpkgSeconds: seconds(sent, performance.now()),
    });
  } finally {
    await fs.rm(dir, { recursive: true, force: true });
    await guest.guest('rm -rf "$1/packages"', [guest.exchange]).catch(() => {});
  }
}

/** Lays out what the guest gets: debs in apt's order, bytecode, marks for automatically installed packages. */
async function prepare(
  dir: string,
  set: PackageSet,
  python: string | undefined,
  signal: AbortSignal,
  log: Log,
): Promise<void> {
  const input = path.join(dir, 'in');
  const queue = new PQueue({ concurrency: 2 });
  const entries = await queue.addAll(
    set.files.map((file) => async () => orderEntry(await debFields(file, signal))),
  );
  const jobs: (() => Promise<void>)[] = [];
  let totalBytes = 0;
  for (const [call, indexes] of installCalls(entries).entries()) {
    const folder = path.join(input, 'debs', String(call).padStart(3, '0'));
    await makeDir(folder);
    for (const index of indexes) {
      const file = set.files[index] ?? '';
      const target = path.join(folder, `${String(index).padStart(4, '0')}.deb`);
      jobs.push(async () => {
        if (totalBytes >= UNCOMPRESSED_LIMIT_BYTES) return fs.copyFile(file, target);
        const bytes = await storeUncompressed(file, target, signal);
        totalBytes += bytes;
      });
    }
  }
  await queue.addAll(jobs);
  const bytecode = path.join(input, 'bytecode.tar');
  const made = await makeBytecode(set.files, python, path.join(dir, 'tree'), bytecode, signal);
  log.debug('packages prepared', { bytes: totalBytes, bytecode: made });
  const auto = set.packages
    .filter((p) => !p.requested && p.replaces === undefined)
    .map((p) => `Package: ${p.name}\nArchitecture: ${p.architecture}\nAuto-Installed: 1\n`);
  if (auto.length > 0) await fs.writeFile(path.join(input, 'auto'), auto.join('\n'));
}

function orderEntry(fields: ReadonlyMap<string, string>): OrderEntry {
  return {
    name: fields.get('Package') ?? '',
    depends: relationNames(fields.get('Depends')),
    preDepends: relationNames(fields.get('Pre-Depends')),
    provides: relationNames(fields.get('Provides')),
  };
}

/** Python version the guest has now, such as `3.11`. */
async function guestPython(guest: GuestSession): Promise<string | undefined> {
  if ((await guest.kind('/usr/bin/python3')) !== 'symlink') return undefined;
  return /^python(3\.\d+)$/.exec(await guest.readLink('/usr/bin/python3'))?.[1];
}

async function requireInstalled(guest: GuestSession, set: PackageSet): Promise<void> {
  const output = await guest.guest(
    STATE,
    set.packages.map((p) => p.name),
  );
  const ok = new Set(
    output.split('\n').filter((l) => l.endsWith(' install ok installed') || l.endsWith(' hold ok installed')),
  );
  const bad = set.packages.filter((p) => ![...ok].some((l) => l.startsWith(`${p.name} ${p.version} `)));
  if (bad.length > 0) {
    throw new PortError(
      'GUEST_BROKEN',
      `not completely installed in the guest: ${bad.map((p) => p.name).join(', ')}`,
    );
  }
}

/** Removes packages, keeping their configuration. Throws GUEST_BROKEN when others depend on them. */
export async function removePackages(guest: GuestSession, names: readonly string[]): Promise<void> {
  if (names.length === 0) return;
  try {
    await guest.guest(REMOVE, [guest.exchange, ...names], INSTALL_TIMEOUT_MS);
  } finally {
    await guest.guest('rm -rf "$1/packages"', [guest.exchange]).catch(() => {});
  }
}
