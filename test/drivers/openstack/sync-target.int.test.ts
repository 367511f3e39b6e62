import * as path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { PortError } from '../../../core/errors.ts';
import { MIB } from '../../../core/sizes.ts';
import type { LocalDisk, TargetImage } from '../../../core/sync/types.ts';
import { diskFile, plainWanted, syncContext } from '../../support/sync-input.ts';
import { type SyncPlace, syncPlace } from './sync-support.ts';

const DISK_BYTES = 160 * MIB;
/** 40 MiB that do not compress, spread over the disk: three packs. */
const DATA = Object.fromEntries(Array.from({ length: 40 }, (_, n) => [n * 3, 'random' as const]));
let place: SyncPlace;
let disk: LocalDisk;
let next = 0;
let sync = '';

beforeAll(async () => {
  place = await syncPlace('sync');
  disk = await diskFile(path.join(place.dir, 'night-1.raw'), DISK_BYTES, DATA);
});
beforeEach(() => {
  place.reset();
  sync = `night${++next}`;
});
afterAll(() => place?.close());

const ctx = syncContext();
const one = async (target: { list(c: typeof ctx): Promise<TargetImage[]> }): Promise<TargetImage> => {
  const [image, ...more] = await target.list(ctx);
  expect(more).toEqual([]);
  if (image === undefined) throw new Error('no image there');
  return image;
};

test('first night, unchanged night, a night with one block changed', async () => {
  const target = await place.target(sync);
  const made = await target.create(await place.input(disk, '1', { owner: 'run-1@here' }));
  expect(made).toMatchObject({ method: 'blocks', adopted: false, content: 'ok', changedBytes: 40 * MIB });
  expect(place.sentBytes()).toBeGreaterThan(40 * MIB);
  // What is counted is what passed.
  expect(Math.abs(made.sentBytes - place.sentBytes())).toBeLessThan(64 * 1024);
  await place.sameDisk(made.ref, disk);
  const [shown] = await place.images(sync);
  expect(shown).toMatchObject({
    id: made.ref,
    name: 'shop',
    visibility: 'private',
    status: 'active',
    disk_format: 'qcow2',
    min_disk: 1,
    min_ram: 512,
    os_distro: 'debian',
    port_image_sync: sync,
    port_image_series: 'shop',
    port_image_version: '1',
    port_image_sha256: disk.index.rawSha256,
    port_image_state: 'complete',
    port_image_sync_wanted: 'wanted-1',
  });
  expect(shown).not.toHaveProperty('port_image_sync_alive');
  expect(
    (await place.objectsOf(sync)).filter(({ name }) => !/^(packs\/|tables\/|zeros$)/.test(name)),
  ).toEqual([]);

  place.reset();
  const again = await place.target(sync);
  const before = again.calls();
  expect(before).toBe(1);
  expect(await again.list(ctx)).toHaveLength(1);
  expect(again.calls()).toBeLessThanOrEqual(3);
  expect(place.sentBytes()).toBe(0);
  const adopted = await again.create(await place.input(disk, '1', { owner: 'run-2@here' }));
  expect(adopted).toMatchObject({ ref: made.ref, adopted: true, sentBytes: 0, changedBytes: 0 });
  expect(place.objects.sentBytes()).toBe(0);

  place.reset();
  const changed = await diskFile(path.join(place.dir, 'night-2.raw'), DISK_BYTES, { 3: 'random' }, disk);
  const second = await again.create(await place.input(changed, '2', { owner: 'run-3@here' }));
  expect(second).toMatchObject({ method: 'blocks', adopted: false, changedBytes: MIB });
  expect(place.sentBytes()).toBeLessThanOrEqual(1.1 * MIB);
  await place.sameDisk(second.ref, changed);
  await place.sameDisk(made.ref, disk);
});

test('a disk of an odd size, shared blocks, and zeros', async () => {
  const block = Buffer.alloc(MIB, 'the same everywhere ');
  const odd = await diskFile(path.join(place.dir, 'odd.raw'), 5 * MIB + 512 * 3, {
    0: block,
    2: block,
    3: 'zero',
    5: Buffer.alloc(1536, 7),
  });
  const target = await place.target(sync);
  const made = await target.create(await place.input(odd, '1'));
  expect(made).toMatchObject({ method: 'blocks', changedBytes: 2 * MIB, content: 'ok' });
  await place.sameDisk(made.ref, odd);
  const empty = await diskFile(path.join(place.dir, 'empty.raw'), 3 * MIB, {});
  const none = await target.create(await place.input(empty, '2'));
  expect(none).toMatchObject({ changedBytes: 0, content: 'ok' });
  await place.sameDisk(none.ref, empty);
});

test('two at once make one image', async () => {
  const targets = [await place.target(sync, { state: 'one' }), await place.target(sync, { state: 'two' })];
  const results = await Promise.allSettled(
    targets.map(async (target, n) =>
      target.create(
        await place.input(disk, '1', { owner: `run-${n}@host-${n}`, state: ['one', 'two'][n] ?? '' }),
      ),
    ),
  );
  const made = results.flatMap((r) => (r.status === 'fulfilled' ? [r.value] : []));
  const refused = results.flatMap((r) => (r.status === 'rejected' ? [r.reason as PortError] : []));
  expect(refused.map(({ code, temporary }) => [code, temporary])).toEqual([['SYNC_BUSY', true]]);
  expect(made.map(({ adopted }) => adopted)).toEqual([false]);
  expect((await place.images(sync)).map(({ id }) => id)).toEqual([made[0]?.ref]);
  const later = await targets[1]?.create(await place.input(disk, '1', { state: 'two' }));
  expect(later).toMatchObject({ ref: made[0]?.ref, adopted: true, sentBytes: 0 });
});

test('whole images where deltas are off', async () => {
  const target = await place.target(sync, { delta: 'off' });
  const made = await target.create(await place.input(disk, '1'));
  expect(made).toMatchObject({ method: 'put', adopted: false, content: 'ok' });
  await place.sameDisk(made.ref, disk);
  expect(await place.objectsOf(sync)).toEqual([]);
  expect(await one(target)).toMatchObject({ state: 'complete', wanted: 'wanted-1' });
});

test('nothing can be seen before it is proved', async () => {
  const target = await place.target(sync);
  const wanted = plainWanted({ visibility: 'community', name: 'seen' });
  const input = await place.input(disk, '1', { wanted });
  const seen: unknown[] = [];
  const prove = async () => {
    const [image] = await place.images(sync);
    seen.push(image?.visibility, image?.name === 'seen', image?.port_image_state);
    throw new PortError('VERIFY_FAILED', 'it does not boot');
  };
  await expect(target.create({ ...input, prove })).rejects.toMatchObject({ code: 'VERIFY_FAILED' });
  expect(seen).toEqual(['private', false, 'in-progress']);
  expect(await place.images(sync)).toEqual([]);
  // Its id is used up; its blocks are there.
  place.reset();
  const made = await target.create({ ...(await place.input(disk, '1', { wanted })), prove: async () => {} });
  expect(made.adopted).toBe(false);
  expect(place.sentBytes()).toBeLessThan(MIB);
  expect((await place.images(sync)).map((i) => [i.id, i.visibility])).toEqual([[made.ref, 'community']]);
});

test('update, hide, show again, remove, sweep', async () => {
  const target = await place.target(sync);
  const other = await place.cloud.project('sync-member');
  try {
    const wanted = plainWanted({ properties: { os_distro: 'debian', hw_disk_bus: 'virtio' } });
    const made = await target.create(await place.input(disk, '1', { wanted }));
    let image = await one(target);
    place.reset();
    const shared = plainWanted({ name: 'other', visibility: 'shared', members: [other.projectId] });
    await target.update(image, shared, 'wanted-2', ctx);
    image = await one(target);
    expect(image).toMatchObject({ name: 'other', wanted: 'wanted-2', state: 'complete' });
    const [shown] = await place.images(sync);
    expect(shown).toMatchObject({ visibility: 'shared', os_distro: 'debian' });
    expect(shown).not.toHaveProperty('hw_disk_bus');
    expect(await membersOf(made.ref)).toEqual([other.projectId]);
    await target.update(image, { ...shared, members: [] }, 'wanted-3', ctx);
    expect(await membersOf(made.ref)).toEqual([]);

    await target.hide(image, ctx);
    await target.hide(await one(target), ctx);
    image = await one(target);
    expect(image).toMatchObject({ hidden: true });
    expect(Date.now() - Date.parse(image.hiddenAt)).toBeLessThan(60_000);
    await target.update(image, shared, 'wanted-4', ctx);
    image = await one(target);
    expect(image).toMatchObject({ hidden: false, hiddenAt: '', wanted: 'wanted-4' });

    await target.update(image, { ...shared, protected: true }, 'wanted-5', ctx);
    image = await one(target);
    expect(image.protected).toBe(true);
    await expect(target.remove(image, ctx)).rejects.toMatchObject({
      code: 'CLOUD_CONFLICT',
      message: expect.stringContaining('protected'),
    });
    await target.update(image, shared, 'wanted-6', ctx);

    const changed = await diskFile(path.join(place.dir, 'swept.raw'), DISK_BYTES, { 3: 'random' }, disk);
    const second = await target.create(await place.input(changed, '2'));
    await target.remove(await imageOf('1'), ctx);
    await target.remove({ ...image, ref: made.ref }, ctx);
    expect((await place.images(sync)).map(({ id }) => id)).toEqual([second.ref]);
    // Packs young enough to belong to a run that is alive stay.
    expect(await target.sweep(await target.list(ctx), ctx)).toBe(0);
    await place.sameDisk(second.ref, changed);
    // The next night still finds all of its blocks.
    place.reset();
    const third = await diskFile(path.join(place.dir, 'third.raw'), DISK_BYTES, { 6: 'random' }, changed);
    await target.create(await place.input(third, '3'));
    expect(place.sentBytes()).toBeLessThanOrEqual(1.1 * MIB);
  } finally {
    await other.cleanup();
  }
  async function imageOf(version: string): Promise<TargetImage> {
    const found = (await target.list(ctx)).find((image) => image.version === version);
    if (found === undefined) throw new Error(`no version ${version}`);
    return found;
  }
});

async function membersOf(id: string): Promise<string[]> {
  const user = await place.project.login();
  const answer = await user.request('GET', `${place.cloud.imageUrl}/v2/images/${id}/members`);
  return (JSON.parse(answer.text) as { members: { member_id: string }[] }).members.map((m) => m.member_id);
}

test('a sweep frees what nobody needs, but not while a run is under way', async () => {
  const target = await place.target(sync, { staleAfterMs: 500 });
  const keep = await diskFile(path.join(place.dir, 'keep.raw'), 24 * MIB, { 0: 'random', 9: 'random' });
  const drop = await diskFile(path.join(place.dir, 'drop.raw'), 24 * MIB, { 1: 'random', 8: 'random' });
  const kept = await target.create(await place.input(keep, '1'));
  await target.create(await place.input(drop, '2'));
  const second = (await target.list(ctx)).find(({ version }) => version === '2');
  if (second === undefined) throw new Error('no second one');
  await target.remove(second, ctx);
  await sleep(1500);
  // A run that is under way in another place, and looks at the packs.
  const other = await place.target(sync, { state: 'two', owner: 'run-9@two' });
  const input = await place.input(drop, '3', { owner: 'run-9@two', state: 'two', staleAfterMs: 60_000 });
  const sweeper = await place.target(sync, { staleAfterMs: 1000 });
  let freed = -1;
  await other.create({
    ...input,
    prove: async () => {
      freed = await sweeper.sweep(
        (await sweeper.list(ctx)).filter(({ version }) => version === '1'),
        ctx,
      );
    },
  });
  expect(freed).toBe(0);
  const third = (await target.list(ctx)).find(({ version }) => version === '3');
  if (third === undefined) throw new Error('no third one');
  await place.sameDisk(third.ref, drop);
  await target.remove(third, ctx);
  await sleep(1500);
  expect(await target.sweep(await target.list(ctx), ctx)).toBeGreaterThanOrEqual(2 * MIB);
  expect(await target.sweep(await target.list(ctx), ctx)).toBe(0);
  await place.sameDisk(kept.ref, keep);
  place.reset();
  const next = await diskFile(
    path.join(place.dir, 'next.raw'),
    24 * MIB,
    { 5: Buffer.alloc(MIB, 'x') },
    keep,
  );
  const last = await target.create(await place.input(next, '4'));
  expect(place.sentBytes()).toBeLessThan(MIB / 2);
  await place.sameDisk(last.ref, next);
});

test('what is not of this sync is left alone', async () => {
  const target = await place.target(sync);
  const stranger = await place.target(`${sync}-other`);
  const made = await stranger.create(await place.input(disk, '1'));
  expect(await target.list(ctx)).toEqual([]);
  expect(await target.sweep([], ctx)).toBe(0);
  const own = await target.create(await place.input(disk, '1'));
  expect(own.ref).not.toBe(made.ref);
  expect(await stranger.list(ctx)).toHaveLength(1);
});
