/** Which device of the appliance each name in fstab means. */
import { bareName, type FstabEntry } from './fstab-entries.ts';
import { oldDiskNames } from './old-names.ts';
import type { Probe } from './probe.ts';

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
