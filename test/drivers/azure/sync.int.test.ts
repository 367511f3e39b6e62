import { execFileSync, spawn } from 'node:child_process';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { PortError } from '../../../core/errors.ts';
import { MIB } from '../../../core/sizes.ts';
import { TargetConfig } from '../../../core/sync/config.ts';
import type { LocalDisk, SyncTarget } from '../../../core/sync/types.ts';
import { openAzureTarget, openAzureTargetWith } from '../../../drivers/azure/sync/target.ts';
import { vhdFaults } from '../../../tools/vhd-footer.ts';
import { hasAzurite } from '../../support/azurite.ts';
import {
  createInput,
  type DiskChange,
  diskFile,
  plainWanted,
  syncContext,
} from '../../support/sync-input.ts';
import { startWorld, type World } from './azure-world.ts';

const has = await hasAzurite();
const DISK = 48 * MIB;
const DATA: DiskChange = Object.fromEntries([0, 1, 2, 3, 8, 9, 10, 20, 21, 40].map((n) => [n, 'random']));
let world: World;
let sync = '';
let runs = 0;
const opened: SyncTarget[] = [];

beforeAll(async () => {
  if (has) world = await startWorld();
});
afterAll(async () => world?.close());
beforeEach(() => {
  runs += 1;
  sync = `nightly-${runs}`;
  world?.proxy.reset();
});
afterEach(async () => {
  for (const target of opened.splice(0)) await target.close();
  expect(world?.arm.problems ?? []).toEqual([]);
});

async function open(more: object = {}, options: Record<string, unknown> = {}): Promise<SyncTarget> {
  const config = TargetConfig.parse({ platform: 'azure', options: world.options(options), ...more });
  const target = await openAzureTargetWith('west', config, { sync, stateDir: world.dir }, 5);
  opened.push(target);
  return target;
}
const disk = (name: string, change: DiskChange, base?: LocalDisk, bytes = DISK) =>
  diskFile(path.join(world.dir, `${sync}-${name}.raw`), bytes, change, base);
const blobs = async (): Promise<string[]> => {
  const names: string[] = [];
  for await (const { name } of world.container.listBlobsFlat({ prefix: `${sync}/` })) names.push(name);
  return names.sort();
};
const vhdOf = async (version: string): Promise<string> =>
  (await blobs()).find((name) => name.startsWith(`${sync}/shop/${version}-`) && name.endsWith('.vhd')) ??
  expect.fail(`no disk of version ${version}`);

/** Downloads a disk past our own code, and lets qemu-img compare it. */
async function expectShows(version: string, wanted: LocalDisk, bytes = DISK): Promise<void> {
  const file = path.join(world.dir, `${sync}-back.vhd`);
  await world.container.getBlobClient(await vhdOf(version)).downloadToFile(file);
  expect(await vhdFaults(file, { kind: 'fixed', virtualBytes: bytes })).toEqual([]);
  execFileSync('qemu-img', ['compare', '-f', 'vpc', '-F', 'raw', file, wanted.rawPath]);
}

describe.skipIf(!has)('Azure as a target of a sync, by Azurite', () => {
  test('first night, unchanged night, changed nights; the version before stays what it was', async () => {
    const first = await disk('1', DATA);
    const target = await open();
    const proved: string[] = [];
    const input = createInput(world.dir, first, '1', {
      prove: async () => {
        proved.push(...[...world.arm.resources.values()].map((r) => r.name).filter((n) => n.includes(sync)));
        proved.push((await target.list(syncContext()))[0]?.state ?? 'none');
      },
    });
    const made = await target.create(input);
    expect(proved).toEqual(['in-progress']);
    expect(made).toMatchObject({
      adopted: false,
      method: 'page-blob',
      sentBytes: 10 * MIB + 512,
      changedBytes: 10 * MIB,
      dataBytes: 10 * MIB,
    });
    await expectShows('1', first);
    const resource = [...world.arm.resources.values()].find((r) => r.id === made.ref);
    expect(resource?.tags).toMatchObject({ 'port-image-sync': sync, 'property-os_distro': 'debian' });

    const calls = target.calls();
    const [listed, ...others] = await target.list(syncContext());
    expect(target.calls() - calls).toBe(1);
    expect(others).toEqual([]);
    expect(listed).toMatchObject({
      ref: made.ref,
      series: 'shop',
      version: '1',
      rawSha256: first.index.rawSha256,
      fileDigest: `sha256:${first.index.rawSha256}`,
      state: 'complete',
      name: 'shop',
      wanted: 'wanted-1',
      hidden: false,
    });
    const again = await target.create(createInput(world.dir, first, '1', { owner: 'run-2@there' }));
    expect(again).toMatchObject({ ref: made.ref, adopted: true, sentBytes: 0, changedBytes: 0 });

    const second = await disk('2', { 1: 'random', 9: 'zero', 30: 'random', 40: 'random' }, first);
    const next = await target.create(createInput(world.dir, second, '2'));
    expect(next).toMatchObject({ adopted: false, method: 'page-ranges', changedBytes: 3 * MIB });
    expect(next.sentBytes).toBeLessThanOrEqual(1.1 * 3 * MIB);
    expect(next.proof).toMatch(/7 blocks were copied|6 blocks were copied/);
    await expectShows('2', second);
    await expectShows('1', first);

    // Larger: the old footer lies within it; then smaller, no whole MiB.
    const third = await disk('3', { 50: 'random' }, second, 52 * MIB);
    expect(await target.create(createInput(world.dir, third, '3'))).toMatchObject({ changedBytes: 1 * MIB });
    await expectShows('3', third, 52 * MIB);
    const fourth = await disk('4', { 44: 'random', 45: 'random' }, third, 45 * MIB + 512);
    const odd = createInput(world.dir, fourth, '4');
    await target.create(odd);
    expect(odd.told.warnings.join()).toContain(`${46 * MIB} bytes`);
    await expectShows('4', fourth, 46 * MIB);
    // An adjusted hand on a disk: it is not copied from any more.
    await world.container.getPageBlobClient(await vhdOf('4')).uploadPages(Buffer.alloc(512, 1), 0, 512);
    await world.container.getPageBlobClient(await vhdOf('3')).setMetadata({});
    const fifth = await disk('5', { 2: 'random' }, second);
    const cautious = await target.create(createInput(world.dir, fifth, '5'));
    expect(cautious).toMatchObject({ method: 'page-ranges', changedBytes: 1 * MIB });
    await expectShows('5', fifth);
    const whole = await open({ delta: 'off' });
    const sixth = await disk('6', { 2: 'random' }, fifth);
    expect(await whole.create(createInput(world.dir, sixth, '6'))).toMatchObject({ method: 'page-blob' });
  });

  test('two at once make one image; the second adopts it', async () => {
    const first = await disk('1', DATA);
    const ends = await Promise.allSettled([
      (await open()).create(createInput(world.dir, first, '1', { owner: 'a@a' })),
      (await open()).create(createInput(world.dir, first, '1', { owner: 'b@b' })),
    ]);
    const failed = ends.filter((e) => e.status === 'rejected').map((e) => e.reason as PortError);
    expect(failed.map((e) => [e.code, e.temporary])).toEqual([['SYNC_BUSY', true]]);
    expect(await blobs()).toHaveLength(2);
    const adopted = await (await open()).create(createInput(world.dir, first, '1', { owner: 'b@b' }));
    expect(adopted).toMatchObject({ adopted: true, sentBytes: 0 });
    await expectShows('1', first);
  });

  test.each(['first', 'delta'])(
    'killed in the middle of a %s night: another place waits, its own goes on',
    async (kind) => {
      const base = await disk('0', DATA);
      const target = await open();
      if (kind === 'delta') await target.create(createInput(world.dir, base, '0'));
      const changed: DiskChange = Object.fromEntries(
        [0, 1, 2, 3, 8, 9, 10, 20, 30, 31].map((n) => [n, 'random']),
      );
      const next = await disk('1', { ...changed, 40: 'zero' }, base);
      const child = spawn(
        process.execPath,
        [
          path.join(import.meta.dirname, 'sync-child.ts'),
          JSON.stringify(world.options()),
          next.rawPath,
          String(DISK),
          '1',
          'run-1@here',
          sync,
        ],
        { stdio: ['ignore', 'inherit', 'inherit'] },
      );
      const ended = new Promise((resolve) => child.once('exit', (_, signal) => resolve(signal)));
      // pages are cleared first, then ten blocks are sent, eight at a time
      const puts = { method: 'PUT', path: /comp=page(&|$)/ };
      world.proxy.on(puts, { delayMs: 200 });
      const before = world.proxy.count(puts);
      const enough = kind === 'delta' ? 12 : 11;
      while (world.proxy.count(puts) - before < enough && child.exitCode === null) await sleep(5);
      child.kill('SIGKILL');
      expect(await ended).toBe('SIGKILL');
      world.proxy.reset();
      const images = await target.list(syncContext());
      expect(images.find((i) => i.version === '1')).toMatchObject({
        state: 'in-progress',
        owner: 'run-1@here',
      });
      await expect(
        target.create(createInput(world.dir, next, '1', { owner: 'run-2@there' })),
      ).rejects.toMatchObject({ code: 'SYNC_BUSY' });
      expect(await target.sweep(images, syncContext())).toBe(0);
      const made = await target.create(createInput(world.dir, next, '1', { owner: 'run-2@here' }));
      // What the killed one sent is there.
      expect(made.sentBytes).toBeLessThan(10 * MIB);
      expect(made.method).toBe(kind === 'delta' ? 'page-ranges' : 'page-blob');
      await expectShows('1', next);
      if (kind === 'delta') await expectShows('0', base);
    },
  );

  test('cut while it is registered, and what does not prove itself: gone on with, without sending', async () => {
    const first = await disk('1', DATA);
    const target = await open();
    const prove = async () => {
      throw new PortError('VERIFY_FAILED', 'no sign of life');
    };
    await expect(target.create(createInput(world.dir, first, '1', { prove }))).rejects.toMatchObject({
      code: 'VERIFY_FAILED',
    });
    world.arm.fault({ method: 'PUT', path: /^\/images\//, status: 403, code: 'AuthorizationFailed' });
    const input = (run: number) =>
      createInput(world.dir, first, '1', { owner: `run-${run}@here`, prove: async () => {} });
    await expect(target.create(input(2))).rejects.toMatchObject({ code: 'CLOUD_REFUSED' });
    await expect(
      target.create(createInput(world.dir, first, '1', { owner: 'run-2@there' })),
    ).rejects.toMatchObject({ code: 'SYNC_BUSY' });
    expect(await target.create(input(3))).toMatchObject({ adopted: false, sentBytes: 0 });
    await expectShows('1', first);
  });

  test('a gallery: versions by name, update, hide, show again, in use, remove, sweep', async () => {
    world.arm.seed('/galleries/shared', { properties: { provisioningState: 'Succeeded' } });
    const target = await open({}, { gallery: 'shared', definition: `shop-${sync}` });
    const first = await disk('1', DATA);
    const { ref } = await target.create(
      createInput(world.dir, first, '2026.08.21', { wanted: plainWanted({ protected: true }) }),
    );
    const second = await disk('2', { 1: 'random' }, first);
    await target.create(createInput(world.dir, second, 'r2-b'));
    expect(ref).toMatch(/\/versions\/2026\.8\.21$/);
    const look = async () =>
      (await target.list(syncContext())).find((i) => i.version === '2026.08.21') ?? expect.fail('no image');
    const resource = () => [...world.arm.resources.values()].find((r) => r.id === ref);
    const isExcluded = () =>
      (resource()?.properties.publishingProfile as { excludeFromLatest?: boolean } | undefined)
        ?.excludeFromLatest ?? false;
    await target.hide(await look(), syncContext());
    expect(isExcluded()).toBe(true);
    const hidden = await look();
    expect(hidden).toMatchObject({ hidden: true, protected: true });
    await target.hide(hidden, syncContext());
    await expect(target.remove(hidden, syncContext())).rejects.toMatchObject({ code: 'CLOUD_CONFLICT' });
    const wanted = plainWanted({ name: 'Läden', properties: { os_type: 'linux' } });
    await target.update(hidden, wanted, 'wanted-2', syncContext());
    expect(isExcluded()).toBe(false);
    expect(await look()).toMatchObject({
      hidden: false,
      protected: false,
      name: 'Läden',
      wanted: 'wanted-2',
    });
    expect(resource()?.tags).toMatchObject({ 'property-os_type': 'linux' });
    expect(resource()?.tags).not.toHaveProperty('property-os_distro');
    // A change of marks leaves the disk as it is: it is still a base.
    const third = await disk('3', { 1: 'random' }, second);
    expect(await target.create(createInput(world.dir, third, '3'))).toMatchObject({ changedBytes: 1 * MIB });

    world.arm.fault({ method: 'DELETE', path: /\/versions\//, status: 409, code: 'OperationNotAllowed' });
    await expect(target.remove(await look(), syncContext())).rejects.toMatchObject({
      code: 'CLOUD_CONFLICT',
    });
    expect(resource()).toBeDefined();
    const lease = world.container.getBlobClient(await vhdOf('2026.08.21')).getBlobLeaseClient();
    await lease.acquireLease(60);
    await expect(target.remove(await look(), syncContext())).rejects.toMatchObject({
      code: 'CLOUD_CONFLICT',
    });
    await lease.releaseLease();
    const last = await look();
    await target.remove(last, syncContext());
    await target.remove(last, syncContext());
    expect(resource()).toBeUndefined();
    expect((await target.list(syncContext())).map((i) => i.version).sort()).toEqual(['3', 'r2-b']);
    expect(await blobs()).toHaveLength(4);

    // Leftovers: of this sync they go, of others and of anybody else they stay.
    const old = { port_image_alive: '2020-01-01T00:00:00Z' };
    const vhd = world.container.getPageBlobClient(await vhdOf('3'));
    const { metadata = {} } = await vhd.getProperties();
    const foreign = world.container.getBlockBlobClient(`${sync}/shop/notes.txt`);
    await foreign.upload('mine', 4);
    await vhd.setMetadata({ ...metadata, ...old });
    await world.container.getBlobClient(`${(await vhdOf('3')).replace(/vhd$/, 'blocks')}`).delete();
    expect(await target.sweep(await target.list(syncContext()), syncContext())).toBe(DISK + 512);
    expect(await blobs()).toHaveLength(3);
  });

  test('wrong targets, rules and disks are refused', async () => {
    const bad = (options: object) =>
      openAzureTarget(
        'west',
        TargetConfig.parse({ platform: 'azure', options: { ...world.options(), ...options } }),
        { sync, stateDir: world.dir },
      ).catch((e: unknown) => e);
    expect(await bad({ method: 'managed-disk' })).toMatchObject({ code: 'CONFIG' });
    expect(await bad({ subscription: 'mine' })).toMatchObject({ code: 'CONFIG' });
    const first = await disk('1', DATA);
    const target = await open();
    await expect(
      target.create(createInput(world.dir, first, '1', { wanted: plainWanted({ visibility: 'public' }) })),
    ).rejects.toMatchObject({ code: 'CONFIG' });
    await diskFile(first.rawPath, DISK, { 8: 'random' });
    await expect(target.create(createInput(world.dir, first, '1'))).rejects.toMatchObject({
      code: 'SOURCE_CHANGED',
    });
    await fs.rm(first.rawPath);
  });
});
