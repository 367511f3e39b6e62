/** Which system on the disks is to be converted, where its file systems are mounted, and what must be refused. */
import { PortError } from '../../core/errors.ts';
import type { Facts } from '../../core/facts.ts';
import { printable } from '../../core/text.ts';
import { deviceResolver } from './fstab.ts';
import { parseFstab } from './fstab-entries.ts';
import { parseOsRelease } from './os.ts';
import type { Look, Probe } from './probe.ts';
import { findWindows, refuseWindows } from './windows.ts';

/** A system found. */
export interface System {
  look: Look;
  /** os-release, or {} when the system has none. */
  release: Record<string, string>;
  title: string;
}

const SUPPORTED =
  'families that are known: Debian and Ubuntu, RHEL and Fedora (from 7), SUSE (from 12), Alpine, Arch';

/** Family by what ID or ID_LIKE names; the first that fits. */
const FAMILIES: readonly { family: string; ids: RegExp }[] = [
  { family: 'debian', ids: /^(?:debian|ubuntu)$/ },
  { family: 'rhel', ids: /^(?:rhel|fedora|centos|rocky|almalinux|ol|amzn)$/ },
  { family: 'suse', ids: /^(?:suse|opensuse.*|sles.*|sled)$/ },
  { family: 'alpine', ids: /^alpine$/ },
  { family: 'arch', ids: /^(?:arch|archarm)$/ },
];
/** Older releases build their initramfs with mkinitrd, or boot by GRUB 1. */
const OLDEST: Readonly<Record<string, { ids: RegExp; version: number }>> = {
  rhel: { ids: /^(?:rhel|centos|ol|scientific)$/, version: 7 },
  suse: { ids: /^(?:sles|sled|sles_sap)$/, version: 12 },
};

function shells(look: Look): boolean {
  return look.has.has('bin/sh') || look.has.has('usr/bin/sh');
}

/** Installed Linux systems, one per device: of btrfs subvolumes the one fstab means. */
export function findSystems(probe: Probe): System[] {
  const systems = probe.looks.flatMap((look) => {
    if (!shells(look)) return [];
    const text = look.texts.get('etc/os-release') ?? look.texts.get('usr/lib/os-release');
    const old = [...look.has].find((p) => /^etc\/(.*-release|debian_version)$/.test(p));
    if (text === undefined && old === undefined) return [];
    const release = parseOsRelease(text ?? '');
    // An image of a rescue system or a chroot has no fstab; a real root has one or an init.
    const init = look.has.has('sbin/init') || look.has.has('usr/lib/systemd/systemd');
    if (!init && !look.texts.has('etc/fstab')) return [];
    return [{ look, release, title: release.PRETTY_NAME ?? release.NAME ?? old ?? 'Linux' }];
  });
  const devices = [...new Set(systems.map((s) => s.look.device))];
  return devices.flatMap((device) => {
    const here = systems.filter((s) => s.look.device === device);
    const chosen = here.length === 1 ? here[0] : subvolumeRoot(probe, device, here);
    return chosen === undefined ? [] : [chosen];
  });
}

/** Snapshots hold whole systems too: the root is the subvolume its own fstab mounts at /, else the default one. */
function subvolumeRoot(probe: Probe, device: string, systems: readonly System[]): System | undefined {
  const own = systems.filter(({ look }) => {
    const entry = parseFstab(look.texts.get('etc/fstab') ?? '').find((e) => e.path === '/');
    const wanted = entry?.options.find((o) => o.startsWith('subvol='))?.slice('subvol='.length);
    return wanted !== undefined && wanted.replace(/^\/+/, '') === (look.subvolume ?? '');
  });
  if (own.length > 0) return own[0];
  const path = /\bpath (.+)$/m.exec(probe.defaultSubvolume.get(device) ?? '')?.[1];
  const usual = systems.find((s) => s.look.subvolume === (path ?? '@'));
  return usual ?? systems.find((s) => s.look.subvolume === undefined) ?? systems[0];
}

function refuseNothingFound(probe: Probe, targets: readonly string[]): never {
  for (const [device, fields] of probe.contents) {
    const type = fields.get('TYPE') ?? '';
    if (type === 'crypto_LUKS' || type === 'BitLocker' || type === 'crypto_BitLocker') {
      throw new PortError(
        'ENCRYPTED',
        `${device} is encrypted (${type === 'crypto_LUKS' ? 'LUKS' : 'BitLocker'})`,
        {
          hint: 'keys are not supported yet: convert from a disk that is decrypted',
        },
      );
    }
  }
  refuseWindows(probe, targets);
  const failed = [...probe.failed].map(([d, why]) => `${d}: ${printable(why.trim())}`).join('; ');
  if (failed !== '') {
    throw new PortError(
      'DAMAGED',
      `no operating system found, and these file systems cannot be mounted: ${failed}`,
    );
  }
  throw new PortError('NO_OS', 'no operating system found on the disk', {
    hint: `looked into: ${probe.looks.map((l) => l.device).join(', ') || 'no file system found'}`,
  });
}

/** Refuses what no choice of root can heal. Throws DAMAGED, HIBERNATED. */
export function refuseBroken(probe: Probe): void {
  for (const group of probe.volumeGroups) {
    if (group.missing > 0) {
      throw new PortError(
        'DAMAGED',
        `volume group ${printable(group.name)} misses ${group.missing} of its physical volumes`,
        { hint: 'it spans several disks: give all of them (--with-disk), and skip none with --disk' },
      );
    }
  }
  for (const [device, fields] of probe.contents) {
    if (fields.get('TYPE') === 'swsuspend') {
      throw new PortError('HIBERNATED', `${device} holds the memory of a hibernated system`, {
        hint: 'start the server, shut it down cleanly and capture it again',
      });
    }
  }
  for (const [device, head] of probe.hiberfil) {
    if (/^(hibr|wake|rstr)$/i.test(head)) {
      throw new PortError(
        'HIBERNATED',
        `${device}: Windows is hibernated or was shut down with fast startup`,
        {
          hint: 'start it, disable fast startup, and shut it down with: shutdown /s /t 0',
        },
      );
    }
  }
}

/**
 * Chooses the system. `wanted` is the user's --root, `targets` are the platforms it is for. Throws NO_OS, SEVERAL_OS, ENCRYPTED,
 * UNSUPPORTED_OS, DAMAGED.
 */
export function chooseRoot(
  probe: Probe,
  wanted: string | undefined,
  targets: readonly string[] = [],
): System {
  const systems = findSystems(probe);
  const windows = findWindows(probe);
  const lines = systems.map((s) => `${s.look.device} (${printable(s.title)})`).join(', ');
  if (wanted !== undefined) {
    const alias = probe.volumeGroups
      .flatMap((g) => g.logicalVolumes.map((l) => ({ name: `/dev/${g.name}/${l.name}`, device: l.device })))
      .find((l) => l.name === wanted)?.device;
    const found = systems.find((s) => s.look.device === (alias ?? wanted));
    if (found !== undefined) return found;
    if (windows?.device === (alias ?? wanted)) refuseWindows(probe, targets);
    throw new PortError('NO_OS', `no system on ${printable(wanted)}`, {
      hint: lines === '' ? 'no system was found on the disk at all' : `found: ${lines}`,
    });
  }
  if (systems.length > 1 || (systems.length === 1 && windows !== undefined)) {
    const all = windows === undefined ? lines : `${lines}, ${windows.device} (Windows)`;
    throw new PortError('SEVERAL_OS', `several systems on the disk: ${all}`, {
      hint: 'name the one to convert with --root DEVICE',
    });
  }
  return systems[0] ?? refuseNothingFound(probe, targets);
}

/** Family of a distribution, from ID and ID_LIKE. Throws UNSUPPORTED_OS for what no family handles, and for old releases. */
export function familyOf(release: Record<string, string>): string {
  const ids = [release.ID ?? '', ...(release.ID_LIKE ?? '').split(/\s+/)];
  const name = printable(release.PRETTY_NAME ?? release.NAME ?? release.ID ?? 'this system');
  for (const id of ids) {
    const family = FAMILIES.find((f) => f.ids.test(id))?.family;
    if (family === undefined) continue;
    const oldest = OLDEST[family];
    const version = Number.parseInt(release.VERSION_ID ?? '', 10);
    if (oldest?.ids.test(release.ID ?? '') && version < oldest.version) {
      throw new PortError('UNSUPPORTED_OS', `${name} is too old: its initramfs is made by mkinitrd`, {
        hint: 'upgrade the server first, or convert it with virt-v2v, which knows mkinitrd',
      });
    }
    return family;
  }
  throw new PortError('UNSUPPORTED_OS', `${name} cannot be converted yet`, { hint: SUPPORTED });
}

/**
 * What fstab wants mounted, as far as it is on these disks. Returns warnings for what is not. `names` are the names the
 * disks had on the old machine, by device here, as far as they are known.
 */
export function planMounts(
  probe: Probe,
  system: System,
  names: ReadonlyMap<string, string> = new Map(),
): { mounts: Facts['mounts']; warnings: string[] } {
  const { device, subvolume, texts } = system.look;
  const entries = parseFstab(texts.get('etc/fstab') ?? '');
  const resolve = deviceResolver(probe, entries, device, names);
  const mounts: Facts['mounts'] = [
    { path: '/', device, ...(subvolume === undefined ? {} : { options: `subvol=${subvolume}` }) },
  ];
  const warnings: string[] = [];
  for (const entry of entries) {
    const path = entry.path.replace(/(.)\/+$/, '$1');
    if (!path.startsWith('/') || path === '/' || mounts.some((m) => m.path === path)) continue;
    if (path.split('/').includes('..') || /^\/(proc|sys|dev|run|tmp)(\/|$)/.test(path)) continue;
    const found = resolve(entry.spec);
    if (found === undefined) {
      const optional = entry.options.some((o) => ['noauto', 'nofail', 'user', 'users'].includes(o));
      if (!optional && /^(UUID|LABEL|PARTUUID|PARTLABEL)=|^\/dev\//.test(entry.spec)) {
        warnings.push(`fstab mounts ${printable(entry.spec)} at ${printable(path)}; it is not on this disk`);
      }
      continue;
    }
    const type = probe.contents.get(found)?.get('TYPE');
    if (type === 'crypto_LUKS') {
      throw new PortError('ENCRYPTED', `${found}, mounted at ${printable(path)}, is encrypted (LUKS)`, {
        hint: 'keys are not supported yet: convert from a disk that is decrypted',
      });
    }
    const why = probe.failed.get(found);
    if (why !== undefined) {
      throw new PortError(
        'DAMAGED',
        `${found}, mounted at ${printable(path)}, is damaged: ${printable(why.trim())}`,
      );
    }
    if (!probe.space.has(found)) continue;
    const sub = entry.options.find((o) => o.startsWith('subvol='));
    const onDemand = entry.options.some((o) => o === 'noauto' || o === 'x-systemd.automount');
    mounts.push({
      path,
      device: found,
      ...(sub === undefined ? {} : { options: sub }),
      ...(onDemand ? { atBoot: false } : {}),
    });
  }
  mounts.sort((a, b) => a.path.length - b.path.length || (a.path < b.path ? -1 : 1));
  return { mounts, warnings };
}
