import { spawn } from 'node:child_process';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { EBSClient, GetSnapshotBlockCommand, ListSnapshotBlocksCommand } from '@aws-sdk/client-ebs';
import {
  CopyImageCommand,
  CreateTagsCommand,
  DescribeImageAttributeCommand,
  DescribeImagesCommand,
  DescribeSnapshotsCommand,
  EC2Client,
  RunInstancesCommand,
  TerminateInstancesCommand,
} from '@aws-sdk/client-ec2';
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { PortError } from '../../../core/errors.ts';
import { MIB } from '../../../core/sizes.ts';
import { TargetConfig } from '../../../core/sync/config.ts';
import type { LocalDisk, SyncTarget } from '../../../core/sync/types.ts';
import { openAwsTarget, openAwsTargetWith } from '../../../drivers/aws/sync/target.ts';
import { serviceProgram } from '../../support/services.ts';
import {
  createInput,
  type DiskChange,
  diskFile,
  plainWanted,
  syncContext,
} from '../../support/sync-input.ts';
import { type Service, startMoto } from '../../tools/ebs/moto.ts';
import { type Gate, startGate } from './moto.ts';

const BLOCK = 512 * 1024;
const DISK = 64 * MIB;
const DATA: DiskChange = Object.fromEntries(
  [0, 1, 2, 3, 8, 9, 10, 11, 20, 21, 40, 63].map((n) => [n, 'random']),
);
const program = await serviceProgram('moto');
const before = { ...process.env };
let moto: Service;
let gate: Gate;
let dir: string;
let region = 0;
const opened: SyncTarget[] = [];

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
  dir = await fs.mkdtemp(path.join(tmpdir(), 'aws-sync-'));
  gate = await startGate(moto.url);
  region += 1;
});
afterEach(async () => {
  if (program === undefined) return;
  // EBS checks what moto does not.
  expect(gate.wrong).toEqual([]);
  for (const target of opened.splice(0)) await target.close();
  await gate.close();
  await fs.rm(dir, { recursive: true, force: true });
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
  'us-east-2',
  'eu-west-2',
  'eu-west-3',
];
const options = () => ({
  region: REGIONS[region % REGIONS.length] ?? '',
  endpoints: { ebs: gate.url, ec2: gate.url },
});
async function open(more: object = {}, stateDir = path.join(dir, 'state')): Promise<SyncTarget> {
  const config = TargetConfig.parse({ platform: 'aws', options: options(), ...more });
  const facts = { sync: 'nightly', stateDir };
  const target = await openAwsTargetWith('west', config, facts, { pollMs: 10, settleMs: 20_000 });
  opened.push(target);
  return target;
}
const ec2 = () => new EC2Client({ region: options().region, endpoint: gate.url });
const disk = (name: string, change: DiskChange, base?: LocalDisk) =>
  diskFile(path.join(dir, `${name}.raw`), DISK, change, base);

async function imageOf(id: string) {
  const { Images = [] } = await ec2().send(new DescribeImagesCommand({ ImageIds: [id] }));
  return Images[0];
}
const snapshotOf = async (id: string) => (await imageOf(id))?.BlockDeviceMappings?.[0]?.Ebs?.SnapshotId ?? '';
const tagsOf = async (id: string) =>
  Object.fromEntries(((await imageOf(id))?.Tags ?? []).map(({ Key, Value }) => [Key, Value]));
async function ourSnapshots(): Promise<string[]> {
  const { Snapshots = [] } = await ec2().send(
    new DescribeSnapshotsCommand({ Filters: [{ Name: 'tag-key', Values: ['port-image-sync'] }] }),
  );
  return Snapshots.map((s) => s.SnapshotId ?? '');
}

/** Compares what snapshots show, oldest first, with a disk: moto keeps no parent, so a child's blocks lie over it. */
async function expectShows(snapshots: string[], wanted: LocalDisk): Promise<void> {
  const ebs = new EBSClient({ region: options().region, endpoint: gate.url });
  const shown = Buffer.alloc(DISK);
  for (const SnapshotId of snapshots) {
    const { Blocks = [] } = await ebs.send(new ListSnapshotBlocksCommand({ SnapshotId }));
    for (const { BlockIndex, BlockToken = 'x' } of Blocks) {
      const got = await ebs.send(new GetSnapshotBlockCommand({ SnapshotId, BlockIndex, BlockToken }));
      shown.set((await got.BlockData?.transformToByteArray()) ?? [], Number(BlockIndex) * BLOCK);
    }
  }
  expect(shown.equals(await fs.readFile(wanted.rawPath))).toBe(true);
}

describe.skipIf(program === undefined)('EC2 as a target of a sync, by moto', () => {
  test('first night, unchanged night, a changed night', async () => {
    const first = await disk('1', DATA);
    const target = await open();
    const order: string[] = [];
    const made = await target.create(
      createInput(dir, first, '1', {
        prove: async () => {
          order.push(`proved with ${gate.registered.length} images`);
        },
      }),
    );
    expect(order).toEqual(['proved with 0 images']);
    expect(made).toMatchObject({
      adopted: false,
      sentBytes: 12 * MIB,
      changedBytes: 12 * MIB,
      content: 'ok',
    });
    await expectShows([await snapshotOf(made.ref)], first);
    expect(await tagsOf(made.ref)).toMatchObject({
      Name: 'shop',
      'property:os_distro': 'debian',
      'port-image-state': 'complete',
    });

    // Unchanged: found by its tags, in two requests.
    const calls = target.calls();
    const [listed, ...others] = await target.list(syncContext());
    expect(target.calls() - calls).toBe(2);
    expect(others).toEqual([]);
    expect(listed).toMatchObject({
      ref: made.ref,
      series: 'shop',
      version: '1',
      rawSha256: first.index.rawSha256,
      state: 'complete',
      hidden: false,
      wanted: 'wanted-1',
      fileDigest: `sha256:${first.index.rawSha256}`,
    });
    const again = await target.create(createInput(dir, first, '1', { owner: 'run-2@there' }));
    expect(again).toMatchObject({ ref: made.ref, adopted: true, sentBytes: 0, changedBytes: 0 });

    // Three blocks changed, one of them to zeros, and one new.
    const second = await disk('2', { 1: 'random', 9: 'zero', 50: 'random' }, first);
    gate.puts.clear();
    const next = await target.create(createInput(dir, second, '2', { owner: 'run-2@there' }));
    expect(next).toMatchObject({ adopted: false, sentBytes: 3 * MIB, changedBytes: 3 * MIB });
    expect(gate.puts.size).toBe(6);
    await expectShows([await snapshotOf(made.ref), await snapshotOf(next.ref)], second);
    expect((await target.list(syncContext())).map((i) => i.version).sort()).toEqual(['1', '2']);
  });

  test('another host knows the blocks from the store; without one the image is sent whole', async () => {
    const client = new S3Client({
      region: 'us-east-1',
      endpoint: moto.url,
      forcePathStyle: true,
    });
    await client.send(new CreateBucketCommand({ Bucket: 'nightly-blocks' }));
    const store = `s3:nightly-blocks/sync?region=us-east-1&endpoint=${moto.url}`;
    const first = await disk('1', DATA);
    await (await open({ store }, path.join(dir, 'a'))).create(createInput(dir, first, '1'));
    const second = await disk('2', { 2: 'random' }, first);
    const there = await (await open({ store }, path.join(dir, 'b'))).create(createInput(dir, second, '2'));
    expect(there.sentBytes).toBe(1 * MIB);
    const third = await disk('3', { 3: 'random' }, second);
    const blind = await (await open({}, path.join(dir, 'c'))).create(createInput(dir, third, '3'));
    expect(blind.sentBytes).toBe(12 * MIB);
    await expectShows([await snapshotOf(blind.ref)], third);
    const whole = await open({ delta: 'off' }, path.join(dir, 'c'));
    const fourth = await disk('4', { 3: 'random' }, third);
    expect((await whole.create(createInput(dir, fourth, '4'))).sentBytes).toBe(12 * MIB);
  });

  test('two at once make one image; the second adopts it', async () => {
    const first = await disk('1', DATA);
    const ends = await Promise.allSettled([
      (await open({}, path.join(dir, 'a'))).create(createInput(dir, first, '1', { owner: 'a@a' })),
      (await open({}, path.join(dir, 'b'))).create(createInput(dir, first, '1', { owner: 'b@b' })),
    ]);
    const failed = ends.filter((e) => e.status === 'rejected').map((e) => e.reason as PortError);
    expect(failed.map((e) => [e.code, e.temporary])).toEqual([['SYNC_BUSY', true]]);
    expect(gate.registered).toHaveLength(1);
    expect(await ourSnapshots()).toHaveLength(1);
    expect([...gate.puts.values()].every((n) => n === 1)).toBe(true);
    const target = await open({}, path.join(dir, 'b'));
    const adopted = await target.create(createInput(dir, first, '1', { owner: 'b@b' }));
    expect(adopted).toMatchObject({ adopted: true, sentBytes: 0 });
  });

  test('killed in the middle: alive it is left alone, dead it is gone on with', async () => {
    const first = await disk('1', DATA);
    const stateDir = path.join(dir, 'state');
    const child = spawn(
      process.execPath,
      [
        path.join(import.meta.dirname, 'sync-child.ts'),
        JSON.stringify(options()),
        stateDir,
        first.rawPath,
        String(DISK),
        '1',
        'run-1@here',
      ],
      { stdio: ['ignore', 'inherit', 'inherit'] },
    );
    const ended = new Promise((resolve) => child.once('exit', (_, signal) => resolve(signal)));
    gate.fault = ({ puts }) => {
      if (puts === 14) child.kill('SIGKILL');
      return undefined;
    };
    expect(await ended).toBe('SIGKILL');
    gate.fault = () => undefined;
    expect(gate.registered).toHaveLength(0);
    const target = await open();
    expect(await target.list(syncContext())).toMatchObject([
      { version: '1', state: 'in-progress', owner: 'run-1@here' },
    ]);
    await expect(target.create(createInput(dir, first, '1', { owner: 'run-2@there' }))).rejects.toMatchObject(
      {
        code: 'SYNC_BUSY',
      },
    );
    expect(await target.sweep(await target.list(syncContext()), syncContext())).toBe(0);
    const sentBefore = gate.puts.size;
    gate.puts.clear();
    const made = await target.create(createInput(dir, first, '1', { owner: 'run-2@there', staleAfterMs: 1 }));
    expect(sentBefore).toBeGreaterThan(5);
    // Of what was acknowledged nothing is sent again; 32 lanes may have been under way.
    expect(made.sentBytes).toBe(gate.puts.size * BLOCK);
    expect(made.changedBytes).toBe(12 * MIB);
    expect(await ourSnapshots()).toHaveLength(1);
    await expectShows([await snapshotOf(made.ref)], first);
    expect((await target.list(syncContext())).map((i) => i.state)).toEqual(['complete']);
  });

  test('dead on another host, without its record: given up and begun anew, nothing is left', async () => {
    const first = await disk('1', DATA);
    const stop = new AbortController();
    gate.fault = ({ puts }) => {
      if (puts === 8) stop.abort();
      return undefined;
    };
    const lost = await open({}, path.join(dir, 'a'));
    await expect(
      lost.create(createInput(dir, first, '1', { signal: stop.signal, owner: 'a@a' })),
    ).rejects.toMatchObject({ code: 'INTERRUPTED' });
    gate.fault = () => undefined;
    const target = await open({}, path.join(dir, 'b'));
    const made = await target.create(createInput(dir, first, '1', { owner: 'b@b', staleAfterMs: 1 }));
    expect(made).toMatchObject({ adopted: false, sentBytes: 12 * MIB });
    expect(await ourSnapshots()).toEqual([await snapshotOf(made.ref)]);
    await expectShows([await snapshotOf(made.ref)], first);
  });

  test('what does not prove itself is not registered; the next run proves it again without sending', async () => {
    const first = await disk('1', DATA);
    const target = await open();
    const prove = async () => {
      throw new PortError('VERIFY_FAILED', 'no sign of life');
    };
    await expect(target.create(createInput(dir, first, '1', { prove }))).rejects.toMatchObject({
      code: 'VERIFY_FAILED',
    });
    expect(gate.registered).toHaveLength(0);
    const input = createInput(dir, first, '1', {
      owner: 'run-2@there',
      staleAfterMs: 1,
      prove: async () => {},
    });
    // The list of blocks is lost as well; the disk is here, so it can be made again.
    await fs.rm(path.join(dir, 'state'), { recursive: true });
    expect(await target.create(input)).toMatchObject({ adopted: false, sentBytes: 0 });
    const second = await disk('2', { 2: 'random' }, first);
    expect((await target.create(createInput(dir, second, '2'))).sentBytes).toBe(1 * MIB);
  });

  test('killed between registration and the last tag: the next run finishes it', async () => {
    const first = await disk('1', DATA);
    const target = await open();
    const stop = new AbortController();
    const before = gate.gaps.before.bind(gate.gaps);
    gate.gaps.before = (asked) => {
      if (asked.get('Action') === 'DescribeImageAttribute') stop.abort();
      return before(asked);
    };
    await expect(target.create(createInput(dir, first, '1', { signal: stop.signal }))).rejects.toMatchObject({
      code: 'INTERRUPTED',
    });
    gate.gaps.before = before;
    const [half] = await target.list(syncContext());
    expect(half).toMatchObject({ state: 'in-progress', ref: expect.stringMatching(/^ami-/) });
    const made = await target.create(createInput(dir, first, '1', { owner: 'run-2@there', staleAfterMs: 1 }));
    expect(made).toMatchObject({ ref: half?.ref, sentBytes: 0 });
    expect(gate.registered).toHaveLength(1);
    expect((await target.list(syncContext())).map((i) => i.state)).toEqual(['complete']);
  });

  test('killed before the last tag, and wanted no more: a sweep takes it away when it was silent for two days', async () => {
    const first = await disk('1', DATA);
    const target = await open();
    const stop = new AbortController();
    const before = gate.gaps.before.bind(gate.gaps);
    gate.gaps.before = (asked) => {
      if (asked.get('Action') === 'DescribeImageAttribute') stop.abort();
      return before(asked);
    };
    await expect(target.create(createInput(dir, first, '1', { signal: stop.signal }))).rejects.toMatchObject({
      code: 'INTERRUPTED',
    });
    gate.gaps.before = before;
    const [half] = await target.list(syncContext());
    const ref = half?.ref ?? expect.fail('no image');
    const second = await disk('2', DATA);
    await target.create(createInput(dir, second, '2'));
    expect(await target.sweep(await target.list(syncContext()), syncContext())).toBe(0);
    const tags = (Key: string, Value: string) =>
      ec2().send(new CreateTagsCommand({ Resources: [ref], Tags: [{ Key, Value }] }));
    await tags('port-image-alive', '2020-01-01T00:00:00Z');
    // one that says that it is complete is never a leftover
    await tags('port-image-state', 'complete');
    expect(await target.sweep(await target.list(syncContext()), syncContext())).toBe(0);
    await tags('port-image-state', 'in-progress');
    const told = syncContext();
    await target.sweep(await target.list(told), told);
    expect(told.told.warnings).toEqual([]);
    expect((await target.list(told)).map((i) => i.version)).toEqual(['2']);
  });

  test('sharing, update, hide, show again, remove; in use and foreign ones stay', async () => {
    const first = await disk('1', DATA);
    const target = await open();
    const wanted = plainWanted({ visibility: 'shared', members: ['111122223333'], protected: true });
    const { ref } = await target.create(createInput(dir, first, '1', { wanted }));
    const mayStart = async () => {
      const { LaunchPermissions = [] } = await ec2().send(
        new DescribeImageAttributeCommand({ ImageId: ref, Attribute: 'launchPermission' }),
      );
      return LaunchPermissions.map((p) => p.UserId ?? p.Group);
    };
    const look = async () => (await target.list(syncContext()))[0] ?? expect.fail('no image');
    expect(await mayStart()).toEqual(['111122223333']);
    await expect(target.remove(await look(), syncContext())).rejects.toMatchObject({
      code: 'CLOUD_CONFLICT',
    });
    await target.hide(await look(), syncContext());
    expect(gate.gaps.deprecated.has(ref)).toBe(true);
    const hidden = await look();
    expect(hidden).toMatchObject({ hidden: true, protected: true });
    expect(Date.now() - Date.parse(hidden.hiddenAt)).toBeLessThan(60_000);
    await target.hide(hidden, syncContext());
    await target.update(
      hidden,
      plainWanted({ name: 'shop two', visibility: 'public', properties: { os_type: 'linux' } }),
      'wanted-2',
      syncContext(),
    );
    expect(await mayStart()).toEqual(['all']);
    expect(gate.gaps.deprecated.has(ref)).toBe(false);
    expect(await look()).toMatchObject({
      hidden: false,
      protected: false,
      wanted: 'wanted-2',
      name: 'shop two',
    });
    const tags = await tagsOf(ref);
    expect(tags).toMatchObject({ 'property:os_type': 'linux' });
    expect(tags).not.toHaveProperty('property:os_distro');

    // Somebody's copy with all of our tags is none of ours.
    const copy = await ec2().send(
      new CopyImageCommand({ Name: 'mine', SourceImageId: ref, SourceRegion: options().region }),
    );
    await ec2().send(
      new CreateTagsCommand({
        Resources: [copy.ImageId ?? ''],
        Tags: (await imageOf(ref))?.Tags ?? [],
      }),
    );
    expect(await target.list(syncContext())).toHaveLength(1);
    const run = await ec2().send(new RunInstancesCommand({ ImageId: ref, MinCount: 1, MaxCount: 1 }));
    const instance = run.Instances?.[0]?.InstanceId ?? '';
    await expect(target.remove(await look(), syncContext())).rejects.toMatchObject({
      code: 'CLOUD_CONFLICT',
      message: expect.stringContaining(instance),
    });
    await ec2().send(new TerminateInstancesCommand({ InstanceIds: [instance] }));
    const last = await look();
    await target.remove(last, syncContext());
    await target.remove(last, syncContext());
    expect(await target.list(syncContext())).toEqual([]);
    expect(await ourSnapshots()).toEqual([]);
    expect((await imageOf(copy.ImageId ?? ''))?.Name).toBe('mine');
  });

  test('wrong targets, rules and disks are refused before anything is made', async () => {
    const bad = (more: object) =>
      openAwsTarget('west', TargetConfig.parse({ platform: 'aws', options: { ...options(), ...more } }), {
        sync: 'nightly',
        stateDir: dir,
      }).catch((e: unknown) => e);
    expect(await bad({ copyTo: ['us-east-1'] })).toMatchObject({ code: 'CONFIG' });
    expect(await bad({ region: 'nowhere' })).toMatchObject({ code: 'CONFIG' });
    const first = await disk('1', DATA);
    const target = await open();
    const create = (more: object) => target.create(createInput(dir, first, '1', more));
    await expect(create({ wanted: plainWanted({ visibility: 'community' }) })).rejects.toMatchObject({
      code: 'CONFIG',
    });
    await expect(
      create({ wanted: plainWanted({ visibility: 'shared', members: ['me'] }) }),
    ).rejects.toMatchObject({ code: 'CONFIG' });
    // Changed behind its index.
    await diskFile(first.rawPath, DISK, { 8: 'random' }, undefined);
    await expect(create({})).rejects.toMatchObject({ code: 'SOURCE_CHANGED' });
    expect(gate.registered).toHaveLength(0);
  });
});
