/** The inventory of a machine: collected there by remote/inventory.sh, understood here. */
import { PortError } from '../../../core/errors.ts';
import { Inventory } from '../../../core/inventory.ts';
import { blockNodes, devicesOf, disksOf } from './block.ts';
import { interfacesOf, portsOf, resolverOf, routesOf } from './network.ts';
import { count, factsByName, lines, type Sections, short, some, splitSections } from './sections.ts';
import { bootDiskOf, fillUse, lvmOf, mountsOf, raidsOf, swapsOf } from './storage.ts';

/** As in the schema. */
const MAX_ITEMS = 4096;

function osRelease(sections: Sections): Inventory['os'] {
  const values = new Map(
    lines(sections, 'os-release').map((line) => {
      const at = line.indexOf('=');
      return [
        line.slice(0, at).trim(),
        short(
          line
            .slice(at + 1)
            .trim()
            .replaceAll(/^["']|["']$/g, ''),
        ),
      ] as const;
    }),
  );
  return {
    id: values.get('ID') ?? '',
    name: values.get('PRETTY_NAME') ?? values.get('NAME') ?? '',
    version: values.get('VERSION_ID') ?? '',
  };
}

function firmwareOf(sections: Sections): Pick<Inventory, 'firmware' | 'secureBoot'> {
  const [kind, secure] = lines(sections, 'firmware').map((l) => l.trim());
  return {
    firmware: kind === 'uefi' || kind === 'bios' ? kind : 'other',
    secureBoot: secure === undefined ? undefined : secure === '1',
  };
}

function servicesOf(sections: Sections): string[] {
  const units = lines(sections, 'services').map((l) => short(l.trim().split(/\s+/)[0] ?? ''));
  // without systemd: names of processes, the kernel's own (kworker/0:1) left out
  const names =
    units.length > 0
      ? units
      : lines(sections, 'processes')
          .filter((n) => !n.includes('/'))
          .map(short);
  return [...new Set(names)];
}

function notesOf(sections: Sections, found: Inventory): string[] {
  const notes: string[] = [];
  if (!sections.has('end')) notes.push('the inventory is not complete');
  if (/\bzfs\b/.test((sections.get('mounts') ?? '').replaceAll(/^.* - /gm, ''))) {
    notes.push('ZFS is in use: which disks it lies on is not known here');
  }
  if (found.devices.some((d) => d.kind === 'multipath')) {
    notes.push('multipath is in use: several disks here are paths to one');
  }
  if (found.devices.some((d) => d.kind === 'lvm') && found.volumeGroups.length === 0) {
    notes.push('LVM is in use, but its programs are missing: volume groups are not told');
  }
  return notes;
}

/**
 * Understands what the collector printed. Throws SOURCE_REMOTE when it printed no inventory or one beyond the limits; what is missing or strange
 * is left out or noted.
 */
export function parseInventory(output: string, mark: string): Inventory {
  const sections = splitSections(output, mark);
  if (!sections.has('block') || !sections.has('mounts')) {
    throw new PortError('SOURCE_REMOTE', 'the source machine did not tell what it is', {
      hint: 'it needs a POSIX shell and the usual small programs (head, grep, sed, readlink)',
    });
  }
  const nodes = blockNodes(sections);
  const mounts = mountsOf(sections, nodes);
  const [kernel = '', architecture = ''] = (lines(sections, 'kernel')[0] ?? '').split(' ');
  const dmi = factsByName(lines(sections, 'dmi')).get('dmi');
  const found: Inventory = {
    hostname: short(lines(sections, 'hostname')[0] ?? ''),
    os: osRelease(sections),
    kernel: short(kernel),
    architecture: short(architecture),
    ...firmwareOf(sections),
    vendor: some(dmi?.get('sys_vendor')?.[0]),
    product: some(dmi?.get('product_name')?.[0]),
    memoryBytes: count(/(\d+) kB/.exec(sections.get('memory') ?? '')?.[1]) * 1024,
    cpus: count(lines(sections, 'cpus')[0]),
    cpuModel: some(lines(sections, 'cpu-model')[0]?.replace(/^[^:]*:/, '')),
    disks: disksOf(nodes, sections),
    devices: devicesOf(nodes),
    mounts,
    swaps: swapsOf(sections, nodes, mounts),
    ...lvmOf(sections),
    raids: raidsOf(sections),
    interfaces: interfacesOf(sections),
    routes: routesOf(sections),
    ...resolverOf(sections),
    services: servicesOf(sections),
    ports: portsOf(sections),
    agents: lines(sections, 'programs').map(short),
    bootDisk: bootDiskOf(mounts),
    notes: [],
  };
  fillUse(found.disks, found, nodes);
  found.notes = notesOf(sections, found);
  for (const [key, value] of Object.entries(found)) {
    if (Array.isArray(value) && value.length > MAX_ITEMS) {
      Object.assign(found, { [key]: value.slice(0, MAX_ITEMS) });
      found.notes.push(`more than ${MAX_ITEMS} ${key}: the rest is left out`);
    }
  }
  const checked = Inventory.safeParse(found);
  if (checked.success) return checked.data;
  throw new PortError('SOURCE_REMOTE', 'what the source machine tells about itself is beyond all measure', {
    cause: checked.error,
  });
}
