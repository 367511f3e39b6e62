import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { EBSClient, GetSnapshotBlockCommand, ListSnapshotBlocksCommand } from '@aws-sdk/client-ebs';
import {
  CreateTagsCommand,
  DescribeImagesCommand,
  DescribeSnapshotsCommand,
  EC2Client,
  RegisterImageCommand,
} from '@aws-sdk/client-ec2';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { sha256File } from '../../../core/files.ts';
import { GIB, MIB } from '../../../core/sizes.ts';
import type { Artifact } from '../../../core/types.ts';
import { aws } from '../../../drivers/aws/index.ts';
import { AwsOptions } from '../../../drivers/aws/options.ts';
import { awsUploaderWith } from '../../../drivers/aws/uploader.ts';
import { serviceProgram } from '../../support/services.ts';
import { uploadContext } from '../../support/upload-context.ts';
import { type Service, startMoto } from '../../tools/ebs/moto.ts';
import { type Gate, startGate } from './moto.ts';

const BLOCK = 512 * 1024;
const program = await serviceProgram('moto');
const uploader = awsUploaderWith({ pollMs: 10, settleMs: 20_000 });
const before = { ...process.env };
let moto: Service;
let gate: Gate;
let dir: string;
let region = 0;

beforeAll(async () => {
  if (program === undefined) return;
  moto = await startMoto(program);
  Object.assign(process.env, { AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test' });
});
afterAll(async () => {
  for (const name of ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY']) {
    if (before[name] === undefined) delete process.env[name];
    else process.env[name] = before[name];
  }
  await moto?.stop();
});
beforeEach(async () => {
  if (program === undefined) return;
  dir = await fs.mkdtemp(path.join(tmpdir(), 'aws-test-'));
  gate = await startGate(moto.url);
  region += 1;
  return async () => {
    await gate.close();
    await fs.rm(dir, { recursive: true, force: true });
  };
});

const REGIONS = [
  'eu-central-1',
  'eu-west-1',
  'us-east-1',
  'us-west-2',
  'ap-south-1',
  'sa-east-1',
  'eu-north-1',
  'ca-central-1',
];
const options = (more: object = {}) =>
  AwsOptions.parse({
    region: REGIONS[region % REGIONS.length],
    endpoints: { ebs: gate.url, ec2: gate.url },
    ...more,
  });

/** A sparse image of 2 GiB with data in a few places; `change` writes more. */
async function image(change?: (handle: fs.FileHandle) => Promise<unknown>): Promise<Artifact> {
  const file = path.join(dir, 'image.raw');
  const handle = await fs.open(file, 'w');
  await handle.truncate(2 * GIB);
  const data = Buffer.alloc(8 * MIB, 'port-image');
  await handle.write(data, 0, data.length, 0);
  await handle.write(data, 0, 3 * BLOCK, GIB);
  await handle.write(Buffer.alloc(BLOCK), 0, BLOCK, GIB + 8 * BLOCK); // allocated zeros
  await handle.write(data, 0, 100, 2 * GIB - 100);
  await change?.(handle);
  await handle.close();
  return {
    platform: 'aws',
    path: file,
    format: 'raw',
    bytes: 2 * GIB,
    virtualBytes: 2 * GIB,
    sha256: await sha256File(file),
  };
}
const DATA_BLOCKS = 16 + 3 + 1;

const context = (artifact: Artifact, more: object = {}, fields: object = {}) =>
  uploadContext(dir, aws, options(more), [artifact], fields);

function clients() {
  const settings = { region: options().region, endpoint: gate.url };
  return { ec2: new EC2Client(settings), ebs: new EBSClient(settings) };
}

/** What the snapshot shows, read by the SDK past our own code. */
async function snapshotContent(id: string): Promise<Map<number, Buffer>> {
  const { ebs } = clients();
  const { Blocks = [] } = await ebs.send(new ListSnapshotBlocksCommand({ SnapshotId: id }));
  const content = new Map<number, Buffer>();
  for (const { BlockIndex, BlockToken } of Blocks) {
    const got = await ebs.send(
      new GetSnapshotBlockCommand({ SnapshotId: id, BlockIndex, BlockToken: BlockToken ?? 'x' }),
    );
    content.set(Number(BlockIndex), Buffer.from((await got.BlockData?.transformToByteArray()) ?? []));
  }
  return content;
}

async function expectEqual(id: string, artifact: Artifact): Promise<void> {
  const content = await snapshotContent(id);
  const handle = await fs.open(artifact.path, 'r');
  const buffer = Buffer.alloc(BLOCK);
  for (let index = 0; index * BLOCK < artifact.virtualBytes; index++) {
    buffer.fill(0);
    await handle.read(buffer, 0, BLOCK, index * BLOCK);
    const found = content.get(index);
    if (found === undefined) expect(buffer.every((byte) => byte === 0)).toBe(true);
    else expect(found.equals(buffer)).toBe(true);
  }
  await handle.close();
}

describe.skipIf(program === undefined)(
  `EBS direct and EC2 by moto${program === undefined ? ' (not to be had)' : ''}`,
  () => {
    test('a sparse disk becomes an image: only blocks with data travel, and the snapshot shows the disk', async () => {
      const artifact = await image();
      const ctx = context(artifact);
      const plan = await uploader.plan(uploadContext(dir, aws, options(), []));
      const done = await uploader.upload(ctx, plan);
      expect(gate.wrong).toEqual([]);
      expect([...gate.puts.values()].every((n) => n === 1)).toBe(true);
      expect(gate.puts.size).toBe(DATA_BLOCKS);
      expect(done).toMatchObject({
        method: 'ebs-direct',
        content: 'ok',
        sentBytes: DATA_BLOCKS * BLOCK,
        bytes: DATA_BLOCKS * BLOCK,
      });
      await expectEqual(done.details.snapshot ?? '', artifact);
      const { ec2 } = clients();
      const { Images = [] } = await ec2.send(new DescribeImagesCommand({ ImageIds: [done.id] }));
      expect(Images[0]).toMatchObject({
        RootDeviceName: '/dev/sda1',
        State: 'available',
      });
      // moto does not show these; the request does.
      expect(Object.fromEntries(gate.registered[0] ?? [])).toMatchObject({
        Architecture: 'x86_64',
        VirtualizationType: 'hvm',
        BootMode: 'legacy-bios',
      });
      expect(Images[0]?.Tags).toEqual(
        expect.arrayContaining([
          { Key: 'port-image-mark', Value: ctx.mark },
          { Key: 'port-image-name', Value: 'shop01' },
        ]),
      );
      // Again: nothing is sent, nothing new is made.
      gate.puts.clear();
      expect(await uploader.upload(ctx, plan)).toMatchObject({ id: done.id, sentBytes: 0 });
      expect(gate.puts.size).toBe(0);
    });

    test('cut in the middle, the next run sends the rest alone', async () => {
      const artifact = await image();
      const ctx = context(artifact);
      const stop = new AbortController();
      // Told after the journal has the block: that many at least must not travel again. One more is zeros, which are never sent.
      const acknowledged = 8;
      const progress = ({ doneBytes = 0 }) => {
        if (doneBytes >= (acknowledged + 1) * BLOCK) stop.abort();
      };
      await expect(
        uploader.upload({ ...ctx, progress, signal: stop.signal }, { versions: [] }),
      ).rejects.toMatchObject({ code: 'INTERRUPTED' });
      // A torn line, as a kill leaves it.
      await fs.appendFile(path.join(dir, 'upload-aws.blocks'), '17 abc');
      const first = new Set(gate.puts.keys());
      gate.puts.clear();
      const done = await uploader.upload(ctx, { versions: [] });
      expect(gate.wrong).toEqual([]);
      // Requests under way when it was cut may come twice; of what was acknowledged nothing does.
      expect(gate.puts.size).toBeLessThanOrEqual(DATA_BLOCKS - acknowledged);
      expect(new Set([...first, ...gate.puts.keys()]).size).toBe(DATA_BLOCKS);
      await expectEqual(done.details.snapshot ?? '', artifact);
    });

    test('a changed disk with a parent: what differs travels, what was emptied as zeros', async () => {
      const base = await image();
      const jobA = path.join(dir, 'a');
      await fs.mkdir(path.join(jobA, 'data'), { recursive: true });
      const stateOf = (job: string) => ({ stateFile: path.join(job, 'data', 'upload-aws.json') });
      await uploader.upload(context(base, {}, stateOf(jobA)), { versions: [] });
      const jobB = path.join(dir, 'b');
      await fs.mkdir(path.join(jobB, 'data'), { recursive: true });
      gate.puts.clear();
      const next = await image(async (handle) => {
        await handle.write(Buffer.alloc(BLOCK), 0, BLOCK, GIB);
        await handle.write(randomBytes(BLOCK), 0, BLOCK, 5 * BLOCK);
        await handle.write(randomBytes(10), 0, 10, GIB + 100 * BLOCK);
      });
      const done = await uploader.upload(context(next, { parent: jobA }, stateOf(jobB)), { versions: [] });
      expect([...gate.puts.keys()].sort((a, b) => a - b)).toEqual([5, 2048, 2148]);
      expect(done.sentBytes).toBe(3 * BLOCK);
      expect(gate.wrong).toEqual([]);
      await expect(uploader.plan(context(next, { parent: path.join(dir, 'nowhere') }))).rejects.toMatchObject(
        { code: 'USAGE' },
      );
    });

    test('a parent brings its key; another key is refused in the plan', async () => {
      const kmsKeyArn = 'arn:aws:kms:eu-central-1:123456789012:key/1';
      const base = await image();
      const job = path.join(dir, 'a');
      await fs.mkdir(path.join(job, 'data'), { recursive: true });
      const ofJob = { stateFile: path.join(job, 'data', 'upload-aws.json') };
      await uploader.upload(context(base, { kmsKeyArn }, ofJob), { versions: [] });
      gate.puts.clear();
      const next = await image((handle) => handle.write(randomBytes(BLOCK), 0, BLOCK, 5 * BLOCK));
      await uploader.upload(context(next, { parent: job, kmsKeyArn }), { versions: [] });
      expect([...gate.puts.keys()]).toEqual([5]);
      for (const more of [{}, { kmsKeyArn: `${kmsKeyArn}2` }])
        await expect(uploader.plan(context(next, { parent: job, ...more }))).rejects.toMatchObject({
          code: 'USAGE',
          message: expect.stringContaining('another key'),
        });
    });

    test('versions: kept, a reason to refuse, or replaced with their snapshots; foreign images stay', async () => {
      const artifact = await image();
      const first = await uploader.upload(context(artifact), { versions: [] });
      await fs.rm(path.join(dir, 'upload-aws.blocks'));
      await expect(uploader.plan(context(artifact, { onExists: 'fail' }))).rejects.toMatchObject({
        code: 'CLOUD_CONFLICT',
        message: expect.stringContaining(first.id),
      });
      const other = uploadContext(dir, aws, options(), [artifact], { name: 'other' });
      const foreign = await uploader.upload(other, { versions: [] });
      // Somebody's copy of our image: it has all of its tags.
      const copy = await clients().ec2.send(
        new RegisterImageCommand({
          Name: 'my own copy',
          RootDeviceName: '/dev/sda1',
          BlockDeviceMappings: [{ DeviceName: '/dev/sda1', Ebs: { SnapshotId: foreign.details.snapshot } }],
        }),
      );
      const { Images: [tagged] = [] } = await clients().ec2.send(
        new DescribeImagesCommand({ ImageIds: [first.id] }),
      );
      await clients().ec2.send(
        new CreateTagsCommand({ Resources: [copy.ImageId ?? ''], Tags: tagged?.Tags ?? [] }),
      );
      await fs.rm(path.join(dir, 'upload-aws.blocks'));
      const second = await uploader.upload(context(artifact, { onExists: 'replace' }), { versions: [] });
      expect(second.replaced).toEqual([{ id: first.id, action: 'deleted' }]);
      const { ec2 } = clients();
      const { Images = [] } = await ec2.send(new DescribeImagesCommand({ Owners: ['self'] }));
      const ids = Images.map((i) => i.ImageId);
      expect(ids).toEqual(expect.arrayContaining([second.id, foreign.id, copy.ImageId]));
      expect(ids).not.toContain(first.id);
      const { Snapshots = [] } = await ec2.send(new DescribeSnapshotsCommand({ OwnerIds: ['self'] }));
      expect(Snapshots.map((s) => s.SnapshotId)).not.toContain(first.details.snapshot);
    });

    test.each([
      [503, 'InternalServerException', 3, undefined],
      [429, 'ThrottlingException', 3, undefined],
      [400, 'ExpiredTokenException', Number.POSITIVE_INFINITY, 'CLOUD_LOGIN'],
      [400, 'ServiceQuotaExceededException', Number.POSITIVE_INFINITY, 'CLOUD_REFUSED'],
      [403, 'AccessDeniedException', Number.POSITIVE_INFINITY, 'CLOUD_REFUSED'],
    ])('%i %s: a passing one is repeated, a lasting one told', async (status, type, times, code) => {
      const artifact = await image();
      let left = times;
      gate.fault = ({ method, path: target }) => {
        if (method !== 'PUT' || !target.includes('/blocks/') || left <= 0) return undefined;
        left -= 1;
        return { status, type };
      };
      const work = uploader.upload(context(artifact), { versions: [] });
      if (code === undefined) expect((await work).content).toBe('ok');
      else await expect(work).rejects.toMatchObject({ code });
    });

    test('a UEFI image with a TPM and a further disk; BIOS has none', async () => {
      const artifact = await image();
      await expect(uploader.plan(context(artifact, { tpm: true }))).rejects.toMatchObject({ code: 'USAGE' });
      const facts = { ...context(artifact).facts, firmware: 'uefi' as const };
      const more: Artifact = { ...artifact, disk: 'sdb' };
      const ctx = uploadContext(
        dir,
        aws,
        options({ tpm: true, shareWith: ['123456789012'] }),
        [artifact, more],
        { facts },
      );
      const done = await uploader.upload(ctx, { versions: [] });
      expect(done.disks).toMatchObject([{ disk: 'sdb', id: expect.stringMatching(/^snap-/) }]);
      const { ec2 } = clients();
      const { Images = [] } = await ec2.send(new DescribeImagesCommand({ ImageIds: [done.id] }));
      expect(Images[0]?.BlockDeviceMappings).toHaveLength(2);
      expect(Object.fromEntries(gate.registered[0] ?? [])).toMatchObject({
        Architecture: 'x86_64',
        VirtualizationType: 'hvm',
        BootMode: 'uefi',
        ImdsSupport: 'v2.0',
        TpmSupport: 'v2.0',
        EnaSupport: 'true',
        'BlockDeviceMapping.1.DeviceName': '/dev/sda1',
        'BlockDeviceMapping.2.Ebs.SnapshotId': done.disks[0]?.id,
      });
    });
  },
);
