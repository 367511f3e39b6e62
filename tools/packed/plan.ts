/** Looking into a package: headers and descriptors only. */
import { PortError } from '../../core/errors.ts';
import type { SourceFormat } from '../../core/request.ts';
import { printable } from '../../core/text.ts';
import { type OpenedSource, openSource } from '../image-format/open.ts';
import { planCompressed } from './compressed-plan.ts';
import { findPackage, type PackedKind } from './kind.ts';
import { planOva, planOvfFolder } from './ovf-plan.ts';
import type { PackedPlan } from './types.ts';
import { planVmdkDescriptor, planVmx } from './vmx-plan.ts';

/** What a planner finds. */
export type PlanParts = Pick<PackedPlan, 'disks' | 'machine'>;

const PLANNERS: Readonly<
  Record<
    PackedKind,
    (source: OpenedSource, warn: (text: string) => void, format?: SourceFormat) => Promise<PlanParts>
  >
> = {
  ova: planOva,
  ovf: planOvfFolder,
  vmx: planVmx,
  'vmdk-descriptor': planVmdkDescriptor,
  gzip: (source, _warn, format) => planCompressed(source, 'gzip', format),
  xz: (source, _warn, format) => planCompressed(source, 'xz', format),
  zstd: (source, _warn, format) => planCompressed(source, 'zstd', format),
};

/** Most warnings kept; a hostile package may cause one for each of its lines. */
const MAX_WARNINGS = 20;

/**
 * Reads the headers of a package whose kind was found by `packedKind`. `format` is what the user named for the image inside a
 * compressed file; packages say it themselves. Changes nothing, and reads no disk but the first MiB of
 * a compressed one. Throws UNSAFE_PATH, OUTSIDE_REFERENCE, UNSAFE_IMAGE, DAMAGED, NOT_A_DISK, EMPTY_DISK,
 * UNSUPPORTED_FORMAT, USAGE.
 */
export async function planPacked(file: string, kind: PackedKind, format?: SourceFormat): Promise<PackedPlan> {
  const found = await findPackage(file);
  if (found?.kind !== kind) {
    throw new PortError('SOURCE_CHANGED', `${printable(file)} is no ${kind} any more`, {
      hint: 'start again',
    });
  }
  const warnings: string[] = [];
  const source = await openSource(found.file);
  try {
    const parts = await PLANNERS[kind](
      source,
      (text) => {
        if (warnings.length < MAX_WARNINGS) warnings.push(text);
      },
      format,
    );
    return {
      kind,
      path: source.path,
      sizeBytes: source.sizeBytes,
      modifiedMs: source.modifiedMs,
      ...parts,
      warnings,
    };
  } finally {
    await source.close();
  }
}
