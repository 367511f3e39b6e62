/** Where things of a job are in Google Cloud, what they are called, and who is asked. */
import type { UploadContext } from '../../core/uploader.ts';
import { fileId } from '../../core/work-disks.ts';
import { GcsBucket } from '../../tools/gcp/bucket.ts';
import { ComputeApi, type Timing } from '../../tools/gcp/compute.ts';
import { googleAuth } from '../../tools/gcp/login.ts';
import { gceName } from './image.ts';
import type { GcpOptions } from './options.ts';

/** What the client is given. */
export type Context = UploadContext<GcpOptions>;

/** Label with the mark of the job: what has it is ours. */
export const JOB_LABEL = 'port-image-job';
/** Label with the family: finds older images of ours. */
export const FAMILY_LABEL = 'port-image-family';

/** The services of one target. */
export interface Services {
  compute: ComputeApi;
  bucket: GcsBucket;
}

/** The services; asks nothing by itself. Close the bucket. `onRequest` is told of each attempt. */
export async function openServices(
  options: GcpOptions,
  timing: Timing,
  onRequest: () => void = () => {},
): Promise<Services> {
  const { project, endpoints } = options;
  const compute = new ComputeApi(await googleAuth(project), project, timing, endpoints.compute, onRequest);
  const bucket = await GcsBucket.open(options.bucket, { project, endpoint: endpoints.storage, onRequest });
  return { compute, bucket };
}

/** Uses the services; asks nothing by itself. */
export async function withServices<T>(
  options: GcpOptions,
  timing: Timing,
  use: (services: Services) => Promise<T>,
): Promise<T> {
  const services = await openServices(options, timing);
  try {
    return await use(services);
  } finally {
    await services.bucket.close();
  }
}

/** Digits of the mark in a name: two images of one day do not have the same. */
const MARK_CHARS = 6;

/** Base of the names: the system's own, or with the id of a further disk. */
export function baseName({ name }: Pick<Context, 'name'>, disk: string | undefined): string {
  return disk === undefined ? gceName(name) : gceName(name, fileId(disk));
}

/**
 * Names in a project are taken once: a version has its day and a piece of the job's mark in it, unless older images are
 * refused.
 */
export function imageName(ctx: Context, disk: string | undefined): string {
  const { version } = ctx.identity;
  if (ctx.options.onExists === 'fail' || version === undefined) return baseName(ctx, disk);
  return gceName(baseName(ctx, disk), `${version}-${ctx.mark.slice(0, MARK_CHARS)}`);
}

/** Family of an image. */
export const familyOf = (ctx: Context, disk: string | undefined): string =>
  disk === undefined && ctx.options.family !== undefined ? ctx.options.family : baseName(ctx, disk);

/** Objects of this job in the bucket have names no other job makes. */
export function objectName(ctx: Context, disk: string | undefined): string {
  return `${ctx.options.prefix}/${ctx.mark}/${baseName(ctx, disk)}.tar.gz`;
}
