/** What uses the disks: mounts, swap, LVM, md. */
import * as path from 'node:path';
import type { Inventory, InventoryDisk, InventoryMount } from '../../../core/inventory.ts';
import { type BlockNode, type BlockNodes, nodeOf, property } from './block.ts';
import { count, json, lines, type Sections, short } from './sections.ts';

/** /proc writes blanks, tabs, newlines and backslashes in octal. */
function decoded(text: string): string {
  return text.replaceAll(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)));
}

/** Devices of the btrfs file system that `node` belongs to: its mount has a number of its own and names only one. */
function btrfsDevices(sections: Sections, nodes: BlockNodes, node: BlockNode): BlockNode[] {
  const devices = lines(sections, 'btrfs');
  const own = devices.find((d) => path.basename(d) === node.name);
  if (own === undefined) return [node];
  return devices
    .filter((d) => path.dirname(d) === path.dirname(own))
    .flatMap((d) => nodes.get(path.basename(d)) ?? []);
}

/** Types whose mounts have numbers of their own, and may name no device: their members are told by their content. */
const POOLED: Readonly<Record<string, string>> = { zfs: 'zfs_member', bcachefs: 'bcachefs', btrfs: 'btrfs' };

/** Devices that never lie on a disk here without the kernel telling how. */
const ELSEWHERE = /^(loop|ram|zram|sr|fd|nbd|mtdblock|dm-|md)/;

/** Where a mount lies that names no device known here: with its members, else it may be any disk. */
function poolOf(type: string, source: string, nodes: BlockNodes): { device: string; disks: string[] } {
  const members = [...nodes.values()].filter((n) => property(n, 'ID_FS_TYPE') === POOLED[type]);
  const disks = [...new Set(members.flatMap((n) => n.disks))];
  return {
    device: short(type === 'zfs' ? (source.split('/')[0] ?? '') : source),
    disks: disks.length > 0 ? disks : wholeDisks(nodes),
  };
}

function wholeDisks(nodes: BlockNodes): string[] {
  return [...nodes.values()].filter((n) => n.disks.length === 1 && n.disks[0] === n.name).map((n) => n.name);
}

/** Disks under a mount; some drivers (drbd) do not tell what they lie on. */
function disksOfMount(sections: Sections, nodes: BlockNodes, node: BlockNode, type: string): string[] {
  const found = type === 'btrfs' ? btrfsDevices(sections, nodes, node) : [node];
  const disks = [...new Set(found.flatMap((n) => n.disks))];
  return disks.length === 0 && !ELSEWHERE.test(node.name) ? wholeDisks(nodes) : disks;
}

/**
 * Lines of mountinfo: those of the machine, then those of other mount namespaces (containers), their mount points by way
 * of a process there.
 */
function mountLines(sections: Sections): string[] {
  const others = lines(sections, 'other-mounts').flatMap((line) => {
    const match = /^(\d+) (\S+ \S+ \S+ \S+) (\S+) (.*)$/.exec(line);
    const [, pid = '', head = '', point = '', rest = ''] = match ?? [];
    return match === null ? [] : [`${head} /proc/${pid}/root${point === '/' ? '' : point} ${rest}`];
  });
  return [...lines(sections, 'mounts'), ...others];
}

/** Mounted file systems that lie on block devices; a file system mounted several times is told by its first mount. */
export function mountsOf(sections: Sections, nodes: BlockNodes): InventoryMount[] {
  const usage = new Map(
    lines(sections, 'usage').map((line) => {
      const match = /\s(\d+)\s+(\d+)\s+\d+\s+\d+%\s+(\/.*)$/.exec(line);
      return [match?.[3] ?? '', { size: count(match?.[1]), used: count(match?.[2]) }] as const;
    }),
  );
  const mounts: InventoryMount[] = [];
  for (const line of mountLines(sections)) {
    const [before = '', after = ''] = line.split(' - ');
    const [, , number = '', root = '', point = '', options = ''] = before.split(' ');
    const [type = '', source = '', superOptions = ''] = after.split(' ');
    const node = nodeOf(nodes, number) ?? nodeOf(nodes, decoded(source));
    if (node === undefined && POOLED[type] === undefined) continue;
    const place =
      node === undefined
        ? poolOf(type, decoded(source), nodes)
        : { device: node.name, disks: disksOfMount(sections, nodes, node, type) };
    const mountPoint = short(decoded(point));
    const writable = options.split(',').includes('rw') && superOptions.split(',').includes('rw');
    const same = mounts.find((m) => m.device === place.device);
    if (same !== undefined) {
      // a bind mount; the one for writing counts, and the root of the file system before a folder of it
      if (
        (!same.writable && writable) ||
        (root === '/' && same.writable === writable && mountPoint === '/')
      ) {
        Object.assign(same, { mountPoint, writable });
      }
      continue;
    }
    const space = usage.get(mountPoint);
    mounts.push({
      mountPoint,
      device: place.device,
      type: short(type),
      writable,
      disks: place.disks,
      sizeBytes: space === undefined ? undefined : space.size * 1024,
      usedBytes: space === undefined ? undefined : space.used * 1024,
    });
  }
  return mounts;
}

/** /proc/swaps; a swap file counts to the disks of its file system. */
export function swapsOf(
  sections: Sections,
  nodes: BlockNodes,
  mounts: readonly InventoryMount[],
): Inventory['swaps'] {
  return lines(sections, 'swaps')
    .slice(1)
    .map((line) => {
      const [file = '', , size, used] = line.split(/\s+/);
      const name = short(decoded(file));
      const below = mounts
        .filter((m) => m.mountPoint === '/' || name.startsWith(`${m.mountPoint}/`))
        .sort((a, b) => b.mountPoint.length - a.mountPoint.length)[0];
      const node = nodeOf(nodes, name);
      return {
        path: name,
        sizeBytes: count(size) * 1024,
        usedBytes: count(used) * 1024,
        disks: node?.disks ?? (name.startsWith('/dev/') ? [] : (below?.disks ?? [])),
      };
    })
    .filter((swap) => !swap.path.startsWith('/dev/zram'));
}

/** Rows of an LVM report: all values are strings there. */
function report(text: string | undefined, kind: 'pv' | 'vg' | 'lv'): Record<string, string>[] {
  const parsed = json(text) as { report?: Record<string, unknown>[] } | undefined;
  const rows = Array.isArray(parsed?.report) ? parsed.report[0]?.[kind] : undefined;
  return Array.isArray(rows)
    ? rows.map((row: Record<string, unknown>) =>
        Object.fromEntries(Object.entries(row ?? {}).map(([k, v]) => [k, short(String(v))])),
      )
    : [];
}

/** Volume groups and volumes, as LVM's programs tell them. */
export function lvmOf(sections: Sections): Pick<Inventory, 'volumeGroups' | 'logicalVolumes'> {
  const physical = report(sections.get('pvs'), 'pv');
  return {
    volumeGroups: report(sections.get('vgs'), 'vg').map((vg) => ({
      name: vg.vg_name ?? '',
      sizeBytes: count(vg.vg_size),
      freeBytes: count(vg.vg_free),
      physicalVolumes: physical.filter((pv) => pv.vg_name === vg.vg_name).map((pv) => pv.pv_name ?? ''),
    })),
    logicalVolumes: report(sections.get('lvs'), 'lv').map((lv) => ({
      name: lv.lv_name ?? '',
      volumeGroup: lv.vg_name ?? '',
      sizeBytes: count(lv.lv_size),
      type: lv.segtype ?? '',
    })),
  };
}

/** /proc/mdstat. */
export function raidsOf(sections: Sections): Inventory['raids'] {
  return lines(sections, 'mdstat').flatMap((line) => {
    const match =
      /^(md\S+) : (\S+(?: \((?:auto-)?read-only\))?) (?:(raid\d+|linear|multipath|faulty) )?(.*)$/.exec(line);
    if (match === null) return [];
    return {
      name: short(match[1] ?? ''),
      state: short(match[2] ?? ''),
      level: match[3] ?? '',
      members: (match[4] ?? '')
        .split(' ')
        .map((m) => short(m.replace(/\[.*$/, '')))
        .filter((m) => m !== ''),
    };
  });
}

/** Fills in what uses each disk. */
export function fillUse(
  disks: InventoryDisk[],
  found: Pick<Inventory, 'mounts' | 'swaps' | 'volumeGroups' | 'raids'>,
  nodes: BlockNodes,
): void {
  for (const disk of disks) {
    const on = (device: string) => nodeOf(nodes, device)?.disks.includes(disk.name) === true;
    disk.writtenThrough = found.mounts
      .filter((m) => m.writable && m.disks.includes(disk.name))
      .map((m) => m.mountPoint);
    disk.usedBy = [
      ...found.mounts.filter((m) => m.disks.includes(disk.name)).map((m) => `${m.mountPoint} (${m.type})`),
      ...found.swaps.filter((s) => s.disks.includes(disk.name)).map((s) => `swap ${s.path}`),
      ...found.volumeGroups.filter((v) => v.physicalVolumes.some(on)).map((v) => `volume group ${v.name}`),
      ...found.raids.filter((r) => r.members.some((m) => on(`/dev/${m}`))).map((r) => `array ${r.name}`),
    ];
  }
}

/** The disk of /boot, else of the EFI partition, else of /; of a mirror the first. */
export function bootDiskOf(mounts: readonly InventoryMount[]): string | undefined {
  for (const point of ['/boot', '/boot/efi', '/efi', '/']) {
    const [first] = mounts.find((m) => m.mountPoint === point)?.disks ?? [];
    if (first !== undefined) return first;
  }
  return undefined;
}
