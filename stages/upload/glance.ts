/** The way into a cloud: plan and upload of the openstack image. */
import { readFile } from 'node:fs/promises';
import * as path from 'node:path';
import { Contract } from '../../core/contract.ts';
import { PortError } from '../../core/errors.ts';
import { sha256File } from '../../core/files.ts';
import type { GlanceRequest } from '../../core/request.ts';
import type { StageContext } from '../../core/stage.ts';
import { printable } from '../../core/text.ts';
import type { Artifact, Verification } from '../../core/types.ts';
import { fileId, workDisks } from '../../core/work-disks.ts';
import { openstack } from '../../drivers/openstack/index.ts';
import { diskProperties, type ImageProperties, imageProperties } from '../../drivers/openstack/properties.ts';
import { readSigningKey, signFile } from '../../drivers/openstack/signature.ts';
import { type GlanceResult, uploadImage } from '../../drivers/openstack/upload/index.ts';
import { type GlancePlan, planUpload } from '../../drivers/openstack/upload/plan.ts';
import { loadCloud } from '../../tools/openstack/config.ts';
import { CloudSession } from '../../tools/openstack/session.ts';
import { jobMark } from './mark.ts';
import { rawDigest } from './raw-digest.ts';

/** The request's part for Glance, where the openstack platform is among the wanted ones. */
export function glanceRequest(ctx: StageContext): GlanceRequest | undefined {
  return ctx.platforms?.some((p) => p.name === openstack.name) ? ctx.request.glance : undefined;
}

/** The images for this cloud, the one the firmware starts from first. */
function artifactsOf(ctx: StageContext): Artifact[] {
  return (ctx.result<Artifact[]>('encode') ?? []).filter((a) => a.platform === openstack.name);
}

/** A further disk as an image of its own. */
export interface DiskImage extends GlanceResult {
  /** Id of the disk. */
  disk: string;
}

/** Name of the image of a further disk. */
function nameOf(ctx: StageContext, disk: string | undefined): string {
  return disk === undefined ? ctx.request.name : `${ctx.request.name}-${fileId(disk)}`;
}

async function withSession<T>(
  ctx: StageContext,
  cloud: string,
  use: (session: CloudSession) => Promise<T>,
): Promise<T> {
  const session = await CloudSession.open(await loadCloud(cloud), { signal: ctx.signal });
  try {
    return await use(session);
  } finally {
    await session.close();
  }
}

/** Proves that the upload can work and records what it will do. Throws as planUpload. */
export async function planGlance(ctx: StageContext, request: GlanceRequest): Promise<GlancePlan> {
  const jobId = await jobMark(ctx);
  const artifacts = artifactsOf(ctx);
  const further = workDisks(ctx.paths, ctx.facts).filter((d) => !d.boots);
  const plans = await withSession(ctx, request.cloud, async (session) => {
    const all: GlancePlan[] = [];
    for (const disk of [undefined, ...further.map((d) => d.id)]) {
      all.push(
        await planUpload(session, {
          name: nameOf(ctx, disk),
          request,
          jobId,
          bytes: artifacts.find((a) => a.disk === disk)?.bytes ?? 0,
          signal: ctx.signal,
          warn: ctx.warn,
        }),
      );
    }
    return all;
  });
  const [plan] = plans;
  if (plan === undefined) throw new PortError('BUG', 'nothing to upload');
  for (const { id } of further) {
    ctx.change({
      path: `glance:${plan.cloud}/${nameOf(ctx, id)}`,
      action: 'create',
      why: `upload of disk ${printable(id)} as an image to make a volume of`,
    });
  }
  ctx.change({
    path: `glance:${plan.cloud}/${ctx.request.name}`,
    action: 'create',
    why: `upload of the image (${plan.method}: ${plan.why}), visibility ${request.visibility}`,
  });
  for (const id of plans.flatMap((p) => p.replaces)) {
    ctx.change(
      request.onExists === 'replace'
        ? { path: `glance:${plan.cloud}/${id}`, action: 'remove', why: 'replaced by the new image' }
        : { path: `glance:${plan.cloud}/${id}`, action: 'edit', why: 'hidden: an older version' },
    );
  }
  for (const id of new Set(plans.flatMap((p) => p.leftovers))) {
    ctx.change({ path: `glance:${plan.cloud}/${id}`, action: 'remove', why: 'left by a run of this job' });
  }
  return plan;
}

/** Uploads the images, that of the system last: when it is there, all are. Throws as uploadImage. */
export async function uploadToGlance(
  ctx: StageContext,
  request: GlanceRequest,
): Promise<{ image: GlanceResult; disks: DiskImage[] }> {
  const artifacts = artifactsOf(ctx);
  const main = artifacts.find((a) => a.disk === undefined);
  if (main === undefined) throw new PortError('BUG', 'upload without an image for OpenStack');
  const contractFile = path.join(ctx.paths.data, 'contract.json');
  const contract = Contract.parse(JSON.parse(await readFile(contractFile, 'utf8')));
  const packages = ctx.result<{ packages: { name: string }[] }>('cloud-init')?.packages ?? [];
  const verification = ctx.result<Verification[]>('verify')?.find((v) => v.platform === openstack.name);
  const jobId = await jobMark(ctx);
  const propertiesOf = async (artifact: Artifact): Promise<ImageProperties> => {
    const whole = imageProperties({
      facts: ctx.facts,
      contract,
      boot: openstack.boot,
      agentAdded: packages.some((p) => p.name === 'qemu-guest-agent'),
      contractSha256: await sha256File(contractFile),
      virtualBytes: artifact.virtualBytes,
      verified: verification?.verified,
      jobId,
    });
    return artifact.disk === undefined ? whole : diskProperties(whole, fileId(artifact.disk));
  };
  return withSession(ctx, request.cloud, async (session) => {
    const send = async (artifact: Artifact): Promise<GlanceResult> =>
      uploadImage(session, {
        file: artifact.path,
        bytes: artifact.bytes,
        sha256: artifact.sha256,
        sha512: artifact.sha512,
        format: artifact.format,
        name: nameOf(ctx, artifact.disk),
        properties: await propertiesOf(artifact),
        request,
        jobId,
        rawSha256: () => rawDigest(ctx, artifact),
        signature: await sign(ctx, request, artifact),
        signal: ctx.signal,
        onProgress: (event) => ctx.progress(event),
        warn: (text) => ctx.warn(text),
        log: ctx.log,
      });
    const disks: DiskImage[] = [];
    for (const artifact of artifacts) {
      if (artifact.disk !== undefined) disks.push({ ...(await send(artifact)), disk: artifact.disk });
    }
    return { image: await send(main), disks };
  });
}

async function sign(ctx: StageContext, request: GlanceRequest, artifact: Artifact) {
  if (request.signKey === undefined) return undefined;
  const key = await readSigningKey(request.signKey, request.signCertificate);
  return signFile(artifact.path, key, {
    signal: ctx.signal,
    onBytes: (doneBytes) =>
      ctx.progress({ text: 'signing the image', doneBytes, totalBytes: artifact.bytes }),
  });
}
