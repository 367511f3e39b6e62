/** encode: the edited disk becomes one file per kind of image the platforms want. */
import * as z from 'zod';
import { PortError } from '../../core/errors.ts';
import { requireFreeSpace } from '../../core/files.ts';
import { Request } from '../../core/request.ts';
import { formatBytes } from '../../core/sizes.ts';
import type { Stage, StageContext } from '../../core/stage.ts';
import type { Artifact } from '../../core/types.ts';
import { type EncodePlan, neededBytes, planOutputs } from './plan.ts';
import { encodeOutput } from './run.ts';

const Options = z.object({ encoding: Request.shape.encoding, compare: Request.shape.compare });

function refuseTooLarge(ctx: StageContext): void {
  const disk = ctx.facts.disks[0];
  for (const platform of ctx.platforms) {
    const { maxBytes } = platform.image;
    if (disk && maxBytes !== undefined && disk.virtualBytes > maxBytes) {
      throw new PortError(
        'USAGE',
        `the disk has ${formatBytes(disk.virtualBytes)}, ${platform.title} takes at most ${formatBytes(maxBytes)}`,
        { hint: 'shrink the disk first or leave this platform out of --to' },
      );
    }
  }
}

async function plan(ctx: StageContext): Promise<EncodePlan> {
  refuseTooLarge(ctx);
  const outputs = planOutputs(ctx.request, ctx.platforms);
  const needed = neededBytes(outputs, ctx.facts, ctx.request.strip);
  await requireFreeSpace(ctx.paths.dir, needed, 'writing the images');
  for (const output of outputs) {
    ctx.change({
      path: `out/${output.file}`,
      action: 'create',
      why: `${output.format} image for ${output.platforms.join(', ')}`,
    });
  }
  return { outputs, neededBytes: needed };
}

async function run(ctx: StageContext, { outputs }: EncodePlan): Promise<Artifact[]> {
  const artifacts: Artifact[] = [];
  // one after the other: each conversion keeps every core and the disk busy
  for (const output of outputs) artifacts.push(...(await encodeOutput(ctx, output)));
  return artifacts;
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
