/** Where a job keeps the edited disks: one overlay for each disk that becomes an image. */
import * as path from 'node:path';
import type { DiskUse, Facts } from './facts.ts';
import type { JobPaths } from './stage.ts';

/** An id as part of a file name or of the name of an image. */
export function fileId(id: string): string {
  return id.replace(/[^A-Za-z0-9._-]/g, '_').slice(0, 64);
}

/** Work disk of the disk with this index and id; a job of one disk has only `work.qcow2`. */
export function workDiskPath(paths: Pick<JobPaths, 'work'>, index: number, id: string): string {
  return index === 0 ? paths.work : path.join(path.dirname(paths.work), `work-${fileId(id)}.qcow2`);
}

/** A disk that becomes an image. */
export interface ImageDisk {
  id: string;
  /** Index in `facts.disks`. */
  index: number;
  /** True for the one the firmware starts from. */
  boots: boolean;
}

/** A disk that becomes an image, and the edited form of it. */
export interface WorkDisk extends ImageDisk {
  /** qcow2 overlay with the edits. */
  path: string;
}

/** The disks that become images, the one the firmware starts from first. */
export function imageDisks({ disks, bootDisk }: Pick<Facts, 'disks' | 'bootDisk'>): ImageDisk[] {
  return disks
    .map(({ id, use }, index) => ({ id, index, boots: index === bootDisk, use }))
    .filter((d) => d.boots || d.use !== 'data')
    .sort((a, b) => Number(b.boots) - Number(a.boots))
    .map(({ use: _use, ...disk }) => disk);
}

/** The same with the paths of their overlays. */
export function workDisks(
  paths: Pick<JobPaths, 'work'>,
  facts: Pick<Facts, 'disks' | 'bootDisk'>,
): WorkDisk[] {
  return imageDisks(facts).map((disk) => ({ ...disk, path: workDiskPath(paths, disk.index, disk.id) }));
}

/** What the disks of a file system or volume group are for; those of one are all for the same. */
export function useOf(
  facts: Pick<Facts, 'disks'>,
  thing: { disks?: readonly number[] | undefined },
): DiskUse {
  return facts.disks[thing.disks?.[0] ?? -1]?.use ?? 'system';
}

/** Mount points on disks of this use. */
export function mountsOn(
  facts: Pick<Facts, 'disks' | 'filesystems' | 'mounts'>,
  use: DiskUse,
): Facts['mounts'] {
  return facts.mounts.filter(({ device }) => {
    const filesystem = facts.filesystems.find((f) => f.device === device);
    return filesystem !== undefined && useOf(facts, filesystem) === use;
  });
}
