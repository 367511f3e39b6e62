/** Packed sources: OVA, OVF and VMX folders, compressed images. Planned from their headers, unpacked under our names. */
export { findPackage, PACKED_KINDS, type PackedKind, packedKind } from './kind.ts';
export { PackedMachine } from './machine.ts';
export { planPacked } from './plan.ts';
export type { DiskExtent, DiskOrigin, PackedDisk, PackedPlan, UnpackedDisk, UnpackLimits } from './types.ts';
export { type UnpackOptions, unpack } from './unpack.ts';
