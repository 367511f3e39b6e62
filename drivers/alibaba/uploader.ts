/** The way into Alibaba Cloud: the qcow2 into OSS by its S3 gate, one image of all disks imported from there. */
import { readFile } from 'node:fs/promises';
import * as z from 'zod';
import { PortError } from '../../core/errors.ts';
import { writeJson } from '../../core/files.ts';
import { shellWord } from '../../core/shell-word.ts';
import { printable } from '../../core/text.ts';
import type { Artifact } from '../../core/types.ts';
import type { CloudImage, UploadContext, Uploader } from '../../core/uploader.ts';
import { LOGIN_HINT, readAlibabaKey } from '../../tools/alibaba/credentials.ts';
import { EcsApi, type EcsImage, TIMING, type Timing } from '../../tools/alibaba/ecs.ts';
import { S3Bucket } from '../../tools/s3-put.ts';
import { ecsArchitecture, ecsName, importParameters } from './image.ts';
import { alibaba } from './index.ts';
import { AlibabaOptions } from './options.ts';

type Context = UploadContext<AlibabaOptions>;

/** Tag with the mark of the job: what has it is ours. */
const JOB_TAG = 'port-image-job';
const NAME_TAG = 'port-image-name';
/** Digits of the mark in a name: two images of one day do not have the same. */
const MARK_CHARS = 6;

/** What the upload will do. */
export interface AlibabaPlan {
  /** Ids of images of ours with this name that will be removed. */
  older: string[];
}

const State = z.object({ imageId: z.string(), taskId: z.string() });

interface Services {
  ecs: EcsApi;
  bucket: S3Bucket;
}

async function withServices<T>(
  options: AlibabaOptions,
  timing: Timing,
  use: (services: Services) => Promise<T>,
): Promise<T> {
  const { region, profile, endpoints } = options;
  const key = await readAlibabaKey(profile);
  const bucket = await S3Bucket.open({
    // https://www.alibabacloud.com/help/en/oss/developer-reference/compatibility-with-amazon-s3
    endpoint: endpoints.storage ?? `https://s3.oss-${region}.aliyuncs.com`,
    region: `oss-${region}`,
    bucket: options.bucket,
    // OSS wants the bucket in the host name; other gates are asked by path
    pathStyle: endpoints.storage !== undefined,
    credentials: {
      accessKeyId: key.id,
      secretAccessKey: key.secret,
      ...(key.token === undefined ? {} : { sessionToken: key.token }),
    },
    loginHint: LOGIN_HINT,
  });
  const ecs = await EcsApi.open(region, timing, { profile, endpoint: endpoints.compute });
  try {
    return await use({ ecs, bucket });
  } finally {
    bucket.close();
    await ecs.close();
  }
}

const folderOf = (ctx: Context): string => `${ctx.options.prefix}/${ctx.mark}`;

/** Names in a region are taken once: a version has its day and a piece of the mark in it, unless older ones are refused. */
function nameOf({ name, identity, options, mark }: Context): string {
  const isPlain = options.onExists === 'fail' || identity.version === undefined;
  return ecsName(name, isPlain ? '' : `${identity.version}-${mark.slice(0, MARK_CHARS)}`);
}

const tagOf = (image: EcsImage, key: string): string | undefined =>
  image.Tags.Tag.find((t) => t.TagKey === key)?.TagValue;

async function olderImages(ctx: Context, ecs: EcsApi): Promise<EcsImage[]> {
  const named = await ecs.images({ 'Tag.1.Key': NAME_TAG, 'Tag.1.Value': ctx.name }, ctx.signal);
  return named.filter((i) => tagOf(i, JOB_TAG) !== ctx.mark);
}

/** Throws CLOUD_LOGIN, CLOUD_REFUSED, CLOUD_CONFLICT, CLOUD, USAGE. */
async function plan(ctx: Context, { ecs, bucket }: Services): Promise<AlibabaPlan> {
  const { options, signal } = ctx;
  ecsArchitecture(ctx.facts.os.arch);
  const name = nameOf(ctx);
  await bucket.probe(`${folderOf(ctx)}/probe`, signal);
  const others = await olderImages(ctx, ecs);
  await refuseName(ctx, ecs, others);
  const place = `alibaba:${options.region}`;
  ctx.change({
    path: `${place}/${options.bucket}/${folderOf(ctx)}`,
    action: 'create',
    why: options.keepObject
      ? 'the files an image is made of'
      : 'the files an image is made of, removed after',
  });
  ctx.change({ path: `${place}/${name}`, action: 'create', why: `image, read by role ${options.roleName}` });
  const older = options.onExists === 'replace' ? others.map((i) => i.ImageId) : [];
  for (const id of older)
    ctx.change({ path: `${place}/${id}`, action: 'remove', why: 'replaced by the new image' });
  return { older };
}

async function refuseName(ctx: Context, ecs: EcsApi, others: readonly EcsImage[]): Promise<void> {
  if (ctx.options.onExists !== 'fail') return;
  const same = await ecs.images({ ImageName: nameOf(ctx) }, ctx.signal);
  const other = others[0] ?? same.find((i) => tagOf(i, JOB_TAG) !== ctx.mark);
  if (other === undefined) return;
  throw new PortError(
    'CLOUD_CONFLICT',
    `there is an image ${printable(other.ImageName)} already: ${printable(other.ImageId)}`,
    {
      hint: 'take onExists new-version, or another --name',
    },
  );
}

/** The image this job has there, if any; one that failed is removed. */
async function leftover({ mark, signal }: Context, ecs: EcsApi): Promise<string | undefined> {
  let found: string | undefined;
  for (const image of await ecs.images({ 'Tag.1.Key': JOB_TAG, 'Tag.1.Value': mark }, signal)) {
    if (image.Status === 'CreateFailed') await ecs.remove(image.ImageId, signal);
    else found ??= image.ImageId;
  }
  return found;
}

async function taskOf(ctx: Context, imageId: string): Promise<string | undefined> {
  try {
    const state = State.parse(JSON.parse(await readFile(ctx.stateFile, 'utf8')));
    return state.imageId === imageId ? state.taskId : undefined;
  } catch {
    // killed before it was written: the image itself is waited for
    return undefined;
  }
}

async function upload(ctx: Context, { ecs, bucket }: Services): Promise<CloudImage> {
  const { options, signal } = ctx;
  const main = ctx.artifacts.find((a) => a.disk === undefined);
  if (main === undefined) throw new PortError('BUG', 'upload without an image for Alibaba Cloud');
  const files = [main, ...ctx.artifacts.filter((a) => a !== main)].map((artifact) => ({
    artifact,
    key: `${folderOf(ctx)}/${artifact.sha256.slice(0, 16)}.qcow2`,
  }));
  let sentBytes = 0;
  let imageId = await leftover(ctx, ecs);
  if (imageId === undefined) {
    await refuseName(ctx, ecs, await olderImages(ctx, ecs));
    for (const file of files) sentBytes += await send(ctx, bucket, file.artifact, file.key);
    const begun = await ecs.importImage(
      importParameters({
        facts: ctx.facts,
        name: nameOf(ctx),
        description: printable(`${ctx.name} ${ctx.identity.version ?? ''}, made by port-image`).slice(0, 256),
        bucket: options.bucket,
        roleName: options.roleName,
        files,
        tags: { [JOB_TAG]: ctx.mark, [NAME_TAG]: ctx.name, 'port-image-sha256': main.sha256 },
      }),
      signal,
    );
    ({ imageId } = begun);
    await writeJson(ctx.stateFile, begun);
  }
  const image = await settle(ctx, ecs, imageId);
  if (!options.keepObject) for (const { key } of files) await bucket.remove(key, signal);
  return {
    platform: alibaba.name,
    place: options.region,
    id: imageId,
    name: image.ImageName,
    method: 'oss-import',
    bytes: files.reduce((sum, { artifact }) => sum + artifact.bytes, 0),
    sentBytes,
    content: 'unverifiable',
    proof:
      'each part was sent with its MD5 for OSS to compare; of the imported image Alibaba tells no digest',
    replaced: options.onExists === 'replace' ? await retire(ctx, ecs, image) : [],
    start: runInstances(ctx, imageId),
    disks: ctx.artifacts.flatMap(({ disk }) =>
      disk === undefined ? [] : [{ disk, id: imageId, name: image.ImageName }],
    ),
    details: options.keepObject ? { files: `${options.bucket}/${folderOf(ctx)}` } : {},
  };
}

/** Waits for the import; an image that failed is removed, so that the next run begins anew. */
async function settle(ctx: Context, ecs: EcsApi, imageId: string): Promise<EcsImage> {
  const task = await taskOf(ctx, imageId);
  const onProgress = (text: string) => ctx.progress({ text: `Alibaba: ${text}` });
  try {
    if (task !== undefined) await ecs.finished(task, ctx.signal, onProgress);
    return await ecs.usable(imageId, ctx.signal);
  } catch (error) {
    if (!ctx.signal.aborted) {
      await leftover(ctx, ecs).catch((failure: unknown) =>
        ctx.warn(`the failed image ${printable(imageId)} may be left behind: ${(failure as Error).message}`),
      );
    }
    throw error;
  }
}

async function send(ctx: Context, bucket: S3Bucket, artifact: Artifact, key: string): Promise<number> {
  let doneBytes = 0;
  return bucket.putFile({
    file: artifact.path,
    bytes: artifact.bytes,
    sha256: artifact.sha256,
    key,
    signal: ctx.signal,
    onBytes: (bytes) => {
      doneBytes += bytes;
      ctx.progress({ text: `sending ${ctx.name}`, doneBytes, totalBytes: artifact.bytes });
    },
  });
}

async function retire(ctx: Context, ecs: EcsApi, made: EcsImage): Promise<CloudImage['replaced']> {
  const replaced: CloudImage['replaced'] = [];
  for (const old of await olderImages(ctx, ecs)) {
    // One that came after ours, from another job, is not ours to remove.
    if (Date.parse(old.CreationTime) > Date.parse(made.CreationTime)) continue;
    try {
      await ecs.remove(old.ImageId, ctx.signal);
      replaced.push({ id: old.ImageId, action: 'deleted' });
    } catch (error) {
      if (ctx.signal.aborted) throw error;
      ctx.warn(`the older image ${printable(old.ImageId)} stays as it is: ${(error as Error).message}`);
      replaced.push({ id: old.ImageId, action: 'kept' });
    }
  }
  return replaced;
}

/** The command that starts an instance. One line, so that it can be copied; `aliyun` wants user data in base64. */
function runInstances({ options, name, userDataFile }: Context, imageId: string): string {
  const userData = userDataFile === undefined ? '' : ` --UserData "$(base64 -w0 ${shellWord(userDataFile)})"`;
  return `aliyun ecs RunInstances --RegionId ${options.region} --ImageId ${shellWord(imageId)} --InstanceType TYPE --VSwitchId VSWITCH --SecurityGroupId GROUP --InstanceName ${shellWord(name)}${userData}`;
}

/** Alibaba Cloud, with the pauses given. */
export function alibabaUploaderWith(timing: Timing): Uploader<AlibabaOptions, AlibabaPlan> {
  return {
    platform: alibaba.name,
    summary: 'an image in ECS, over a file in OSS',
    Options: AlibabaOptions,
    login: (options, signal) =>
      withServices(options, timing, async ({ ecs }) => {
        await ecs.images({ 'Tag.1.Key': JOB_TAG, 'Tag.1.Value': '-' }, signal);
      }),
    plan: (ctx) => withServices(ctx.options, timing, (services) => plan(ctx, services)),
    upload: (ctx) => withServices(ctx.options, timing, (services) => upload(ctx, services)),
  };
}

/** Alibaba Cloud: an image in ECS. */
export const alibabaUploader: Uploader<AlibabaOptions, AlibabaPlan> = alibabaUploaderWith(TIMING);
