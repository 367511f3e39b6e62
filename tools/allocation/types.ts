/** Words of the allocation map. */
import type { ByteRange } from '../../core/disk-source.ts';
import type { ByteSource } from '../image-format/reader.ts';
import type { FreeSpace } from './free-space.ts';

/**
 * What is known about writers of the disk. `offline`: none; a file system that was not closed cleanly is read whole.
 * `frozen`: all file systems were frozen (fsfreeze, or a snapshot) and stay so while map and content are read.
 * `live`: in use. File systems may hold more than their metadata on disk tells, so the map only serves a pass that a
 * `frozen` or `offline` pass with a map of its own follows.
 */
export type DiskState =
  | 'offline'
  | 'frozen'
  | 'live'
  /** In use, not frozen, and no pass follows: what does not tell that it is in use (btrfs) is read whole. */
  | 'unheld'
  /** As `frozen` for file systems with these UUIDs (lower case), as `offline` for the others on the disk. */
  | { readonly frozen: ReadonlySet<string> };

/** How it is known what is in use. `whole`: nothing is known, all of it counts. */
export type Evidence = 'bitmap' | 'btree' | 'header' | 'extents' | 'whole';

/** A stretch of the disk that has one owner. */
export interface AllocationPart {
  /** Where it begins on the disk; for a logical volume in several pieces, where its first piece begins. */
  startBytes: number;
  sizeBytes: number;
  /** `ext4` (also ext2 and ext3), `xfs`, `btrfs`, `swap`, `lvm` (metadata), `lvm-free`, `lvm-volume`, `unpartitioned`, `unknown`, or what else was found. */
  kind: string;
  /** Printable. */
  label?: string;
  /** Printable. */
  uuid?: string;
  /** Bytes of it that are read. */
  allocatedBytes: number;
  how: Evidence;
  /** Why it counts whole, or what is special. Printable. */
  note?: string;
}

/** Which bytes of a disk have to be read. */
export interface AllocationMap {
  /** Ascending, not touching, multiples of 4096 but for the end of the disk. */
  ranges: ByteRange[];
  /** Sum of the ranges. */
  allocatedBytes: number;
  /** Every byte of the disk belongs to one part. */
  parts: AllocationPart[];
}

/** What a parser found in a window: offsets count from the window's start. */
export interface Found {
  parts: AllocationPart[];
  free: FreeSpace;
}

/** A parser. Throws DAMAGED for anything it does not fully understand; then the window counts whole. */
export type Parser = (part: ByteSource, state: DiskState) => Promise<Found>;
