/** What clients other than ours see in the places of a sync. */
import { execFile } from 'node:child_process';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { promisify } from 'node:util';
import type { TestProject } from './cloud.ts';
import { BUCKET, type SyncCloud, type SyncWorld } from './sync-world.ts';

const run = promisify(execFile);
const MIB = 2 ** 20;

/** An image as Glance shows it. */
export type GlanceImage = Record<string, unknown> & {
  id: string;
  name: string;
  status: string;
  visibility: string;
  os_hidden: boolean;
  disk_format: string;
};

/** Every image of the project, hidden ones too. */
export async function glanceImages({ cloud, project }: SyncCloud): Promise<GlanceImage[]> {
  const user = await project.login();
  const found: GlanceImage[] = [];
  for (const hidden of ['false', 'true']) {
    const asked = `${cloud.imageUrl}/v2/images?owner=${project.projectId}&os_hidden=${hidden}&limit=1000`;
    const answer = await user.request('GET', asked);
    if (answer.status !== 200) throw new Error(`Glance: ${answer.status}`);
    found.push(...(JSON.parse(answer.text) as { images: GlanceImage[] }).images);
  }
  return found;
}

/** Runs the OpenStack client of the distribution. */
export async function openstack({ env, dir }: TestProject, ...args: string[]): Promise<string> {
  return (await run('/usr/bin/openstack', args, { env, cwd: dir, maxBuffer: 2 ** 26 })).stdout;
}

/** Puts an image into a cloud with its own client; returns its id. */
export async function uploadImage(
  { project }: SyncCloud,
  file: string,
  image: { name: string; format?: string; properties?: Record<string, string> },
): Promise<string> {
  const properties = Object.entries(image.properties ?? {}).flatMap(([key, value]) => [
    '--property',
    `${key}=${value}`,
  ]);
  const told = await openstack(
    project,
    ...[
      'image',
      'create',
      '--private',
      '--disk-format',
      image.format ?? 'qcow2',
      '--container-format',
      'bare',
    ],
    ...['--file', file, ...properties, '-f', 'value', '-c', 'id', image.name],
  );
  return told.trim();
}

/** Throws, with what differs, unless an image of a cloud shows the same disk as a raw file. */
export async function sameInGlance(
  { project }: SyncCloud,
  image: GlanceImage,
  raw: string,
  scratch: string,
): Promise<void> {
  const saved = path.join(scratch, `${image.id}.${image.disk_format}`);
  await openstack(project, 'image', 'save', '--file', saved, image.id);
  await sameDisk(saved, image.disk_format, raw);
  await fs.rm(saved);
}

/** qemu-img's opinion on two disks. */
export async function sameDisk(file: string, format: string, raw: string): Promise<void> {
  // status 1: they differ, and it says where
  const { stdout } = await run('qemu-img', ['compare', '-f', format, '-F', 'raw', file, raw]).catch(
    (error: { stdout?: string; stderr?: string }) => {
      throw new Error(`${file} is not ${raw}: ${error.stdout ?? ''}${error.stderr ?? ''}`);
    },
  );
  if (!stdout.includes('Images are identical.')) throw new Error(stdout);
}

/** Names of everything in a project's object store, `CONTAINER/OBJECT`, with the bytes. */
export async function swiftObjects({ project }: SyncCloud): Promise<{ name: string; bytes: number }[]> {
  const user = await project.login();
  const list = async (url: string) => {
    const answer = await user.request('GET', `${url}?format=json&limit=10000`);
    return answer.status === 200 ? (JSON.parse(answer.text) as { name: string; bytes: number }[]) : [];
  };
  const found: { name: string; bytes: number }[] = [];
  for (const { name: container } of await list(project.accountUrl))
    for (const { name, bytes } of await list(`${project.accountUrl}/${encodeURIComponent(container)}`))
      found.push({ name: `${container}/${name}`, bytes });
  return found;
}

/** Names of the blobs of a sync: a disk is `SYNC/SERIES/VERSION-….vhd`, with its list of blocks beside it. */
export async function blobNames(world: SyncWorld, prefix = ''): Promise<string[]> {
  const names: string[] = [];
  for await (const blob of world.vhds.listBlobsFlat({ prefix })) names.push(blob.name);
  return names.sort();
}

/** Writes the pages of an image's blob into a sparse file, without the footer of a VHD; returns the name of the blob. */
export async function saveVhd(world: SyncWorld, version: string, file: string): Promise<string> {
  const name = (await blobNames(world, `${version}-`)).find((one) => one.endsWith('.vhd'));
  if (name === undefined) throw new Error(`Azure has no disk ${version}`);
  const blob = world.vhds.getPageBlobClient(name);
  const { contentLength = 0 } = await blob.getProperties();
  const sizeBytes = contentLength - 512;
  const handle = await fs.open(file, 'w');
  try {
    await handle.truncate(sizeBytes);
    for await (const range of blob.listPageRanges()) {
      const { start, isClear } = range;
      const end = Math.min(range.end + 1, sizeBytes);
      for (let at = start; !isClear && at < end; at += 4 * MIB)
        await handle.write(
          await blob.downloadToBuffer(at, Math.min(4 * MIB, end - at)),
          0,
          Math.min(4 * MIB, end - at),
          at,
        );
    }
  } finally {
    await handle.close();
  }
  return name;
}

/** An image as the AWS client shows it. */
export interface Ami {
  ImageId: string;
  Name: string;
  State: string;
  Tags?: { Key: string; Value: string }[];
  DeprecationTime?: string;
  BlockDeviceMappings?: { Ebs?: { SnapshotId?: string } }[];
}

/** Runs the AWS client of the distribution against moto, behind the gate that knows what was registered. */
async function aws<T>(world: SyncWorld, ...args: string[]): Promise<T> {
  const { stdout } = await run(
    '/usr/bin/aws',
    ['--endpoint-url', world.gate.url, '--region', 'eu-central-1', '--output', 'json', ...args],
    {
      env: {
        PATH: '/usr/bin:/bin',
        HOME: world.dir,
        AWS_ACCESS_KEY_ID: 'test',
        AWS_SECRET_ACCESS_KEY: 'test',
      },
      maxBuffer: 2 ** 26,
    },
  );
  return JSON.parse(stdout) as T;
}

/** Our images in EC2. */
export async function amis(world: SyncWorld): Promise<Ami[]> {
  return (await aws<{ Images: Ami[] }>(world, 'ec2', 'describe-images', '--owners', 'self')).Images;
}

/** Snapshots that nobody but us made. */
export async function snapshots(world: SyncWorld): Promise<{ SnapshotId: string; State: string }[]> {
  const told = await aws<{ Snapshots: { SnapshotId: string; State: string; Description?: string }[] }>(
    world,
    ...['ec2', 'describe-snapshots', '--owner-ids', 'self'],
  );
  // moto is born with snapshots of its own
  return told.Snapshots.filter(({ Description = '' }) => /port-image/.test(Description));
}

const EBS_BLOCK = 512 * 1024;

/** Blocks of a snapshot as moto keeps them, on top of those of its parents, as a file. */
export async function saveSnapshot(
  world: SyncWorld,
  id: string,
  sizeBytes: number,
  file: string,
): Promise<void> {
  const chain = [id];
  for (let at = world.gate.parents.get(id); at !== undefined; at = world.gate.parents.get(at))
    chain.unshift(at);
  // moto knows the service by the scope of the signature, which it does not check
  const scope = 'Credential=test/20260101/eu-central-1/ebs/aws4_request';
  const headers = { authorization: `AWS4-HMAC-SHA256 ${scope}, SignedHeaders=host, Signature=0` };
  const handle = await fs.open(file, 'w');
  try {
    await handle.truncate(sizeBytes);
    for (const snapshot of chain) {
      const base = `${world.moto}/snapshots/${snapshot}/blocks`;
      const told = (await (await fetch(base, { headers })).json()) as { Blocks: { BlockIndex: number }[] };
      for (const { BlockIndex } of told.Blocks) {
        const answer = await fetch(`${base}/${BlockIndex}?blockToken=x`, { headers });
        if (!answer.ok) throw new Error(`block ${BlockIndex} of ${snapshot}: ${answer.status}`);
        const block = Buffer.from(await answer.arrayBuffer());
        await handle.write(block, 0, EBS_BLOCK, Number(BlockIndex) * EBS_BLOCK);
      }
    }
  } finally {
    await handle.close();
  }
}

/** Starts an instance of an image, as a user of the account. */
export async function runInstance(world: SyncWorld, imageId: string): Promise<void> {
  await aws(world, 'ec2', 'run-instances', '--image-id', imageId, '--instance-type', 't3.micro');
}

/** Everything in the bucket of data sets. */
export async function s3Objects(world: SyncWorld): Promise<{ name: string; bytes: number }[]> {
  const told = await aws<{ Contents?: { Key: string; Size: number }[] }>(
    world,
    ...['s3api', 'list-objects-v2', '--bucket', BUCKET],
  );
  return (told.Contents ?? []).map(({ Key, Size }) => ({ name: Key, bytes: Size }));
}
