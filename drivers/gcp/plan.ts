/** Everything that can refuse an upload, asked before any long work. */
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { imageDisks } from '../../core/work-disks.ts';
import type { GceImage } from '../../tools/gcp/compute.ts';
import { gceArchitecture } from './image.ts';
import type { GcpOptions } from './options.ts';
import {
  baseName,
  type Context,
  FAMILY_LABEL,
  familyOf,
  imageName,
  JOB_LABEL,
  objectName,
  type Services,
} from './place.ts';

/** What the upload will do. */
export interface GcpPlan {
  family: string;
  /** Names of images of ours that the new one replaces. */
  older: string[];
}

/** Throws CLOUD_LOGIN, CLOUD_REFUSED, CLOUD_CONFLICT, CLOUD, USAGE. */
export async function planUpload(ctx: Context, { compute, bucket }: Services): Promise<GcpPlan> {
  const { options, signal } = ctx;
  gceArchitecture(ctx.facts.os.arch);
  const disks = [undefined, ...imageDisks(ctx.facts).flatMap((d) => (d.boots ? [] : [d.id]))];
  const quota = await compute.imageQuota(signal);
  if (quota !== undefined && quota.usage + disks.length > quota.limit) {
    throw new PortError(
      'CLOUD_REFUSED',
      `the project ${options.project} has ${quota.usage} of ${quota.limit} allowed images`,
      { hint: 'remove older images, or ask for a larger quota of the project (IMAGES)' },
    );
  }
  await bucket.probe(`${options.prefix}/${ctx.mark}/probe`, signal);
  const older: string[] = [];
  for (const disk of disks) {
    const family = familyOf(ctx, disk);
    const ours = await compute.labelled(FAMILY_LABEL, family, signal);
    const others = ours.filter((i) => i.labels[JOB_LABEL] !== ctx.mark && i.deprecated === undefined);
    const taken = await compute.image(baseName(ctx, disk), signal);
    const foreign = taken !== undefined && taken.labels[JOB_LABEL] !== ctx.mark ? taken : undefined;
    if (options.onExists === 'fail' && (foreign ?? others[0]) !== undefined)
      refuse(options, foreign ?? others[0]);
    older.push(...others.map((i) => i.name));
    ctx.change({
      path: `gs://${bucket.name}/${objectName(ctx, disk)}`,
      action: 'create',
      why: options.keepObject
        ? 'the archive an image is made of'
        : 'the archive an image is made of, removed after',
    });
    ctx.change({
      path: `projects/${options.project}/global/images/${imageName(ctx, disk)}`,
      action: 'create',
      why: `image of the family ${family}`,
    });
  }
  for (const name of older) {
    ctx.change({
      path: `projects/${options.project}/global/images/${name}`,
      action: options.onExists === 'replace' ? 'remove' : 'edit',
      why: options.onExists === 'replace' ? 'replaced by the new image' : 'deprecated: an older version',
    });
  }
  return { family: familyOf(ctx, undefined), older };
}

/** Throws CLOUD_CONFLICT. */
export function refuse({ project }: GcpOptions, image: GceImage | undefined): never {
  throw new PortError(
    'CLOUD_CONFLICT',
    `the project ${project} has an image ${printable(image?.name ?? '')} already`,
    { hint: 'take onExists new-version, or another --name' },
  );
}
