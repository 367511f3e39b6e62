/** Packed sources: OVA, OVF and VMX folders, compressed images. Planned from their headers, unpacked under our names. */
export { packedKind } from './kind.ts';
export { planPacked } from './plan.ts';
export type { PackedPlan } from './types.ts';
export { unpack } from './unpack.ts';
