/** Disks, firmware kind, volume groups and file systems, with the place of each on the disks. */
import type { DeviceExtent, Facts, Filesystem } from '../../core/facts.ts';
import type { CapturedDisk } from '../../core/types.ts';
import { BIOS_BOOT_TYPE, ESP_TYPE } from '../../tools/sfdisk.ts';
import { DiskSets, diskIndex } from './disk-sets.ts';
import type { BlockDevice, Probe } from './probe.ts';

const DEPTH = 16;
/** Content that is part of something else. */
const MEMBERS = new Set(['LVM2_member', 'linux_raid_member']);

/** Where the bytes of `device` lie on the disks, in device order; undefined when they are not linear there. */
export function extentsOf(probe: Probe, device: string): DeviceExtent[] | undefined {
  const block = probe.blocks.find((b) => b.device === device);
  return block === undefined ? undefined : resolve(probe, block, 0, block.sizeBytes, 0);
}

function resolve(
  probe: Probe,
  block: BlockDevice,
  from: number,
  length: number,
  depth: number,
): DeviceExtent[] | undefined {
  if (depth > DEPTH || from < 0 || length <= 0 || from + length > block.sizeBytes) return undefined;
  if (block.startBytes !== undefined) {
    const disk = probe.blocks.find((b) => b.device === block.device.replace(/p?\d+$/, ''));
    if (disk === undefined) return undefined;
    return shift(resolve(probe, disk, block.startBytes + from, length, depth + 1), -block.startBytes);
  }
  const disk = diskIndex(block.device);
  if (disk !== undefined) return [{ startBytes: from, lengthBytes: length, disk, diskOffsetBytes: from }];
  if (block.mapperName === undefined) return undefined;
  const runs = probe.mappings.get(block.mapperName);
  if (runs === undefined) return undefined;
  const extents: DeviceExtent[] = [];
  for (const run of runs) {
    const start = Math.max(from, run.startBytes);
    const end = Math.min(from + length, run.startBytes + run.lengthBytes);
    if (end <= start) continue;
    const below = probe.blocks.find((b) => b.number === run.device);
    if (below === undefined) return undefined;
    const delta = run.startBytes - run.offsetBytes;
    const part = shift(resolve(probe, below, start - delta, end - start, depth + 1), delta);
    if (part === undefined) return undefined;
    extents.push(...part);
  }
  extents.sort((a, b) => a.startBytes - b.startBytes);
  let at = from;
  for (const extent of extents) {
    if (extent.startBytes !== at) return undefined;
    at += extent.lengthBytes;
  }
  return at === from + length ? extents : undefined;
}

function shift(extents: DeviceExtent[] | undefined, by: number): DeviceExtent[] | undefined {
  return extents?.map((e) => ({ ...e, startBytes: e.startBytes + by }));
}

/** Disks with their tables, in the order of the appliance. What they are for is found later. */
export function diskFacts(
  probe: Probe,
  captured: readonly Pick<CapturedDisk, 'id' | 'path' | 'format' | 'virtualBytes'>[],
): Facts['disks'] {
  return [...probe.tables]
    .sort(([a], [b]) => a.localeCompare(b))
    .map(([device, table], i) => ({
      id: captured[i]?.id ?? `disk${i}`,
      use: 'system',
      path: captured[i]?.path ?? device,
      format: captured[i]?.format ?? 'raw',
      virtualBytes:
        probe.blocks.find((b) => b.device === device)?.sizeBytes ?? captured[i]?.virtualBytes ?? 0,
      ...table,
    }));
}

/**
 * UEFI when a GPT disk has an EFI system partition and none has a BIOS boot partition. Disks made for both boot by
 * either; they are called BIOS here, because the BIOS part has no fallback to prove itself by. An MBR disk is BIOS.
 */
export function firmwareOf(disks: Facts['disks']): 'bios' | 'uefi' {
  const gpt = disks.filter((d) => d.table === 'gpt').flatMap((d) => d.partitions);
  if (gpt.some((p) => p.type === BIOS_BOOT_TYPE)) return 'bios';
  return gpt.some((p) => p.type === ESP_TYPE) ? 'uefi' : 'bios';
}

/** Volume groups as facts. */
export function volumeGroupFacts(probe: Probe): Facts['volumeGroups'] {
  const sets = new DiskSets(probe);
  return probe.volumeGroups.map(({ name, uuid, physicalVolumes, logicalVolumes }) => ({
    name,
    uuid,
    physicalVolumes,
    logicalVolumes,
    disks: [...new Set(physicalVolumes.flatMap((d) => sets.of(d)))].sort((a, b) => a - b),
  }));
}

function isDirty(probe: Probe, block: BlockDevice, type: string): boolean | undefined {
  if (type.startsWith('ext')) {
    const header = probe.ext.get(block.device);
    return header === undefined ? undefined : /^Filesystem features:.*\bneeds_recovery\b/m.test(header);
  }
  if (type !== 'xfs') return undefined;
  return probe.recovery.includes(`XFS (${block.kernelName}): Starting recovery`);
}

/** File systems, swap and encrypted volumes. */
export function filesystemFacts(probe: Probe): Filesystem[] {
  const sets = new DiskSets(probe);
  return [...probe.contents].flatMap(([device, fields]) => {
    const type = fields.get('TYPE');
    const block = probe.blocks.find((b) => b.device === device);
    if (type === undefined || block === undefined || MEMBERS.has(type)) return [];
    const space = probe.space.get(device);
    const map = extentsOf(probe, device);
    const dirty = isDirty(probe, block, type);
    const partUuid = fields.get('PARTUUID');
    return [
      {
        device,
        type,
        uuid: fields.get('UUID') ?? '',
        label: fields.get('LABEL') ?? fields.get('LABEL_FATBOOT') ?? '',
        ...(partUuid === undefined ? {} : { partUuid }),
        sizeBytes: block.sizeBytes,
        disks: sets.of(device),
        ...(space === undefined
          ? {}
          : {
              usedBytes: space.sizeBytes - space.freeBytes,
              freeBytes: space.freeBytes,
              freeInodes: space.freeInodes,
            }),
        ...(dirty === undefined ? {} : { dirty }),
        ...(map === undefined ? {} : { map }),
      },
    ];
  });
}
