/** Which names of block devices die with the machine they were written on, and which file system they meant. */
import type { Facts, Filesystem } from '../core/facts.ts';

/** What a device name in a configuration file of the guest turned out to be. */
export type ResolvedDevice =
  /** The name does not depend on the hardware (UUID, label, LVM, md, network, pseudo file system). */
  | { kind: 'stable' }
  /** The name does not depend on the hardware, but nothing on the captured disks has it. */
  | { kind: 'absent' }
  /** A disk drive with removable media. */
  | { kind: 'removable' }
  /** A hardware name, and the file system behind it; `spec` is `UUID=…` or `PARTUUID=…`. */
  | { kind: 'known'; spec: string; filesystem: Filesystem }
  /** A hardware name of something that was not captured, or cannot be told. */
  | { kind: 'unknown' };

interface DiskName {
  /** Name without the partition: `sda`, `nvme0n1`, `cciss/c0d0`, `disk/by-id/ata-X`. */
  disk: string;
  /** Position the name suggests; undefined for names by identity or path. */
  index: number | undefined;
  partition: number | undefined;
}

function lettersToIndex(letters: string): number {
  let index = 0;
  for (const letter of letters) index = index * 26 + letter.charCodeAt(0) - 96;
  return index - 1;
}

function numberOf(text: string | undefined): number | undefined {
  return text === undefined || text === '' ? undefined : Number(text);
}

/** Takes a hardware name apart, or returns undefined when it is none. */
export function parseDiskName(device: string): DiskName | undefined {
  if (!device.startsWith('/dev/')) return undefined;
  const name = device.slice('/dev/'.length);
  let match = /^((?:sd|hd|vd|xvd)([a-z]{1,3}))(\d*)$/.exec(name);
  if (match) {
    return { disk: match[1] ?? '', index: lettersToIndex(match[2] ?? ''), partition: numberOf(match[3]) };
  }
  match = /^(nvme(\d+)n\d+|mmcblk(\d+)|pmem(\d+)|(?:cciss|ida|rd)\/c\d+d(\d+))(?:p(\d+))?$/.exec(name);
  if (match) {
    return {
      disk: match[1] ?? '',
      index: numberOf(match[2] ?? match[3] ?? match[4] ?? match[5]),
      partition: numberOf(match[6]),
    };
  }
  match = /^(disk\/by-(id|path)\/(.+?))(?:-part(\d+))?$/.exec(name);
  if (match && !/^(?:dm-name|dm-uuid|md-name|md-uuid|lvm-pv-uuid)-/.test(match[3] ?? '')) {
    return { disk: match[1] ?? '', index: undefined, partition: numberOf(match[4]) };
  }
  return undefined;
}

function isRemovable(device: string): boolean {
  return /^\/dev\/(?:sr\d+|scd\d+|cdrom\w*|dvd\w*|cdrw\w*|fd\d+\w*|floppy\w*)$/.test(device);
}

function sameType(wanted: string | undefined, found: string): boolean {
  if (wanted === undefined || wanted === '' || wanted === 'auto') return true;
  const kind = (type: string) =>
    type
      .replace(/^ext[234]$/, 'ext')
      .replace(/^(?:msdos|fat|umsdos)$/, 'vfat')
      .replace(/^swsuspend$/, 'swap');
  return wanted.split(',').some((type) => kind(type) === kind(found));
}

/** What names are resolved by. */
export type NameFacts = Pick<Facts, 'disks' | 'filesystems' | 'mounts'> &
  Partial<Pick<Facts, 'volumeGroups'>>;

/** Resolves device names of one guest. Ask `learn` first with what its fstab says, then `resolve`. */
export class DeviceNames {
  readonly #facts: NameFacts;
  /** Guest disk name to index of facts.disks. */
  readonly #learned = new Map<string, number>();

  constructor(facts: NameFacts) {
    this.#facts = facts;
  }

  #mounted(mountPoint: string): string | undefined {
    const device = this.#facts.mounts.find((m) => m.path === mountPoint)?.device;
    if (device === undefined) return undefined;
    return this.#facts.filesystems.find(
      (f) => device === f.device || device.startsWith(`btrfsvol:${f.device}/`),
    )?.device;
  }

  #partitionAt(device: string): { disk: number; number: number } | undefined {
    for (const [disk, { partitions }] of this.#facts.disks.entries()) {
      const partition = partitions.find((p) => p.device === device);
      if (partition !== undefined) return { disk, number: partition.number };
    }
    return undefined;
  }

  /** Remembers which captured disk a name means, from a mount point the inspection has identified. */
  learn(device: string, mountPoint: string): void {
    const name = parseDiskName(device);
    const mounted = this.#mounted(mountPoint);
    const partition = mounted === undefined ? undefined : this.#partitionAt(mounted);
    if (name?.partition !== undefined && partition?.number === name.partition) {
      this.#learned.set(name.disk, partition.disk);
    }
  }

  #diskIndex(name: DiskName): number | undefined {
    const learned = this.#learned.get(name.disk);
    if (learned !== undefined) return learned;
    const { disks } = this.#facts;
    const byId = disks.findIndex((d) => d.id === name.disk);
    if (byId !== -1) return byId;
    // of several disks the place in a list says nothing about their names on the old machine
    const index = disks.length === 1 ? (name.index ?? 0) : undefined;
    // A name by position loses to one that is known to be that disk; two identities may be of one disk.
    const taken = [...this.#learned].some(
      ([disk, at]) =>
        at === index && name.index !== undefined && parseDiskName(`/dev/${disk}`)?.index !== undefined,
    );
    return taken ? undefined : index;
  }

  /** What `device` means; `type` and `mountPoint`, where the file tells them, guard against mistakes. */
  resolve(device: string, type?: string, mountPoint?: string): ResolvedDevice {
    if (isRemovable(device)) return { kind: 'removable' };
    const name = parseDiskName(device);
    if (name === undefined) return this.#resolveStable(device);
    const mounted = mountPoint === undefined ? undefined : this.#mounted(mountPoint);
    const path = mounted ?? this.#devicePath(name);
    // What is mounted elsewhere is not meant here: `/dev/sda1` for a USB stick, on a server that boots from NVMe.
    const elsewhere = this.#facts.mounts.some((m) => m.device === path && m.path !== mountPoint);
    if (mountPoint !== undefined && mounted === undefined && elsewhere) return { kind: 'unknown' };
    const filesystem = this.#facts.filesystems.find((f) => f.device === path);
    if (filesystem === undefined || !sameType(type, filesystem.type)) return { kind: 'unknown' };
    if (filesystem.uuid !== '') return { kind: 'known', spec: `UUID=${filesystem.uuid}`, filesystem };
    if (filesystem.partUuid) return { kind: 'known', spec: `PARTUUID=${filesystem.partUuid}`, filesystem };
    return { kind: 'unknown' };
  }

  /** The file system or swap a name of any kind means, when it is on the captured disks. */
  find(device: string): Filesystem | undefined {
    const resolved = this.resolve(device);
    if (resolved.kind === 'known') return resolved.filesystem;
    const tag = /^(UUID|LABEL|PARTUUID)=["']?([^"']*)["']?$/.exec(device);
    const link = /^\/dev\/disk\/by-(uuid|label|partuuid)\/(.+)$/.exec(device);
    const kind = (tag?.[1] ?? link?.[1])?.toLowerCase();
    const wanted = (tag?.[2] ?? link?.[2] ?? '').toLowerCase();
    const volume = this.#facts.volumeGroups
      ?.flatMap((g) => g.logicalVolumes.map((l) => ({ name: `/dev/${g.name}/${l.name}`, device: l.device })))
      .find((l) => l.name === device)?.device;
    return this.#facts.filesystems.find((f) => {
      if (kind === undefined) return f.device === (volume ?? device);
      const value = kind === 'uuid' ? f.uuid : kind === 'label' ? f.label : (f.partUuid ?? '');
      return value !== '' && value.toLowerCase() === wanted;
    });
  }

  #devicePath(name: DiskName): string | undefined {
    const index = this.#diskIndex(name);
    const disk = index === undefined ? undefined : this.#facts.disks[index];
    if (disk === undefined || index === undefined) return undefined;
    if (name.partition === undefined) return `/dev/sd${String.fromCharCode(97 + index)}`;
    return disk.partitions.find((p) => p.number === name.partition)?.device;
  }

  #resolveStable(device: string): ResolvedDevice {
    const match = /^(UUID=|\/dev\/disk\/by-uuid\/)"?([^"]+)"?$/.exec(device);
    const wanted = match?.[2]?.toLowerCase();
    if (wanted === undefined) return { kind: 'stable' };
    return this.#facts.filesystems.some((f) => f.uuid.toLowerCase() === wanted)
      ? { kind: 'stable' }
      : { kind: 'absent' };
  }
}
