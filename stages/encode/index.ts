/** encode: each edited disk becomes one file per kind of image the platforms want. */
import * as z from 'zod';
import { PortError } from '../../core/errors.ts';
import { requireFreeSpace } from '../../core/files.ts';
import { Request } from '../../core/request.ts';
import { formatBytes, roundUp } from '../../core/sizes.ts';
import type { Stage, StageContext } from '../../core/stage.ts';
import { printable } from '../../core/text.ts';
import type { Artifact } from '../../core/types.ts';
import { workDisks } from '../../core/work-disks.ts';
import { DISKS_PER_CONTROLLER } from '../../tools/ova/descriptor.ts';
import { disksToEncode } from './job.ts';
import { type EncodePlan, neededBytes, type Output, planOutputs } from './plan.ts';
import { encodeAll } from './run.ts';

const Options = z.object({ encoding: Request.shape.encoding, compare: Request.shape.compare });

/** Four SCSI controllers of a machine, 15 disks each. */
const OVA_DISKS = 4 * DISKS_PER_CONTROLLER;

function refuseTooLarge(ctx: StageContext): void {
  const disks = workDisks(ctx.paths, ctx.facts);
  const hint = 'shrink the disk first or leave this platform out of --to';
  for (const { title, image } of ctx.platforms) {
    const { maxBytes, alignBytes, container } = image;
    if (container === 'ova' && disks.length > OVA_DISKS) {
      throw new PortError(
        'USAGE',
        `${title} takes at most ${OVA_DISKS} disks, this machine has ${disks.length}`,
      );
    }
    for (const { index, id } of disks) {
      const bytes = roundUp(ctx.facts.disks[index]?.virtualBytes ?? 0, alignBytes);
      if (maxBytes === undefined || bytes <= maxBytes) continue;
      const text = `${printable(id)} has ${formatBytes(bytes)}, ${title} takes at most ${formatBytes(maxBytes)}`;
      throw new PortError('USAGE', text, { hint });
    }
  }
}

const CONTAINER_NAMES = { 'gce-tar': 'a tar.gz', ova: 'an OVA' } as const;

/** Why there is an image of this disk. */
function whyOf(ctx: StageContext, output: Output): string {
  const inside = output.container === undefined ? '' : ` in ${CONTAINER_NAMES[output.container]}`;
  const why = `${output.format} image${inside} for ${output.platforms.join(', ')}`;
  if (output.disk === undefined) return why;
  const disk = ctx.facts.disks.find((d) => d.id === output.disk);
  const index = disk === undefined ? -1 : ctx.facts.disks.indexOf(disk);
  const held = ctx.facts.mounts.filter((m) =>
    ctx.facts.filesystems.some((f) => f.device === m.device && f.disks?.includes(index)),
  );
  const mounts =
    held.length === 0 ? 'nothing of it is mounted' : held.map((m) => printable(m.path)).join(', ');
  const other =
    disk?.use === 'image' ? '; --disk ID=data would make data sets of it, --disk ID=skip leaves it' : '';
  return `${why}, of disk ${printable(output.disk)} (${mounts})${other.replaceAll('ID', printable(output.disk))}`;
}

async function plan(ctx: StageContext): Promise<EncodePlan> {
  refuseTooLarge(ctx);
  const outputs = workDisks(ctx.paths, ctx.facts).flatMap(({ id, boots }) =>
    planOutputs(ctx.request, ctx.platforms, boots ? undefined : id),
  );
  const needed = neededBytes(outputs, ctx.facts, ctx.request);
  await requireFreeSpace(ctx.paths.dir, needed, 'writing the images');
  for (const output of outputs) {
    ctx.change({
      path: `out/${output.file}`,
      action: 'create',
      why: whyOf(ctx, output),
    });
  }
  return { outputs, neededBytes: needed };
}

function run(ctx: StageContext, { outputs }: EncodePlan): Promise<Artifact[]> {
  const { request, paths, facts, signal, log } = ctx;
  return encodeAll(
    {
      request,
      paths,
      facts,
      signal,
      log,
      progress: (event) => ctx.progress(event),
      warn: (text) => ctx.warn(text),
      disks: disksToEncode(ctx),
    },
    outputs,
  );
}

/** Writes, checks and compares the images. Result: one artifact per platform. */
export const stage: Stage<EncodePlan, Artifact[]> = {
  name: 'encode',
  summary: 'write the edited disk as image files and prove them equal to it',
  needs: ['capture', 'inspect'],
  inGuest: false,
  Options,
  plan,
  run,
};
