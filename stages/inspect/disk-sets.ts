/** Which disks are below a device: partitions, volume groups, arrays, file systems over several disks. */
import type { BlockDevice, Probe } from './probe.ts';

const DEPTH = 16;

/** `/dev/sda` is disk 0. */
export function diskIndex(device: string): number | undefined {
  const letter = /^\/dev\/[shv]d([a-z])$/.exec(device)?.[1];
  return letter === undefined ? undefined : letter.charCodeAt(0) - 97;
}

/** Disks below a device, however it is made of them. */
export class DiskSets {
  readonly #probe: Probe;
  readonly #arrays = new Map<string, string[]>();

  constructor(probe: Probe) {
    this.#probe = probe;
    for (const match of probe.mdstat.matchAll(/^(md\S+) : (.*)$/gm)) {
      const members = [...(match[2] ?? '').matchAll(/(\S+)\[\d+\]/g)].map((m) => m[1]);
      const devices = members.flatMap((m) => probe.blocks.find((b) => b.kernelName === m)?.device ?? []);
      this.#arrays.set(`/dev/${match[1]}`, devices);
    }
  }

  of(device: string, depth = 0): number[] {
    if (depth > DEPTH) return [];
    const disk = diskIndex(device);
    if (disk !== undefined) return [disk];
    const below = this.#below(device).flatMap((d) => this.of(d, depth + 1));
    return [...new Set(below)].sort((a, b) => a - b);
  }

  #below(device: string): string[] {
    const { volumeGroups, blocks, mappings } = this.#probe;
    const group = volumeGroups.find((g) => g.logicalVolumes.some((l) => l.device === device));
    if (group !== undefined) return group.physicalVolumes;
    const array = this.#arrays.get(device);
    if (array !== undefined) return array;
    const block = blocks.find((b): b is BlockDevice => b.device === device);
    if (block?.partition !== undefined) return [device.replace(/p?\d+$/, '')];
    const runs = block?.mapperName === undefined ? undefined : mappings.get(block.mapperName);
    return (runs ?? []).flatMap((r) => blocks.find((b) => b.number === r.device)?.device ?? []);
  }

  /** Sets of disks that make no sense without each other: of a volume group, an array, a btrfs over several. */
  tied(): number[][] {
    const { volumeGroups, contents } = this.#probe;
    const sets = volumeGroups.map((g) => g.physicalVolumes.flatMap((d) => this.of(d)));
    for (const members of this.#arrays.values()) sets.push(members.flatMap((d) => this.of(d)));
    const byUuid = new Map<string, number[]>();
    for (const [device, fields] of contents) {
      const type = fields.get('TYPE');
      if (type !== 'btrfs' && type !== 'linux_raid_member') continue;
      const key = `${type} ${fields.get('UUID')}`;
      byUuid.set(key, [...(byUuid.get(key) ?? []), ...this.of(device)]);
    }
    return [...sets, ...byUuid.values()];
  }
}
