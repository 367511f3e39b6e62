/** The way into an OpenStack cloud: one image per disk in Glance, that of the system last. */
import { PortError } from '../../core/errors.ts';
import { shellWord } from '../../core/shell-word.ts';
import { printable } from '../../core/text.ts';
import type { Artifact } from '../../core/types.ts';
import type { CloudImage, UploadContext, Uploader } from '../../core/uploader.ts';
import { fileId, imageDisks } from '../../core/work-disks.ts';
import { loadCloud } from '../../tools/openstack/config.ts';
import { CloudSession } from '../../tools/openstack/session.ts';
import { openstack } from './index.ts';
import { GlanceRequest } from './options.ts';
import { diskProperties, type ImageProperties, imageProperties } from './properties.ts';
import { readSigningKey, signFile } from './signature.ts';
import { type GlanceResult, uploadImage } from './upload/index.ts';
import { type GlancePlan, planUpload } from './upload/plan.ts';

type Context = UploadContext<GlanceRequest>;

/** Name of the image of a further disk. */
function nameOf(ctx: Context, disk: string | undefined): string {
  return disk === undefined ? ctx.name : `${ctx.name}-${fileId(disk)}`;
}

async function withSession<T>(
  cloud: string,
  signal: AbortSignal,
  use: (session: CloudSession) => Promise<T>,
): Promise<T> {
  const session = await CloudSession.open(await loadCloud(cloud), { signal });
  try {
    return await use(session);
  } finally {
    await session.close();
  }
}

/** Proves that the upload can work and records what it will do. Throws as planUpload. */
async function plan(ctx: Context): Promise<GlancePlan> {
  const { options, artifacts } = ctx;
  const further = imageDisks(ctx.facts).flatMap((d) => (d.boots ? [] : [d.id]));
  const plans = await withSession(options.cloud, ctx.signal, async (session) => {
    const all: GlancePlan[] = [];
    for (const disk of [undefined, ...further]) {
      all.push(
        await planUpload(session, {
          name: nameOf(ctx, disk),
          request: options,
          jobId: ctx.mark,
          bytes: artifacts.find((a) => a.disk === disk)?.bytes ?? 0,
          signal: ctx.signal,
          warn: ctx.warn,
        }),
      );
    }
    return all;
  });
  const [first] = plans;
  if (first === undefined) throw new PortError('BUG', 'nothing to upload');
  const place = `glance:${first.cloud}`;
  for (const id of further) {
    ctx.change({
      path: `${place}/${nameOf(ctx, id)}`,
      action: 'create',
      why: `upload of disk ${printable(id)} as an image to make a volume of`,
    });
  }
  ctx.change({
    path: `${place}/${ctx.name}`,
    action: 'create',
    why: `upload of the image (${first.method}: ${first.why}), visibility ${options.visibility}`,
  });
  for (const id of plans.flatMap((p) => p.replaces)) {
    ctx.change(
      options.onExists === 'replace'
        ? { path: `${place}/${id}`, action: 'remove', why: 'replaced by the new image' }
        : { path: `${place}/${id}`, action: 'edit', why: 'hidden: an older version' },
    );
  }
  for (const id of new Set(plans.flatMap((p) => p.leftovers))) {
    ctx.change({ path: `${place}/${id}`, action: 'remove', why: 'left by a run of this job' });
  }
  return first;
}

async function propertiesOf(ctx: Context, artifact: Artifact): Promise<ImageProperties> {
  if (ctx.contract === undefined) throw new PortError('BUG', 'upload without a contract');
  const whole = imageProperties({
    facts: ctx.facts,
    contract: ctx.contract,
    boot: openstack.boot,
    agentAdded: ctx.packages.includes('qemu-guest-agent'),
    contractSha256: ctx.contractSha256,
    virtualBytes: artifact.virtualBytes,
    verified: ctx.verified,
    jobId: ctx.mark,
  });
  return artifact.disk === undefined ? whole : diskProperties(whole, fileId(artifact.disk));
}

/** Uploads the images, that of the system last: when it is there, all are. Throws as uploadImage. */
async function upload(ctx: Context): Promise<CloudImage> {
  const { options, artifacts } = ctx;
  const main = artifacts.find((a) => a.disk === undefined);
  if (main === undefined) throw new PortError('BUG', 'upload without an image for OpenStack');
  return withSession(options.cloud, ctx.signal, async (session) => {
    const send = async (artifact: Artifact): Promise<GlanceResult> =>
      uploadImage(session, {
        file: artifact.path,
        bytes: artifact.bytes,
        sha256: artifact.sha256,
        sha512: artifact.sha512,
        format: artifact.format,
        name: nameOf(ctx, artifact.disk),
        properties: await propertiesOf(ctx, artifact),
        request: options,
        jobId: ctx.mark,
        rawSha256: () => ctx.rawSha256(artifact),
        signature: await sign(ctx, artifact),
        signal: ctx.signal,
        onProgress: (event) => ctx.progress(event),
        warn: (text) => ctx.warn(text),
        log: ctx.log,
      });
    const disks: CloudImage['disks'] = [];
    for (const artifact of artifacts) {
      if (artifact.disk === undefined) continue;
      const { imageId: id, name } = await send(artifact);
      disks.push({ disk: artifact.disk, id, name });
    }
    return cloudImage(ctx, await send(main), disks);
  });
}

function cloudImage(ctx: Context, glance: GlanceResult, disks: CloudImage['disks']): CloudImage {
  const { minDisk, minRam, properties, visibility, stores, hash } = glance;
  return {
    platform: openstack.name,
    place: glance.cloud,
    id: glance.imageId,
    name: glance.name,
    method: glance.method,
    bytes: glance.bytes,
    sentBytes: glance.bytes,
    content: glance.verified,
    proof: glance.proof,
    replaced: glance.replaced,
    start: serverCreate(ctx.name, glance, ctx.userDataFile),
    disks,
    details: {
      visibility,
      flavor: `disk of ${minDisk} GiB, ${minRam} MiB of memory`,
      ...(stores.length === 0 ? {} : { stores: stores.join(', ') }),
      ...(hash === undefined ? {} : { [hash.algorithm]: hash.value }),
      ...properties,
    },
  };
}

/** The command that starts an instance of an uploaded image. One line, so that it can be copied. */
function serverCreate(
  name: string,
  glance: Pick<GlanceResult, 'cloud' | 'imageId'>,
  userDataFile: string | undefined,
): string {
  const userData = userDataFile === undefined ? '' : ` --user-data ${shellWord(userDataFile)}`;
  return `openstack --os-cloud ${shellWord(glance.cloud)} server create --image ${glance.imageId} --flavor FLAVOR --network NETWORK --config-drive True${userData} ${shellWord(name)}`;
}

async function sign(ctx: Context, artifact: Artifact) {
  const { signKey, signCertificate } = ctx.options;
  if (signKey === undefined) return undefined;
  const key = await readSigningKey(signKey, signCertificate);
  return signFile(artifact.path, key, {
    signal: ctx.signal,
    onBytes: (doneBytes) =>
      ctx.progress({ text: 'signing the image', doneBytes, totalBytes: artifact.bytes }),
  });
}

/** OpenStack: an image in Glance. */
export const openstackUploader: Uploader<GlanceRequest, GlancePlan> = {
  platform: openstack.name,
  summary: 'an image in Glance, by PUT, import or over Swift',
  Options: GlanceRequest,
  login: (options, signal) =>
    withSession(options.cloud, signal, async (session) => {
      session.endpoint('image');
    }),
  plan,
  upload,
};
