/** Which disk here a kernel name such as `sdb`, in the guest's fstab, meant on the old machine. */
import { bareName, type FstabEntry } from './fstab-entries.ts';
import type { Probe } from './probe.ts';

const FAT = new Set(['vfat', 'msdos', 'fat', 'umsdos']);

function sameType(wanted: string, found: string | undefined): boolean {
  if (found === undefined) return false;
  if (wanted === 'auto' || wanted === 'none') return true;
  const kind = (type: string) => (FAT.has(type) ? 'vfat' : type.replace(/^ext[234]$/, 'ext'));
  return wanted.split(',').some((type) => kind(type) === kind(found));
}

/** The partition, or the whole disk, that a name on this disk would mean. */
function deviceOn(probe: Probe, disk: string, partition: number | undefined): string | undefined {
  if (partition === undefined) return disk;
  return probe.tables.get(disk)?.partitions.find((p) => p.number === partition)?.device;
}

/** Whether what lies there can be what the entry mounts. */
function fits(probe: Probe, entry: FstabEntry, device: string | undefined, root: string): boolean {
  if (device === undefined) return false;
  if (!sameType(entry.type, probe.contents.get(device)?.get('TYPE'))) return false;
  if (entry.path === '/') return device === root;
  if (device === root) return false;
  const holdsMenu = (d: string) => probe.looks.some((l) => l.device === d && l.has.has('grub/grub.cfg'));
  // a /boot of its own is known by its boot menu, where there is any
  return entry.path !== '/boot' || holdsMenu(device) || !probe.looks.some((l) => holdsMenu(l.device));
}

/**
 * Old name to device here. What is known comes first; then a name goes to the only disk on which all its entries find
 * what they mount, and so on with the rest. The order of the disks says nothing.
 */
export function oldDiskNames(
  probe: Probe,
  entries: readonly FstabEntry[],
  root: string,
  known: ReadonlyMap<string, string>,
): Map<string, string> {
  const disks = [...probe.tables.keys()].sort();
  const found = new Map<string, string>();
  for (const [device, name] of known) if (disks.includes(device)) found.set(name, device);
  const groups = new Map<string, FstabEntry[]>();
  for (const entry of entries) {
    const name = bareName(entry.spec)?.disk;
    if (name !== undefined && !found.has(name)) groups.set(name, [...(groups.get(name) ?? []), entry]);
  }
  for (let progress = true; progress; ) {
    progress = false;
    for (const [name, wanted] of groups) {
      const free = disks.filter((d) => ![...found.values()].includes(d));
      const [only, ...others] = free.filter((disk) =>
        wanted.every((e) => fits(probe, e, deviceOn(probe, disk, bareName(e.spec)?.partition), root)),
      );
      if (only === undefined || others.length > 0) continue;
      found.set(name, only);
      groups.delete(name);
      progress = true;
    }
  }
  return found;
}
