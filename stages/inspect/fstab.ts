/** fstab, and which device of the appliance each of its names means. */
import { oldDiskNames } from './old-names.ts';
import type { Probe } from './probe.ts';

/** A line of fstab. */
export interface FstabEntry {
  spec: string;
  path: string;
  type: string;
  options: string[];
}

/** Reads fstab; octal escapes such as `\040` are undone. Lines that are no entry are left out. */
export function parseFstab(text: string): FstabEntry[] {
  return text.split('\n').flatMap((line) => {
    const [spec, path, type, options] = line
      .replace(/^\s*#.*$/, '')
      .trim()
      .split(/\s+/)
      .map((field) =>
        field.replace(/\\([0-7]{3})/g, (_, o: string) => String.fromCharCode(Number.parseInt(o, 8))),
      );
    if (!spec || !path || !type) return [];
    return [{ spec, path, type, options: (options ?? 'defaults').split(',') }];
  });
}

const BARE =
  /^\/dev\/(?:(?<letters>(?:sd|hd|vd|xvd)(?<letter>[a-z]))(?<n1>\d+)?|(?<nvme>nvme(?<i2>\d+)n1)(?:p(?<n2>\d+))?|(?<mmc>mmcblk(?<i3>\d+))(?:p(?<n3>\d+))?|(?<cciss>cciss\/c0d(?<i4>\d+))(?:p(?<n4>\d+))?)$/;

/** A kernel name of a disk or partition: the disk's name, its place among disks of its kind, the partition number. */
export function bareName(
  spec: string,
): { disk: string; index: number; partition: number | undefined } | undefined {
  const g = BARE.exec(spec)?.groups;
  if (g === undefined) return undefined;
  const disk = g.letters ?? g.nvme ?? g.mmc ?? g.cciss ?? '';
  const index = g.letter === undefined ? Number(g.i2 ?? g.i3 ?? g.i4) : g.letter.charCodeAt(0) - 97;
  const partition = g.n1 ?? g.n2 ?? g.n3 ?? g.n4;
  return { disk, index, partition: partition === undefined ? undefined : Number(partition) };
}

/**
 * Builds the function that tells which device an fstab name means here, or undefined when it is not on these disks.
 * Kernel names such as /dev/sdb1 belong to the old hardware: the disk of the root entry tells what they mean; without
 * one the only disk is the first letter, and of several each name goes to the one that has what it mounts (old-names.ts).
 */
export function deviceResolver(
  probe: Probe,
  entries: readonly FstabEntry[],
  rootDevice: string,
  names: ReadonlyMap<string, string>,
): (spec: string) => string | undefined {
  const byField = (field: string, value: string) =>
    [...probe.contents].find(([, f]) => f.get(field)?.toLowerCase() === value.toLowerCase())?.[0];
  const disks = [...probe.tables.keys()].sort();
  const onDisk = (disk: string | undefined, partition: number | undefined) => {
    if (disk === undefined) return undefined;
    if (partition === undefined) return disk;
    return probe.tables.get(disk)?.partitions.find((p) => p.number === partition)?.device;
  };
  const rootDisk = disks.find((d) => probe.tables.get(d)?.partitions.some((p) => p.device === rootDevice));
  const rootEntry = entries.find((e) => e.path === '/');
  const rootName = rootEntry === undefined ? undefined : bareName(rootEntry.spec);
  const old = disks.length > 1 ? oldDiskNames(probe, entries, rootDevice, names) : undefined;
  return (spec) => {
    const tag = /^(UUID|LABEL|PARTUUID|PARTLABEL)=["']?([^"']*)["']?$/.exec(spec);
    if (tag !== null) {
      const field = tag[1] === 'PARTLABEL' ? 'PARTLABEL' : (tag[1] ?? '');
      return byField(field, tag[2] ?? '');
    }
    const link = /^\/dev\/disk\/by-(uuid|label|partuuid|partlabel)\/(.+)$/.exec(spec);
    if (link !== null) return byField((link[1] ?? '').toUpperCase(), link[2] ?? '');
    const named = /^\/dev\/disk\/by-(?:id|path)\/.*-part(\d+)$/.exec(spec);
    if (named !== null) return onDisk(disks.length === 1 ? disks[0] : rootDisk, Number(named[1]));
    if (probe.blocks.some((b) => b.mapperName !== undefined && b.device === spec)) return spec;
    const volume = /^\/dev\/([^/]+)\/([^/]+)$/.exec(spec);
    if (volume !== null) {
      const group = probe.volumeGroups.find((g) => g.name === volume[1]);
      const found = group?.logicalVolumes.find((l) => l.name === volume[2]);
      if (found !== undefined) return found.device;
    }
    if (/^\/dev\/md/.test(spec)) return probe.contents.has(spec) ? spec : undefined;
    const bare = bareName(spec);
    if (bare === undefined) return undefined;
    if (old !== undefined) return onDisk(old.get(bare.disk), bare.partition);
    if (rootName !== undefined) {
      return bare.disk === rootName.disk ? onDisk(rootDisk, bare.partition) : undefined;
    }
    return onDisk(disks[bare.index], bare.partition);
  };
}
