/** What a packed source holds, as data: planned from headers, unpacked later. */
import type { SourceFormat } from '../../core/request.ts';
import type { Compression } from './decompress.ts';
import type { PackedKind } from './kind.ts';
import type { Bus, PackedMachine } from './machine.ts';
import type { ExpectedDigest } from './manifest.ts';

/** Where the bytes of a disk are. */
export type DiskOrigin =
  /** A run of bytes in the package file: a member of an OVA, or the whole of a compressed file. */
  | { kind: 'member'; offsetBytes: number; sizeBytes: number }
  /** A file beside the descriptor. */
  | { kind: 'file'; path: string; sizeBytes: number; modifiedMs: number }
  /** A disk in pieces; `sizeBytes` is what they make together. */
  | { kind: 'extents'; extents: DiskExtent[]; sizeBytes: number };

/** A piece of a disk. */
export type DiskExtent =
  | { kind: 'zero'; sizeBytes: number }
  /** `flat`: the file is the content. `sparse`: a VMDK extent with grain tables. */
  | {
      kind: 'flat' | 'sparse';
      /** Absolute; beside the descriptor. */
      path: string;
      /** Bytes of content. */
      sizeBytes: number;
      /** Bytes of the file. */
      fileBytes: number;
      /** Milliseconds. */
      modifiedMs: number;
    };

/** A disk in a package. */
export interface PackedDisk {
  /** Ours, and its name in the folder it is unpacked to: `disk0`, `disk1`; in the order of their addresses. */
  id: string;
  /** Name inside the package; untrusted text. */
  name: string;
  origin: DiskOrigin;
  /** How its bytes are compressed as a whole. */
  compression: Compression | undefined;
  /** Bytes of its content as the package says before it is read; more is refused. */
  declaredBytes: number | undefined;
  /** Bytes of the virtual disk as the package says. */
  capacityBytes: number | undefined;
  /** Format as the package says; undefined leaves it to the content. */
  format: SourceFormat | undefined;
  bus: Bus;
  /** Number of the controller among those of its bus. */
  controller: number;
  /** Address on the controller. */
  unit: number;
  /** True for the disk the firmware would look at first. A hint: the facts of its content decide. */
  bootHint: boolean;
  /** Digests its bytes in the package must have. */
  digests: readonly ExpectedDigest[];
}

/** What is in a package, by its headers. */
export interface PackedPlan {
  kind: PackedKind;
  /** The package file or descriptor; absolute, links resolved. */
  path: string;
  sizeBytes: number;
  /** Milliseconds. */
  modifiedMs: number;
  disks: PackedDisk[];
  /** The hardware; undefined for a compressed image, which says nothing about it. */
  machine: PackedMachine | undefined;
  /** Printable lines. */
  warnings: string[];
}

/** Bounds of unpacking. */
export interface UnpackLimits {
  /** Most bytes of content of one disk; default 64 TiB, the largest disk there is. */
  maxBytes?: number | undefined;
  /** Bytes of the file system that stay free; default 1 GiB. */
  reserveBytes?: number | undefined;
}

/** A disk that was unpacked. */
export interface UnpackedDisk {
  /** As in the plan. */
  id: string;
  /** The file; absolute. It has not been looked at: the gate does. */
  path: string;
  sizeBytes: number;
  /** sha256 in hex as `sourceDigest` makes it (kind `blocks`). */
  blocksSha256: string;
  /** Format to name to the gate; undefined leaves it to the content. */
  format: SourceFormat | undefined;
  /** False when it was there already, whole and unchanged. */
  written: boolean;
}
