/**
 * The vocabulary, in one place. A conversion is:
 *
 *     source ──capture──▶ work disk (overlay) ──guest stages──▶ slim disk ──encode──▶ artifact per platform
 *        │                     │                                                        │
 *        └──inspect──▶ facts   └──strip──▶ data sets in the store     verify, upload ◀──┘
 *
 * The schemas live beside their subject: request.ts (what was asked), facts.ts (what was found), data-set.ts (what was
 * stripped), contract.ts (what the image says about itself), platform.ts (where it runs), stage.ts (one step).
 */

import type { PassRecord } from './capture-pass.ts';
import type { DataMode } from './data-set.ts';
import type { ByteRange } from './disk-source.ts';
import type { DiskUse } from './facts.ts';
import type { Inventory } from './inventory.ts';
import type { PackedMachine } from './packed-machine.ts';

export type { DiskUse, Facts } from './facts.ts';
export type { GuestFiles, GuestSession } from './guest.ts';
export type { Platform } from './platform.ts';
export type { Request } from './request.ts';
export type { Change, JobPaths, Progress, Stage, StageContext, StageName } from './stage.ts';

/** One disk that was captured: what an overlay stands on. */
export interface CapturedDisk {
  /** What `--disk` names: `sda`, `disk1`. */
  id: string;
  path: string;
  /** qemu-img format name. */
  format: string;
  /** Bytes of the file or device. */
  fileBytes: number;
  virtualBytes: number;
  /** Modification time in milliseconds; 0 for a device. */
  modifiedMs: number;
  /** True for a block device. */
  isDevice: boolean;
  /** True when the path is the job's own copy of the source. */
  copied: boolean;
  use: DiskUse;
  /** Offsets on the disk that could not be read; they read as zeros. */
  badRanges: ByteRange[];
}

/**
 * How far a copy is one of a single moment. `offline`: nothing wrote to the source. `frozen`: its file systems stood still.
 * `snapshot`: read from a snapshot. `crash-consistent`: one moment, as after a power cut. `live`: it may be torn.
 */
export const CONSISTENCIES = ['offline', 'frozen', 'snapshot', 'crash-consistent', 'live'] as const;
/** How far a copy is one of a single moment. */
export type Consistency = (typeof CONSISTENCIES)[number];

/** Result of capture. */
export interface CaptureResult {
  /** At least one; in the order the source names them, which means nothing. */
  disks: CapturedDisk[];
  consistency: Consistency;
  /** All passes that made the copies, oldest first; absent when nothing was read through a connection. */
  passes?: PassRecord[];
  /** Of the machine, when the source is one. */
  inventory?: Inventory;
  /** Virtual hardware a package told of. */
  hardware?: PackedMachine;
}

/** One disk of several in a container. */
export interface ArtifactMember {
  /** File name in the container. */
  name: string;
  /** Id of the disk it shows; absent for the one the firmware starts from. */
  disk?: string;
  virtualBytes: number;
}

/** One encoded image. */
export interface Artifact {
  platform: string;
  /** Id of the disk it shows; absent for the one the firmware starts from. */
  disk?: string;
  /** Absolute path. */
  path: string;
  /** qemu-img's name of the disk's format; of the disk inside when there is a container. */
  format: string;
  /** What the disk travels in; then `path` is no disk: `tools/container-disk.ts` opens it. */
  container?: 'gce-tar' | 'ova';
  /** Disks in an OVA, that of the system first. All disks of a machine are in one file, so it is one artifact. */
  members?: ArtifactMember[];
  bytes: number;
  /** Of the system's disk, when there are several. */
  virtualBytes: number;
  /** sha256 of the file, hex. */
  sha256: string;
  /** sha512 of the file, hex: what Glance calls os_hash_value. Absent in older jobs. */
  sha512?: string;
}

/** Where a kernel of the image has a module the platforms ask for. */
export interface ModuleListing {
  /** As in /lib/modules/VERSION. */
  kernel: string;
  /** True for the one the boot menu starts by itself. */
  isDefault: boolean;
  /** With `_`. */
  module: string;
  /** `initramfs` counts more than `image` (/lib/modules); `builtin` is in the kernel itself. */
  where: 'initramfs' | 'image' | 'builtin' | 'missing';
  /** Modules it needs that are not where it is. */
  lackingDependencies: string[];
}

/** One claim checked by the verification boot. */
export interface Check {
  name: string;
  ok: boolean;
  detail: string;
}

/** When a unit that needs a data set was active. */
export interface TimeToService {
  unit: string;
  /** From the start of the kernel. */
  seconds: number;
  /** How the image fetches the data set. */
  mode: DataMode;
  dataSet: string;
}

/** First access to a lazy data set. */
export interface LazyAccess {
  /** The data set. */
  id: string;
  /** From the start of the kernel. */
  seconds: number;
}

/** How something the platform needs was proven. */
export interface Claim {
  /** What it is about: `NVMe disk`, `Elastic Network Adapter`. */
  name: string;
  /**
   * `booted`: the image ran on it. `listed`: the drivers are where the default kernel must find them; no emulator has the device. `unproven`: nothing here can tell. `missing`: looked for and not there.
   */
  proof: 'booted' | 'listed' | 'unproven' | 'missing';
  detail: string;
}

/** Verification of one platform. */
export interface Verification {
  platform: string;
  /** Every check passed, and no claim is missing. */
  verified: boolean;
  checks: Check[];
  /** What of the platform was booted, listed or not proven. Absent in older jobs. */
  claims?: Claim[];
  seconds: number;
  serialLog: string;
  screenshot?: string;
  /** Earliest first. Only for images with data sets. */
  timeToService?: TimeToService[];
  /** In order of use: what a provision document should name as `prefetch`. */
  lazyAccess?: LazyAccess[];
}
