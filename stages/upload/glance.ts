/** The way into a cloud: plan and upload of the openstack image. */
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import * as path from 'node:path';
import { Contract } from '../../core/contract.ts';
import { PortError } from '../../core/errors.ts';
import { exists, makeDir, sha256File, writeFileAtomic } from '../../core/files.ts';
import type { GlanceRequest } from '../../core/request.ts';
import type { StageContext } from '../../core/stage.ts';
import type { Artifact, Verification } from '../../core/types.ts';
import { openstack } from '../../drivers/openstack/index.ts';
import { imageProperties } from '../../drivers/openstack/properties.ts';
import { readSigningKey, signFile } from '../../drivers/openstack/signature.ts';
import { type GlanceResult, uploadImage } from '../../drivers/openstack/upload/index.ts';
import { type GlancePlan, planUpload } from '../../drivers/openstack/upload/plan.ts';
import { loadCloud } from '../../tools/openstack/config.ts';
import { CloudSession } from '../../tools/openstack/session.ts';
import { rawDigest } from './raw-digest.ts';

/** The request's part for Glance, where the openstack platform is among the wanted ones. */
export function glanceRequest(ctx: StageContext): GlanceRequest | undefined {
  return ctx.platforms?.some((p) => p.name === openstack.name) ? ctx.request.glance : undefined;
}

/** Where a job keeps its mark: made by chance, so that no other job, here or elsewhere, takes its images for its own. */
const MARK_FILE = 'upload-mark';
const MARK = /^[0-9a-f]{20}$/;

/** The mark of this job; made before anything of it is in a cloud. */
async function jobMark(ctx: StageContext): Promise<string> {
  const file = path.join(ctx.paths.data, MARK_FILE);
  if (await exists(file)) {
    const known = (await readFile(file, 'utf8')).trim();
    if (MARK.test(known)) return known;
  }
  const mark = randomBytes(10).toString('hex');
  await makeDir(ctx.paths.data);
  await writeFileAtomic(file, `${mark}\n`);
  return mark;
}

function artifactOf(ctx: StageContext): Artifact | undefined {
  return ctx.result<Artifact[]>('encode')?.find((a) => a.platform === openstack.name);
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
  const plan = await withSession(ctx, request.cloud, (session) =>
    planUpload(session, {
      name: ctx.request.name,
      request,
      jobId,
      bytes: artifactOf(ctx)?.bytes ?? 0,
      signal: ctx.signal,
      warn: ctx.warn,
    }),
  );
  ctx.change({
    path: `glance:${plan.cloud}/${ctx.request.name}`,
    action: 'create',
    why: `upload of the image (${plan.method}: ${plan.why}), visibility ${request.visibility}`,
  });
  for (const id of plan.replaces) {
    ctx.change(
      request.onExists === 'replace'
        ? { path: `glance:${plan.cloud}/${id}`, action: 'remove', why: 'replaced by the new image' }
        : { path: `glance:${plan.cloud}/${id}`, action: 'edit', why: 'hidden: an older version' },
    );
  }
  for (const id of plan.leftovers) {
    ctx.change({ path: `glance:${plan.cloud}/${id}`, action: 'remove', why: 'left by a run of this job' });
  }
  return plan;
}

/** Uploads the image. Throws as uploadImage. */
export async function uploadToGlance(ctx: StageContext, request: GlanceRequest): Promise<GlanceResult> {
  const artifact = artifactOf(ctx);
  if (artifact === undefined) throw new PortError('BUG', 'upload without an image for OpenStack');
  const contractFile = path.join(ctx.paths.data, 'contract.json');
  const contract = Contract.parse(JSON.parse(await readFile(contractFile, 'utf8')));
  const packages = ctx.result<{ packages: { name: string }[] }>('cloud-init')?.packages ?? [];
  const verification = ctx.result<Verification[]>('verify')?.find((v) => v.platform === openstack.name);
  const jobId = await jobMark(ctx);
  const properties = imageProperties({
    facts: ctx.facts,
    contract,
    boot: openstack.boot,
    agentAdded: packages.some((p) => p.name === 'qemu-guest-agent'),
    contractSha256: await sha256File(contractFile),
    virtualBytes: artifact.virtualBytes,
    verified: verification?.verified,
    jobId,
  });
  const signature = await sign(ctx, request, artifact);
  return withSession(ctx, request.cloud, (session) =>
    uploadImage(session, {
      file: artifact.path,
      bytes: artifact.bytes,
      sha256: artifact.sha256,
      sha512: artifact.sha512,
      format: artifact.format,
      name: ctx.request.name,
      properties,
      request,
      jobId,
      rawSha256: () => rawDigest(ctx, artifact),
      signature,
      signal: ctx.signal,
      onProgress: (event) => ctx.progress(event),
      warn: (text) => ctx.warn(text),
      log: ctx.log,
    }),
  );
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
