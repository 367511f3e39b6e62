import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import * as path from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import { MIB } from '../../../core/sizes.ts';
import { hasAzurite } from '../../support/azurite.ts';
import { sampleFacts } from '../../support/tree-guest.ts';
import { makeVhd } from '../../support/vhd.ts';
import { run, startWorld, uploader, type World } from './azure-world.ts';

const missing = !(await hasAzurite());
let world: World;

beforeAll(async () => {
  if (!missing) world = await startWorld();
});
afterEach(() => {
  expect(world?.arm.problems ?? []).toEqual([]);
  world?.proxy.reset();
  world?.arm.resources.clear();
  world?.arm.failing.clear();
});
afterAll(() => world?.close());

const blobs = async () => {
  const names: string[] = [];
  for await (const { name } of world.container.listBlobsFlat()) names.push(name);
  return names;
};
const uefi = () => sampleFacts({ firmware: 'uefi' });

test.skipIf(missing)(
  'page blob to managed image, with a further disk (azurite, model of arm-compute)',
  async () => {
    const [system, data] = [world.image(), world.image({ disk: 'sdb' })];
    const ctx = world.context(world.options(), [system, data]);
    const { image } = await run(ctx);
    expect(image).toMatchObject({ content: 'ok', method: 'page-blob', name: 'shop01', platform: 'azure' });
    expect(image.sentBytes).toBe(system.dataBytes + data.dataBytes);
    expect(image.disks).toMatchObject([{ disk: 'sdb' }]);
    const made = world.arm.at('/images/shop01');
    expect(made?.properties).toMatchObject({
      hyperVGeneration: 'V1',
      provisioningState: 'Succeeded',
      storageProfile: { osDisk: { osType: 'Linux', osState: 'Generalized' }, dataDisks: [{ lun: 0 }] },
    });
    expect(made?.tags?.['port-image-mark']).toBe(ctx.mark);
    expect(await blobs()).toEqual([]);
    expect(JSON.stringify(ctx.told)).not.toContain(world.azurite.key);
  },
);

test.skipIf(missing)('a finished upload does nothing again (azurite)', async () => {
  const ctx = world.context(world.options(), [world.image()]);
  await run(ctx);
  world.proxy.reset();
  const again = await run(ctx);
  expect(again.image.sentBytes).toBe(0);
  expect(world.proxy.count({ method: 'PUT', path: /comp=page/ })).toBe(0);
  expect([...world.arm.resources.keys()].length).toBe(1);
});

test.skipIf(missing)(
  'managed disk: open, send, close, read back; the image is made of it (azurite, model)',
  async () => {
    const image = world.image();
    const ctx = world.context(world.options({ method: 'managed-disk' }), [image], { facts: uefi() });
    const done = await run(ctx);
    expect(done.image.sentBytes).toBe(image.dataBytes);
    const disk = /disks\/([^/]+)/.exec(
      world.arm.requests.find((r) => r.includes('beginGetAccess')) ?? '',
    )?.[1];
    const calls = world.arm.requests.filter((r) => r.includes(`/disks/${disk}`) && !r.startsWith('GET'));
    expect(calls.map((call) => call.replace(/\/disks\/[^/]+/, ''))).toEqual([
      'PUT ',
      'POST /beginGetAccess',
      'POST /endGetAccess',
      'POST /beginGetAccess',
      'POST /endGetAccess',
      'DELETE ',
    ]);
    expect(world.arm.at('/images/shop01')?.properties).toMatchObject({ hyperVGeneration: 'V2' });
  },
);

test.skipIf(missing)('gallery: the definition is made once, versions count up (azurite, model)', async () => {
  world.arm.seed('/galleries/shop', { location: 'westeurope' });
  const options = world.options({ gallery: 'shop', trustedLaunch: true, osState: 'specialized' });
  const first = await run(world.context(options, [world.image()], { facts: uefi() }));
  const second = await run(world.context(options, [world.image()], { facts: uefi() }));
  expect([first.image.name, second.image.name]).toEqual(['shop01/1.0.0', 'shop01/1.0.1']);
  expect(world.arm.at('/galleries/shop/images/shop01')?.properties).toMatchObject({
    osState: 'Specialized',
    hyperVGeneration: 'V2',
    features: [{ name: 'SecurityType', value: 'TrustedLaunchSupported' }],
  });
  expect(second.image.start).toContain('--specialized');
  await expect(
    uploader.plan(world.context(world.options({ gallery: 'shop' }), [], { facts: uefi() })),
  ).rejects.toMatchObject({
    code: 'CLOUD_CONFLICT',
    message: expect.stringContaining('osState'),
  });
  await expect(uploader.plan(world.context(world.options({ gallery: 'none' }), []))).rejects.toMatchObject({
    code: 'CONFIG',
  });
});

test.skipIf(missing)('names that are taken: new version, replaced, refused (azurite, model)', async () => {
  await run(world.context(world.options(), [world.image()]));
  const second = await run(world.context(world.options(), [world.image()]));
  expect(second.image.name).toBe('shop01-2');
  await expect(uploader.plan(world.context(world.options({ onExists: 'fail' }), []))).rejects.toMatchObject({
    code: 'CLOUD_CONFLICT',
  });
  const third = await run(world.context(world.options({ onExists: 'replace' }), [world.image()]));
  expect(third.image.replaced).toEqual([{ id: 'shop01', action: 'removed' }]);
  expect(world.arm.at('/images/shop01')).toBeUndefined();
  world.arm.seed('/images/shop01', { tags: {} });
  await expect(
    uploader.plan(world.context(world.options({ onExists: 'replace' }), [])),
  ).rejects.toMatchObject({ code: 'CLOUD_CONFLICT' });
});

test.skipIf(missing)(
  'an image that fails is removed, and the next run sends nothing again (azurite, model)',
  async () => {
    const ctx = world.context(world.options(), [world.image()]);
    world.arm.failing.add('image');
    await expect(run(ctx)).rejects.toMatchObject({ code: 'CLOUD' });
    expect(world.arm.at('/images/shop01')).toBeUndefined();
    world.arm.failing.clear();
    world.proxy.reset();
    const { image } = await run(ctx);
    expect(image.sentBytes).toBe(512);
    expect(image.content).toBe('ok');
  },
);

test.skipIf(missing)('a cut upload is gone on with under the lease of the first run (azurite)', async () => {
  const stop = new AbortController();
  const image = world.image();
  const ctx = world.context(world.options(), [image]);
  const plan = await uploader.plan(ctx);
  const stopped = {
    ...ctx,
    signal: stop.signal,
    progress: ({ doneBytes = 0 }) => void (doneBytes > 0 && stop.abort()),
  };
  await expect(uploader.upload(stopped, plan)).rejects.toMatchObject({ code: 'INTERRUPTED' });
  const again = await run(ctx);
  expect(again.image.sentBytes).toBeLessThan(image.dataBytes);
});

test.skipIf(missing)('a blob that somebody replaced is not believed (azurite)', async () => {
  const stop = new AbortController();
  const image = world.image();
  const ctx = world.context(world.options(), [image]);
  const plan = await uploader.plan(ctx);
  const stopped = {
    ...ctx,
    signal: stop.signal,
    progress: ({ doneBytes = 0 }) => void (doneBytes > 0 && stop.abort()),
  };
  await expect(uploader.upload(stopped, plan)).rejects.toMatchObject({ code: 'INTERRUPTED' });
  const name = `shop01-${ctx.mark.slice(0, 8)}.vhd`;
  await world.container.getPageBlobClient(name).delete();
  await world.container.getPageBlobClient(name).create(image.bytes);
  await expect(uploader.upload(ctx, plan)).rejects.toMatchObject({ code: 'CLOUD_CONFLICT' });
  await world.container.getPageBlobClient(name).delete();
  expect((await run(ctx)).image.sentBytes).toBe(image.dataBytes);
});

test.skipIf(missing)(
  'login, role, quota and container are told before anything is sent (azurite, model)',
  async () => {
    const plan = (given = {}) => uploader.plan(world.context(world.options(given), []));
    vi.stubEnv('AZURE_CLIENT_SECRET', 'wrong');
    await expect(plan()).rejects.toMatchObject({ code: 'CLOUD_LOGIN' });
    vi.stubEnv('AZURE_CLIENT_SECRET', world.arm.env.AZURE_CLIENT_SECRET ?? '');
    world.arm.fault({ method: 'GET', path: /^\/images$/, status: 403, code: 'AuthorizationFailed' });
    await expect(plan()).rejects.toMatchObject({ code: 'CLOUD_REFUSED' });
    await expect(plan({ container: 'nobox' })).rejects.toMatchObject({ code: 'CLOUD_REFUSED' });
    world.arm.fault({ method: 'PUT', path: /^\/images\//, status: 409, code: 'QuotaExceeded' });
    await expect(run(world.context(world.options(), [world.image()]))).rejects.toMatchObject({
      code: 'CLOUD_REFUSED',
    });
    await uploader.login?.(world.options(), new AbortController().signal);
  },
);

test.skipIf(missing)(
  'killed at any moment and run again: the image is whole, less is sent (azurite)',
  async () => {
    const image = makeVhd(world.dir, 96 * MIB, { data: [[0, 80 * MIB]] });
    const stateFile = path.join(world.dir, 'killed.json');
    const given = JSON.stringify({
      tmp: world.dir,
      options: world.options(),
      artifact: image,
      mark: randomBytes(10).toString('hex'),
      stateFile,
    });
    const start = () => {
      const child = spawn(
        process.execPath,
        ['--disable-warning=ExperimentalWarning', path.join(import.meta.dirname, 'upload-child.ts')],
        { stdio: ['pipe', 'pipe', 'inherit'], env: process.env },
      );
      child.stdin.end(given);
      return child;
    };
    // slow enough to be hit in the middle
    const slow = world.proxy.on({ method: 'PUT', path: /comp=page/ }, { delayMs: 600 });
    const puts = () => world.proxy.count({ method: 'PUT', path: /comp=page/ });
    const recorded = () =>
      (JSON.parse(readFileSync(stateFile, 'utf8')) as { carriers: { '': { done: number[] } } }).carriers['']
        .done.length;
    const killWhen = async (hit: () => boolean) => {
      const child = start();
      const ended = new Promise((resolve) => child.once('close', resolve));
      await expect.poll(hit, { timeout: 60_000, interval: 20 }).toBe(true);
      child.kill('SIGKILL');
      await ended;
    };
    await killWhen(() => existsSync(stateFile) && puts() > 0 && recorded() > 0);
    const before = puts();
    await killWhen(() => puts() > before + 1);
    slow();
    const child = start();
    const done = JSON.parse(await text(child.stdout));
    expect(done.content).toBe('ok');
    expect(done.sentBytes).toBeLessThan(image.dataBytes);
    expect(world.arm.at('/images/shop01')?.properties.provisioningState).toBe('Succeeded');
  },
);
