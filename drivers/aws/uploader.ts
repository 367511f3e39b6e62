/** The way into AWS: each disk a snapshot by the EBS direct API, together an image. */
import * as path from 'node:path';
import type { BlockDeviceMapping, Image } from '@aws-sdk/client-ec2';
import { PortError } from '../../core/errors.ts';
import { shellWord } from '../../core/shell-word.ts';
import { printable } from '../../core/text.ts';
import type { Artifact } from '../../core/types.ts';
import type { CloudImage, Uploader } from '../../core/uploader.ts';
import { imageDisks } from '../../core/work-disks.ts';
import { readBlockJournal, type SnapshotRecord } from '../../tools/aws/block-journal.ts';
import { ebsClient } from '../../tools/aws/clients.ts';
import { AWS_TIMING, type AwsTiming, Ec2 } from '../../tools/aws/ec2.ts';
import { EBS_LANES, type PutSnapshot, putSnapshot } from '../../tools/aws/put-snapshot.ts';
import { aws } from './index.ts';
import {
  amiName,
  type Context,
  clientToken,
  isOurs,
  journalOf,
  MARK_TAG,
  NAME_TAG,
  snapshotDescription,
  tagOf,
  tagsOf,
} from './marks.ts';
import { AwsOptions } from './options.ts';

/** What was found out before the first edit. */
export interface AwsPlan {
  /** Earlier images of this name by this program. */
  versions: string[];
}

/** Architectures by the names of Debian and of RPM (API_RegisterImage Architecture). */
const ARCHITECTURES: Readonly<Record<string, 'x86_64' | 'arm64'>> = {
  amd64: 'x86_64',
  x86_64: 'x86_64',
  arm64: 'arm64',
  aarch64: 'arm64',
};
const ROOT_DEVICE = '/dev/sda1';
/** Names of further volumes (EC2 User Guide, "Device names for volumes"). */
const MORE_DEVICES = [...'fghijklmnop'].map((letter) => `/dev/sd${letter}`);

function architectureOf({ facts }: Context): 'x86_64' | 'arm64' {
  const known = Object.hasOwn(ARCHITECTURES, facts.os.arch) ? ARCHITECTURES[facts.os.arch] : undefined;
  if (known !== undefined) return known;
  throw new PortError('CLOUD_REFUSED', `EC2 has no machines for ${printable(facts.os.arch)}`);
}

/** Images of this name by this program, without those of this job. */
async function versionsOf(ctx: Context, ec2: Ec2): Promise<Image[]> {
  const all = await ec2.images(NAME_TAG, ctx.name);
  return all.filter((image) => tagOf(image, MARK_TAG) !== ctx.mark && isOurs(image, ctx.name));
}

async function plan(ctx: Context, ec2: Ec2): Promise<AwsPlan> {
  const { options, facts } = ctx;
  architectureOf(ctx);
  if (options.tpm && facts.firmware !== 'uefi') {
    throw new PortError('USAGE', 'aws.tpm needs an image that starts by UEFI, this server starts by BIOS');
  }
  const disks = imageDisks(facts);
  if (disks.length > MORE_DEVICES.length + 1) {
    throw new PortError('CLOUD_REFUSED', `an image takes at most ${MORE_DEVICES.length + 1} disks this way`);
  }
  if (options.parent !== undefined) await parentOf(ctx, undefined);
  await ec2.mayRegister(amiName(ctx));
  const versions = await versionsOf(ctx, ec2);
  refuse(ctx, versions);
  for (const { id, boots } of disks) {
    ctx.change({
      path: `aws:${options.region}/${ctx.name}${boots ? '' : `-${printable(id)}`}`,
      action: 'create',
      why: boots ? 'snapshot by the EBS direct API, registered as an image' : 'snapshot of a further disk',
    });
  }
  for (const region of options.copyTo) {
    ctx.change({ path: `aws:${region}/${ctx.name}`, action: 'create', why: 'copy of the image' });
  }
  if (options.onExists === 'replace') {
    for (const { ImageId } of versions) {
      ctx.change({
        path: `aws:${options.region}/${ImageId}`,
        action: 'remove',
        why: 'replaced by the new image, with its snapshots',
      });
    }
  }
  return { versions: versions.flatMap((v) => v.ImageId ?? []) };
}

function refuse(ctx: Context, versions: readonly Image[]): void {
  const [first] = versions;
  if (ctx.options.onExists !== 'fail' || first === undefined) return;
  throw new PortError(
    'CLOUD_CONFLICT',
    `the account has an image ${printable(ctx.name)} already: ${first.ImageId}`,
    { hint: 'take --set aws.onExists=new-version, or another --name' },
  );
}

/** The snapshot an earlier job made of the same disk. Throws USAGE when there is none that is complete, or one of another key. */
async function parentOf(ctx: Context, disk: string | undefined): Promise<SnapshotRecord | undefined> {
  const { parent, kmsKeyArn } = ctx.options;
  if (parent === undefined) return undefined;
  const file = path.join(path.resolve(parent), 'data', path.basename(journalOf(ctx, disk)));
  const record = await readBlockJournal(file);
  if (record?.completed === true) {
    if (record.kmsKeyArn === kmsKeyArn) return record;
    throw new PortError(
      'USAGE',
      `the snapshot of ${printable(parent)} was made with ${record.kmsKeyArn === undefined ? 'no key' : 'another key'}, and a parent brings its key`,
      { hint: 'leave aws.parent out for once, or give the aws.kmsKeyArn of that job' },
    );
  }
  if (disk !== undefined) return undefined;
  throw new PortError('USAGE', `${printable(parent)} holds no finished upload to AWS`, {
    hint: 'name the folder of an earlier job with aws.parent, or leave it out',
  });
}

async function upload(ctx: Context, ec2: Ec2, timing: AwsTiming): Promise<CloudImage> {
  const { artifacts, options } = ctx;
  const main = artifacts.find((a) => a.disk === undefined);
  if (main === undefined) throw new PortError('BUG', 'upload without an image for AWS');
  const made: { artifact: Artifact; put: PutSnapshot }[] = [];
  const ebs = await ebsClient(options, EBS_LANES);
  try {
    for (const artifact of artifacts) {
      const put = await putSnapshot(ebs, await inputOf(ctx, artifact));
      made.push({ artifact, put });
    }
  } finally {
    ebs.destroy();
  }
  const waiting = (text: string) => ctx.progress({ text });
  for (const { put } of made) await ec2.snapshotReady(put.snapshot, waiting);
  const image = await registered(ctx, ec2, made);
  await ec2.tag([image, ...made.map((m) => m.put.snapshot)], tagsOf(ctx));
  await ec2.imageReady(image, waiting);
  if (options.shareWith.length > 0) await ec2.share(image, options.shareWith);
  const copies = await copyAround(ctx, image, timing);
  const replaced = await retire(ctx, ec2);
  await sweep(ctx, ec2, new Set(made.map((m) => m.put.snapshot)));
  const first = made.find((m) => m.artifact === main)?.put;
  const sum = (of: (put: PutSnapshot) => number) => made.reduce((total, m) => total + of(m.put), 0);
  return {
    platform: aws.name,
    place: options.region,
    id: image,
    name: amiName(ctx),
    method: 'ebs-direct',
    bytes: sum((put) => put.bytes),
    sentBytes: sum((put) => put.sentBytes),
    content: 'ok',
    proof: 'EBS compared the SHA-256 of every block, and that of all their digests in order',
    replaced,
    start: runInstances(ctx, image),
    disks: made.flatMap(({ artifact, put }) =>
      artifact.disk === undefined ? [] : [{ disk: artifact.disk, id: put.snapshot, name: artifact.disk }],
    ),
    details: {
      snapshot: first?.snapshot ?? '',
      'snapshot sha256': first?.checksum ?? '',
      ...Object.fromEntries(copies.map(({ region, id }) => [`copy in ${region}`, id])),
      ...(options.shareWith.length === 0 ? {} : { 'shared with': options.shareWith.join(', ') }),
    },
  };
}

async function inputOf(ctx: Context, artifact: Artifact) {
  const { options, signal, log } = ctx;
  return {
    file: artifact.path,
    sha256: artifact.sha256,
    virtualBytes: artifact.virtualBytes,
    journal: journalOf(ctx, artifact.disk),
    clientToken: clientToken(ctx.mark, artifact.disk ?? '', artifact.sha256),
    description: printable(`${ctx.name} ${artifact.disk ?? ''}`)
      .trim()
      .slice(0, 255),
    tags: tagsOf(ctx),
    parent: await parentOf(ctx, artifact.disk),
    kmsKeyArn: options.kmsKeyArn,
    signal,
    log,
    onBytes: (doneBytes: number, totalBytes: number) =>
      ctx.progress({ text: `writing a snapshot of ${ctx.name}`, doneBytes, totalBytes }),
  };
}

/** Registers, or finds what a killed run has registered. */
async function registered(
  ctx: Context,
  ec2: Ec2,
  made: readonly { artifact: Artifact; put: PutSnapshot }[],
): Promise<string> {
  const name = amiName(ctx);
  const snapshots = new Set(made.map((m) => m.put.snapshot));
  const there = await ec2.imageNamed(name);
  if (there?.ImageId !== undefined) {
    const holds = there.BlockDeviceMappings?.map((m) => m.Ebs?.SnapshotId) ?? [];
    if (holds.some((id) => id !== undefined && snapshots.has(id))) return there.ImageId;
    if (tagOf(there, MARK_TAG) !== ctx.mark || !isOurs(there, ctx.name)) {
      throw new PortError('CLOUD_CONFLICT', `the account has an image ${name} already: ${there.ImageId}`, {
        hint: 'remove it, or start a new job',
      });
    }
    // Of an earlier run of this job, made of another disk.
    await ec2.remove(there);
  }
  let more = 0;
  const mappings: BlockDeviceMapping[] = made.map(({ artifact, put }) => ({
    DeviceName: artifact.disk === undefined ? ROOT_DEVICE : (MORE_DEVICES[more++] ?? ''),
    Ebs: { SnapshotId: put.snapshot, VolumeType: 'gp3', DeleteOnTermination: true },
  }));
  const { facts, options } = ctx;
  ctx.progress({ text: `EC2 registers ${name}` });
  return ec2.register({
    Name: name,
    Description: printable(`${ctx.name} ${ctx.identity.version ?? ''}, made by port-image`).slice(0, 255),
    Architecture: architectureOf(ctx),
    VirtualizationType: 'hvm',
    RootDeviceName: ROOT_DEVICE,
    BlockDeviceMappings: mappings,
    EnaSupport: true,
    SriovNetSupport: 'simple',
    BootMode: facts.firmware === 'uefi' ? 'uefi' : 'legacy-bios',
    ImdsSupport: 'v2.0',
    ...(options.tpm ? { TpmSupport: 'v2.0' as const } : {}),
  });
}

async function copyAround(
  ctx: Context,
  image: string,
  timing: AwsTiming,
): Promise<{ region: string; id: string }[]> {
  const copies: { region: string; id: string }[] = [];
  for (const region of ctx.options.copyTo) {
    const ec2 = await Ec2.open({ ...ctx.options, region }, ctx.signal, timing);
    try {
      const name = amiName(ctx);
      const id =
        (await ec2.imageNamed(name))?.ImageId ??
        (await ec2.copy(name, image, ctx.options.region, clientToken(ctx.mark, region, image)));
      await ec2.imageReady(id, (text) => ctx.progress({ text: `${region}: ${text}` }));
      await ec2.tag([id], tagsOf(ctx));
      if (ctx.options.shareWith.length > 0) await ec2.share(id, ctx.options.shareWith);
      copies.push({ region, id });
    } finally {
      ec2.close();
    }
  }
  return copies;
}

/** Removes earlier images of this name. A failure is a warning: the new image is complete. */
async function retire(ctx: Context, ec2: Ec2): Promise<CloudImage['replaced']> {
  const made = (await ec2.imageNamed(amiName(ctx)))?.CreationDate ?? '';
  // One that came after ours, from another job, is not ours to retire.
  const versions = (await versionsOf(ctx, ec2)).filter(({ CreationDate = '' }) => CreationDate <= made);
  if (ctx.options.onExists !== 'replace') {
    return versions.flatMap((v) => (v.ImageId === undefined ? [] : [{ id: v.ImageId, action: 'kept' }]));
  }
  const replaced: CloudImage['replaced'] = [];
  for (const old of versions) {
    const id = old.ImageId ?? '';
    try {
      await ec2.remove(old);
      replaced.push({ id, action: 'deleted' });
    } catch (error) {
      if (ctx.signal.aborted) throw error;
      ctx.warn(`the earlier image ${id} or its snapshots stay: ${(error as Error).message}`);
      replaced.push({ id, action: 'kept' });
    }
  }
  return replaced;
}

/** Removes snapshots that earlier runs of this job began and no image is made of. */
async function sweep(ctx: Context, ec2: Ec2, used: ReadonlySet<string>): Promise<void> {
  const inUse = new Set(used);
  const descriptions = new Set(ctx.artifacts.map((a) => snapshotDescription(ctx, a.disk)));
  for (const image of await ec2.images(MARK_TAG, ctx.mark)) {
    for (const { Ebs } of image.BlockDeviceMappings ?? []) if (Ebs?.SnapshotId) inUse.add(Ebs.SnapshotId);
  }
  for (const snapshot of await ec2.snapshots(MARK_TAG, ctx.mark)) {
    const id = snapshot.SnapshotId;
    if (id === undefined || inUse.has(id) || tagOf(snapshot, MARK_TAG) !== ctx.mark) continue;
    // Somebody's copy has our tags, but not what it says of itself.
    if (!descriptions.has(snapshot.Description ?? '')) continue;
    await ec2.removeSnapshot(id).catch((error: unknown) => {
      if (ctx.signal.aborted) throw error;
      ctx.warn(`the snapshot ${id} of an earlier run stays: ${(error as Error).message}`);
    });
  }
}

/** The command that starts an instance. One line, so that it can be copied. */
function runInstances(ctx: Context, image: string): string {
  const userData =
    ctx.userDataFile === undefined ? '' : ` --user-data ${shellWord(`file://${ctx.userDataFile}`)}`;
  return `aws ec2 run-instances --region ${ctx.options.region} --image-id ${image} --instance-type TYPE --metadata-options HttpTokens=required${userData}`;
}

/** AWS, with the pauses given. */
export function awsUploaderWith(timing: AwsTiming): Uploader<AwsOptions, AwsPlan> {
  const withEc2 = async <T>(options: AwsOptions, signal: AbortSignal, use: (ec2: Ec2) => Promise<T>) => {
    const ec2 = await Ec2.open(options, signal, timing);
    try {
      return await use(ec2);
    } finally {
      ec2.close();
    }
  };
  return {
    platform: aws.name,
    summary: 'an image in EC2, its disks written as snapshots by the EBS direct API',
    Options: AwsOptions,
    login: (options, signal) =>
      withEc2(options, signal, async (ec2) => {
        await ec2.images(NAME_TAG, 'port-image');
      }),
    plan: (ctx) => withEc2(ctx.options, ctx.signal, (ec2) => plan(ctx, ec2)),
    upload: (ctx) => withEc2(ctx.options, ctx.signal, (ec2) => upload(ctx, ec2, timing)),
  };
}

/** AWS: an image in EC2. */
export const awsUploader: Uploader<AwsOptions, AwsPlan> = awsUploaderWith(AWS_TIMING);
