/** Nights of `port-image sync` between two clouds, EC2 and Azure: what is promised for each, told by clients that are not ours. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { SyncPlan, SyncReport } from '../core/sync/types.ts';
import { openStore } from '../drivers/stores/index.ts';
import { startCloud } from './support/cloud.ts';
import { changedBlocks, type Nights, nights, noNights } from './support/nightly.ts';
import { type SmallGuest, smallGuest } from './support/small-guest.ts';
import { putSmallSet } from './support/small-set.ts';
import {
  amis,
  blobNames,
  glanceImages,
  runInstance,
  s3Objects,
  sameInGlance,
  snapshots,
  swiftObjects,
  uploadImage,
} from './support/sync-checks.ts';
import { isThere, outcomeOf } from './support/sync-night.ts';
import {
  noSyncWorld,
  openSyncWorld,
  type SyncWorld,
  TARGETS,
  type TargetName,
} from './support/sync-world.ts';

const MIB = 2 ** 20;
/** Names of clouds nobody else starts. */
const CLOUDS = { a: 'nights-a', b: 'nights-b' };
const DATA_SET = 'web01-srv-0123456789';
/** Logins and questions have bodies too. */
const QUESTION_BYTES = 32 * 1024;

const missing = noNights() ?? (await noSyncWorld());
let world: SyncWorld;
let both: Nights;
let small: SmallGuest;
let file = '';

const results = (report: SyncReport, series: string, targets: readonly TargetName[] = TARGETS) =>
  Object.fromEntries(targets.map((target) => [target, outcomeOf(report, target, series).result]));

const all = (result: string) => ({ b: result, aws: result, azure: result });

const put = (guest: { qcow2: string }, name: string, properties: Record<string, string> = {}) =>
  uploadImage(world.a, guest.qcow2, { name, properties: { hw_firmware_type: 'bios', ...properties } });

describe.skipIf(missing)('nights', () => {
  beforeAll(async () => {
    both = await nights();
    world = await openSyncWorld(CLOUDS);
    Object.assign(process.env, world.env);
    const store = openStore(world.stores.a, { cloud: 'A' });
    await putSmallSet(store, DATA_SET);
    await store.close?.();
    small = smallGuest(world.dir, 'db01');
    await put({ qcow2: both.qcow2[0] }, 'web01', { port_image_data: DATA_SET });
    await put(small, 'db01');
    file = world.write('nights', {
      sources: { a: { glance: { cloud: 'A', names: ['web01', 'db01'] }, store: world.stores.a } },
      targets: world.targets,
      rules: [{ data: 'carry' }],
      retention: { keep: 20 },
      limits: { attempts: 1 },
    });
    // Of somebody else: never to be touched.
    await uploadImage(world.b, small.qcow2, { name: 'db01' });
  });
  afterAll(async () => {
    await world?.close();
  });

  test('first: all images and data are everywhere, and are the same', async () => {
    const plan = (await world.cli([file, '--plan', '--json'])).json() as SyncPlan;
    expect(plan.actions.map(({ verb }) => verb)).toEqual(Array(6).fill('create'));
    expect(await blobNames(world)).toEqual([]);
    const report = await world.sync(file);
    expect(report).toMatchObject({ exitStatus: 0, unreachable: [], interrupted: false });
    for (const series of ['web01', 'db01']) expect(results(report, series)).toEqual(all('done'));
    await isThere(world, [report], 'web01', both.raw[0]);
    await isThere(world, [report], 'db01', small.raw);
    expect(report.dataSets.map(({ result }) => result)).toEqual(Array(3).fill('done'));
    const sizes = (objects: { bytes: number }[]) => objects.map(({ bytes }) => bytes).sort((x, y) => x - y);
    const of = (objects: { name: string; bytes: number }[]) =>
      objects.filter(({ name }) => name.includes(DATA_SET));
    expect(sizes(of(await s3Objects(world)))).toEqual(sizes(of(await swiftObjects(world.a))));
  });

  test('unchanged: no data, at most three calls for an image and target', async () => {
    const before = [await glanceImages(world.b), await swiftObjects(world.b), await amis(world)];
    for (const target of TARGETS) world.counted[target].reset();
    const report = await world.sync(file);
    expect(report.exitStatus).toBe(0);
    for (const series of ['web01', 'db01']) expect(results(report, series)).toEqual(all('skipped'));
    for (const target of TARGETS) {
      expect(report.calls[target], target).toBeLessThanOrEqual(3 * 2);
      expect(world.counted[target].sentBytes(), target).toBeLessThan(QUESTION_BYTES);
    }
    expect(
      report.outcomes.reduce((sum, { sentBytes, receivedBytes }) => sum + sentBytes + receivedBytes, 0),
    ).toBe(0);
    expect(report.dataSets.every(({ result, sentBytes }) => result === 'skipped' && sentBytes === 0)).toBe(
      true,
    );
    expect([await glanceImages(world.b), await swiftObjects(world.b), await amis(world)]).toEqual(before);
  });

  test('one package: at most 1.1 of what changed is sent', async () => {
    const changed = (await changedBlocks(...both.raw)) * MIB;
    await put({ qcow2: both.qcow2[1] }, 'web01', { port_image_data: DATA_SET });
    for (const target of TARGETS) world.counted[target].reset();
    const report = await world.sync(file);
    expect(report.exitStatus).toBe(0);
    expect(results(report, 'web01')).toEqual(all('done'));
    expect(results(report, 'db01')).toEqual(all('skipped'));
    for (const target of TARGETS) {
      const { sentBytes, changedBytes } = outcomeOf(report, target, 'web01');
      expect(changedBytes, target).toBeLessThanOrEqual(changed);
      expect(sentBytes, target).toBeLessThanOrEqual(1.1 * changed);
      // the same, told by the wire
      expect(world.counted[target].sentBytes(), target).toBeLessThanOrEqual(1.1 * changed);
    }
    await isThere(world, [report], 'web01', both.raw[1]);
  });

  test('a cloud is down: it is named, the others are done, the next night heals', async () => {
    small.change(2);
    await put(small, 'db01');
    await world.b.cloud.down();
    let report: SyncReport;
    try {
      report = await world.sync(file);
    } finally {
      await startCloud({ name: CLOUDS.b });
    }
    expect(report.exitStatus).not.toBe(0);
    expect(report.unreachable).toMatchObject([{ kind: 'target', name: 'b' }]);
    expect(results(report, 'db01', ['aws', 'azure'])).toEqual({ aws: 'done', azure: 'done' });
    const page = path.join(path.dirname(file), 'state', 'runs', report.run, 'report.html');
    expect(readFileSync(page, 'utf8')).toContain(report.unreachable[0]?.message.slice(0, 20));
    const healed = await world.sync(file);
    expect(healed.exitStatus).toBe(0);
    expect(results(healed, 'db01')).toEqual({ b: 'done', aws: 'skipped', azure: 'skipped' });
    expect(outcomeOf(healed, 'b', 'db01').sentBytes).toBeLessThanOrEqual(1.1 * 2 * MIB);
    const image = (await glanceImages(world.b)).find(({ id }) => id === outcomeOf(healed, 'b', 'db01').ref);
    if (image === undefined) throw new Error('not there');
    await sameInGlance(world.b, image, small.raw, world.dir);
  });

  test('a quota is full: it is named, the others are done, nothing stays, the next night heals', async () => {
    small.change(3);
    await put(small, 'db01');
    const before = (await glanceImages(world.b)).map(({ id }) => id).sort();
    await world.b.project.limitImages({ image_size_total: 1 });
    let report: SyncReport;
    try {
      report = await world.sync(file);
    } finally {
      await world.b.project.limitImages({ image_size_total: 2 ** 20 });
    }
    expect(report.exitStatus).not.toBe(0);
    const refused = outcomeOf(report, 'b', 'db01');
    expect(refused.result).toBe('failed');
    expect(`${refused.code} ${refused.message} ${refused.hint}`).toMatch(/quota/i);
    expect(results(report, 'db01', ['aws', 'azure'])).toEqual({ aws: 'done', azure: 'done' });
    expect((await glanceImages(world.b)).map(({ id }) => id).sort()).toEqual(before);
    const healed = await world.sync(file);
    expect(healed.exitStatus).toBe(0);
    expect(results(healed, 'db01')).toEqual({ b: 'done', aws: 'skipped', azure: 'skipped' });
  });

  test('retention: the newest stay, older ones are hidden, then deleted; pinned, protected and used ones stay', async () => {
    const guest = smallGuest(world.dir, 'keep01', { sizeMib: 64, usedMib: 3 });
    const config = (more: object) =>
      world.write('keep', {
        sources: { a: { glance: { cloud: 'A', names: ['keep01'] } } },
        targets: { b: world.targets.b, aws: world.targets.aws },
        retention: { keep: 1, hideFor: '0s', ...more },
        limits: { attempts: 1 },
      });
    const versions: string[] = [];
    const places = ['b', 'aws'] as const;
    const inGlance = async () =>
      (await glanceImages(world.b)).filter(({ name, id }) => name === 'keep01' && refs.b.includes(id));
    const refs: Record<(typeof places)[number], string[]> = { b: [], aws: [] };
    const round = async (more: object = {}) => {
      await put(guest, 'keep01');
      const report = await world.sync(config(more));
      for (const place of places) refs[place].push(outcomeOf(report, place, 'keep01').ref ?? '');
      versions.push(outcomeOf(report, 'b', 'keep01').action.version);
      guest.change(1);
      return report;
    };
    expect((await round()).exitStatus).toBe(0);
    // The version before is hidden only when the new one is there.
    const second = await round({ pins: [`keep01@${versions[0]}`] });
    expect(second.exitStatus).toBe(0);
    expect((await inGlance()).map(({ os_hidden }) => os_hidden)).toEqual([false, false]);
    const third = await round({ pins: [`keep01@${versions[0]}`] });
    expect(
      third.outcomes.filter(({ action }) => action.verb === 'hide').map(({ action }) => action.version),
    ).toEqual([versions[1], versions[1]]);
    expect((await inGlance()).find(({ id }) => id === refs.b[1])?.os_hidden).toBe(true);
    // moto does not know of it; the gate before it does
    expect([...world.gate.gaps.deprecated.keys()]).toEqual([refs.aws[1]]);
    // Somebody runs an instance of the hidden one in EC2; in B it goes.
    await runInstance(world, refs.aws[1] ?? '');
    await world.sync(config({ pins: [`keep01@${versions[0]}`] }));
    expect((await inGlance()).map(({ id }) => id).sort()).toEqual([refs.b[0], refs.b[2]].sort());
    expect((await amis(world)).map(({ ImageId }) => ImageId)).toEqual(expect.arrayContaining(refs.aws));
    // No longer pinned, but protected by hand.
    await protect(refs.b[0] ?? '', true);
    await world.sync(config({}));
    const blocked = await world.sync(config({}));
    expect(JSON.stringify(blocked)).toMatch(/protected/);
    expect((await inGlance()).map(({ id }) => id).sort()).toEqual([refs.b[0], refs.b[2]].sort());
    await protect(refs.b[0] ?? '', false);
    await world.sync(config({}));
    // The last good one stays even when no source has it any more.
    const without = (names: string[]) =>
      world.write('keep', {
        sources: { a: { glance: { cloud: 'A', names } } },
        targets: { b: world.targets.b },
        retention: { keep: 1, hideFor: '0s', maxAge: '1h' },
      });
    expect((await world.sync(without(['db01']))).exitStatus).toBe(0);
    const last = async () => (await inGlance()).map(({ id, os_hidden }) => [id, os_hidden]);
    expect(await last()).toEqual([[refs.b[2], false]]);
    // A source that has nothing at all is a mistake of somebody, and no night to tidy up.
    const empty = await world.sync(without(['nothing-of-this-name']));
    expect(empty).toMatchObject({
      exitStatus: 4,
      unreachable: [{ name: 'a', code: 'SOURCE_EMPTY' }],
      outcomes: [],
    });
    expect(await last()).toEqual([[refs.b[2], false]]);
  });

  test('an image that does not boot is never shown where a boot is asked for', async () => {
    // Its boot sector gives up at once (INT 18h) and so spares the wait for a guest that hangs.
    const { raw } = smallGuest(world.dir, 'noboot01', { sizeMib: 64, usedMib: 3 });
    const handle = await fs.open(raw, 'r+');
    await handle.write(Buffer.from([0xcd, 0x18]), 0, 2, 0);
    await handle.close();
    const properties = { hw_firmware_type: 'bios' };
    await uploadImage(world.a, raw, { name: 'noboot01', format: 'raw', properties });
    const file = world.write('boots', {
      sources: { a: { glance: { cloud: 'A', names: ['noboot01'] } } },
      targets: { b: { ...world.targets.b, verify: 'boot' } },
      rules: [{ visibility: 'community', name: 'boots-{name}' }],
      limits: { attempts: 1 },
    });
    const report = await world.sync(file);
    expect(report.exitStatus).toBe(7);
    expect(report.outcomes).toMatchObject([{ result: 'failed', code: 'VERIFY_FAILED' }]);
    expect(report.outcomes[0]?.message).toContain('no boot device');
    const ours = (await glanceImages(world.b)).filter((image) => image.port_image_sync === 'boots');
    for (const image of ours)
      expect([image.visibility, image.port_image_state]).toEqual(['private', 'in-progress']);
    expect((await glanceImages(world.b)).filter(({ name }) => name.startsWith('boots-'))).toEqual([]);
  });

  async function protect(id: string, value: boolean): Promise<void> {
    const user = await world.b.project.login();
    const { status } = await user.request('PATCH', `${world.b.cloud.imageUrl}/v2/images/${id}`, {
      headers: { 'content-type': 'application/openstack-images-v2.1-json-patch' },
      body: [{ op: 'replace', path: '/protected', value }],
    });
    expect(status).toBe(200);
  }

  test('killed at any moment: nothing half-made is visible, the next run adopts, nothing leaks', async () => {
    const guest = smallGuest(world.dir, 'kill01', { sizeMib: 128, usedMib: 64 });
    const config = {
      sources: { a: { glance: { cloud: 'A', names: ['kill01'] } } },
      retention: { keep: 20 },
      staleAfter: '1m',
    };
    const { b, aws, azure } = world.targets;
    // In B everybody shall see it, which the others know no word for.
    const seen = world.write('seen', { ...config, targets: { b }, rules: [{ visibility: 'community' }] });
    const kept = world.write('kept', { ...config, targets: { aws, azure } });
    const rounds = 3;
    for (let round = 0; round < rounds; round++) {
      await put(guest, 'kill01');
      for (let times = 0; times < 2; times++) {
        const afterMs = () => 1000 + Math.random() * 6000;
        await Promise.all([seen, kept].map((one) => world.kill([one], afterMs())));
        for (const image of await glanceImages(world.b))
          if (image.name === 'kill01' && image.visibility !== 'private')
            expect(image).toMatchObject({ status: 'active', port_image_state: 'complete' });
        const complete = (await snapshots(world)).flatMap(({ SnapshotId, State }) =>
          State === 'completed' ? [SnapshotId] : [],
        );
        for (const ami of await amis(world))
          expect(complete).toContain(ami.BlockDeviceMappings?.[0]?.Ebs?.SnapshotId);
      }
      const reports = [await world.sync(seen), await world.sync(kept)];
      for (const report of reports) expect(report.exitStatus, JSON.stringify(report.outcomes)).toBe(0);
      await isThere(world, reports, 'kill01', guest.raw);
      guest.change(4);
    }
    for (const one of [seen, kept]) {
      const report = await world.sync(one);
      expect(report.outcomes.map(({ result }) => result).join()).toMatch(/^skipped(,skipped)?$/);
      expect(report.freedBytes).toBe(0);
      const state = path.join(path.dirname(one), 'state');
      for (const scratch of ['tmp', 'images'])
        expect(existsSync(path.join(state, scratch)) ? readdirSync(path.join(state, scratch)) : []).toEqual(
          [],
        );
    }
    // As many as there are versions, and nothing beside them.
    const images = (await glanceImages(world.b)).filter(({ name }) => name === 'kill01');
    expect(images.map(({ status, visibility }) => [status, visibility])).toEqual(
      Array(rounds).fill(['active', 'community']),
    );
    const made = (await amis(world)).filter(({ Name }) => Name.includes('kill01'));
    expect(made).toHaveLength(rounds);
    const used = (await amis(world)).map((ami) => ami.BlockDeviceMappings?.[0]?.Ebs?.SnapshotId);
    for (const { SnapshotId } of await snapshots(world)) expect(used).toContain(SnapshotId);
    const blobs = await blobNames(world, 'kept/');
    expect(blobs.filter((name) => name.endsWith('.vhd'))).toHaveLength(rounds);
    expect(blobs).toHaveLength(2 * rounds);
    const inArm = [...world.arm.resources.values()].filter(({ name }) => name.startsWith('kill01'));
    expect(inArm).toHaveLength(rounds);
    // In B's Swift: blocks of the versions and one object of zeros, nothing of runs under way.
    const objects = (await swiftObjects(world.b)).filter(({ name }) =>
      name.startsWith('port-image-sync-seen/'),
    );
    expect(objects.filter(({ name }) => name.includes('/tables/'))).toHaveLength(rounds);
    expect(objects.filter(({ name }) => !/\/(packs\/|tables\/|zeros$)/.test(name))).toEqual([]);
    expect(readFileSync('/proc/mounts', 'utf8')).not.toContain(world.dir);
  });
});
