/** What each disk is for: the system, or beside it; which disks belong together; from which one the firmware starts. */
import { PortError } from '../../core/errors.ts';
import type { DiskUse, Facts } from '../../core/facts.ts';
import type { Request } from '../../core/request.ts';
import { printable } from '../../core/text.ts';
import type { CapturedDisk } from '../../core/types.ts';
import { ESP_TYPE } from '../../tools/sfdisk.ts';
import { DiskSets } from './disk-sets.ts';
import type { Probe } from './probe.ts';
import { firmwareOf } from './storage.ts';

/** Mount points without which the system does not start, or is not itself. What is mounted below /var may be data. */
const SYSTEM_MOUNT = /^\/($|usr$|var$|var\/lib$|etc$|(boot|efi)($|\/))/;

/** Ids that are names of the old machine's kernel, by device here; ids such as `disk1` say nothing. */
export function diskNames(disks: readonly Pick<CapturedDisk, 'id'>[]): Map<string, string> {
  return new Map(
    disks
      .map(({ id }, i): [string, string] => [`/dev/sd${String.fromCharCode(97 + i)}`, id])
      .filter(([, id]) => /^((sd|hd|vd|xvd)[a-z]{1,3}|nvme\d+n\d+|mmcblk\d+)$/.test(id)),
  );
}

/** For each disk the smallest index of the disks it belongs to. */
function components(count: number, sets: readonly number[][]): number[] {
  const parent = Array.from({ length: count }, (_, i) => i);
  const find = (i: number): number => (parent[i] === i || parent[i] === undefined ? i : find(parent[i]));
  for (const [first, ...rest] of sets) {
    for (const other of rest) {
      const [a, b] = [find(first ?? 0), find(other)];
      parent[Math.max(a, b)] = Math.min(a, b);
    }
  }
  return parent.map((_, i) => find(i));
}

/** Of the system's disks the one the firmware starts from. */
function bootDiskOf(
  probe: Probe,
  system: readonly number[],
  firmware: Facts['firmware'],
  disks: Facts['disks'],
  on: (mountPoint: string) => number[],
): number {
  const esp = [...on('/boot/efi'), ...on('/efi')];
  const starts = (disk: number): boolean =>
    firmware === 'uefi'
      ? esp.includes(disk) || (disks[disk]?.partitions.some((p) => p.type === ESP_TYPE) ?? false)
      : probe.loaders.has(`/dev/sd${String.fromCharCode(97 + disk)}`);
  const score = (disk: number): number =>
    (starts(disk) ? 8 : 0) +
    (firmware === 'uefi' && esp.includes(disk) ? 4 : 0) +
    (on('/boot').includes(disk) ? 2 : 0) +
    (on('/').includes(disk) ? 1 : 0);
  return [...system].sort((a, b) => score(b) - score(a) || a - b)[0] ?? 0;
}

/** Gives each disk its use. Throws USAGE when what the user wants a disk to be cannot be. */
export function withRoles(
  probe: Probe,
  disks: Facts['disks'],
  mounts: Facts['mounts'],
  wanted: Request['disks'],
): { disks: Facts['disks']; bootDisk: number; firmware: Facts['firmware'] } {
  const sets = new DiskSets(probe);
  const part = components(disks.length, sets.tied());
  const on = (mountPoint: string): number[] =>
    mounts.filter((m) => m.path === mountPoint).flatMap((m) => sets.of(m.device));
  const held = mounts.filter((m) => SYSTEM_MOUNT.test(m.path)).flatMap((m) => sets.of(m.device));
  const core = new Set(held.map((d) => part[d]));
  let system = disks.map((_, i) => i).filter((i) => core.has(part[i]) || disks.length === 1);
  const firmware = firmwareOf(disks.filter((_, i) => system.includes(i)));
  const loaders = disks.map((_, i) => i).filter((i) => probe.loaders.has(`/dev/sd${letter(i)}`));
  // a BIOS starts a disk with a loader: when no disk of the system has one, the lone other one is it
  if (firmware === 'bios' && loaders.length === 1 && !loaders.some((d) => system.includes(d))) {
    system = disks.map((_, i) => i).filter((i) => system.includes(i) || part[i] === part[loaders[0] ?? -1]);
  }
  const bootDisk = bootDiskOf(probe, system, firmware, disks, on);
  const uses = disks.map(({ id }, i): DiskUse => {
    const use = wanted[id];
    if (!system.includes(i)) return use === undefined || use === 'skip' ? 'image' : use;
    if (use === undefined) return 'system';
    const holds = mounts.filter((m) => sets.of(m.device).includes(i)).map((m) => printable(m.path));
    throw new PortError(
      'USAGE',
      `${printable(id)} cannot be ${use}: the system is on it (${holds.join(', ') || 'its boot loader'})`,
      {
        hint: 'leave it out of --disk',
      },
    );
  });
  for (const [i, use] of uses.entries()) {
    const first = part[i] ?? i;
    if (uses[first] === use) continue;
    throw new PortError(
      'USAGE',
      `${printable(disks[first]?.id ?? '')} and ${printable(disks[i]?.id ?? '')} belong together (one volume group or array), but are to be ${uses[first]} and ${use}`,
      { hint: 'give both the same use with --disk' },
    );
  }
  return { disks: disks.map((d, i) => ({ ...d, use: uses[i] ?? 'system' })), bootDisk, firmware };
}

const letter = (index: number): string => String.fromCharCode(97 + index);
