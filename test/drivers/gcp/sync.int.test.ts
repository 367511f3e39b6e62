import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { PortError } from '../../../core/errors.ts';
import { MIB } from '../../../core/sizes.ts';
import { TargetConfig } from '../../../core/sync/config.ts';
import type { LocalDisk, SyncReport, SyncTarget } from '../../../core/sync/types.ts';
import { openGcpTarget, openGcpTargetWith } from '../../../drivers/gcp/sync/target.ts';
import { runCli } from '../../support/cli.ts';
import { type FaultProxy, startFaultProxy } from '../../support/fault-proxy.ts';
import { serviceProgram } from '../../support/services.ts';
import {
  createInput,
  type DiskChange,
  diskFile,
  plainWanted,
  syncContext,
} from '../../support/sync-input.ts';
import { type ComputeServer, type ServerImage, startComputeServer } from './compute-server.ts';
import { startFakeGcs } from './fake-gcs.ts';

const program = await serviceProgram('fake-gcs');
const BUCKET = 'images-1';
const DISK = 48 * MIB;
const some = (...numbers: number[]): DiskChange => Object.fromEntries(numbers.map((n) => [n, 'random']));
const DATA = some(0, 1, 8, 20, 40);

describe.skipIf(program === undefined)('Google Cloud as a target of a sync (fake-gcs-server)', () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'port-image-gcp-sync-'));
  let gcs: Awaited<ReturnType<typeof startFakeGcs>>;
  let proxy: FaultProxy;
  let compute: ComputeServer;
  let sync = '';
  let runs = 0;
  const opened: SyncTarget[] = [];

  beforeAll(async () => {
    gcs = await startFakeGcs(program ?? '', BUCKET);
    proxy = await startFaultProxy(gcs.url);
  });
  afterAll(async () => {
    await proxy?.close();
    await gcs?.stop();
    rmSync(dir, { recursive: true });
  });
  beforeEach(async () => {
    runs += 1;
    sync = `nightly.${runs}`;
    compute = await startComputeServer(dir);
    compute.manner.diskSizeGb = '1';
    process.env.GOOGLE_APPLICATION_CREDENTIALS = compute.credentials;
    proxy.reset();
  });
  afterEach(async () => {
    for (const target of opened.splice(0)) await target.close();
    // each test: nothing was sent that Google's document does not know
    expect(compute.problems).toEqual([]);
    await compute.close();
    delete process.env.GOOGLE_APPLICATION_CREDENTIALS;
    await gcs.bucket.deleteFiles({ force: true });
  });

  const options = (more: object = {}) => ({
    project: 'shop-1',
    bucket: BUCKET,
    endpoints: { storage: proxy.url, compute: compute.url },
    ...more,
  });
  async function open(more: object = {}, name = sync): Promise<SyncTarget> {
    const config = TargetConfig.parse({ platform: 'gcp', options: options(more) });
    const target = await openGcpTargetWith('far', config, { sync: name }, { pollMs: 5, stuckMs: 5000 });
    opened.push(target);
    return target;
  }
  const disk = (name: string, change: DiskChange, base?: LocalDisk) =>
    diskFile(path.join(dir, `${sync}-${name}.raw`), DISK, change, base);
  const objects = async () => (await gcs.bucket.getFiles())[0].map((f) => f.name);
  const only = (): ServerImage => {
    const [image, ...others] = compute.images.values();
    expect(others).toEqual([]);
    return image ?? expect.fail('no image');
  };
  const look = async (target: SyncTarget, version: string) =>
    (await target.list(syncContext())).find((image) => image.version === version) ??
    expect.fail(`no image of version ${version}`);

  /** What Compute Engine was told to read is the disk, by GNU tar and qemu-img. */
  async function expectArchiveShows({ rawDisk }: ServerImage, wanted: LocalDisk): Promise<void> {
    const { source } = rawDisk as { source: string };
    const file = path.join(dir, 'back.tar.gz');
    const out = path.join(dir, 'back');
    mkdirSync(out);
    const name = source.replace(`https://storage.googleapis.com/${BUCKET}/`, '');
    const answer = await fetch(`${gcs.url}/storage/v1/b/${BUCKET}/o/${encodeURIComponent(name)}?alt=media`);
    expect(answer.status).toBe(200);
    writeFileSync(file, await answer.bytes());
    execFileSync('tar', ['-xzf', file, '-C', out]);
    execFileSync('qemu-img', [
      'compare',
      ...['-f', 'raw', '-F', 'raw'],
      path.join(out, 'disk.raw'),
      wanted.rawPath,
    ]);
    rmSync(out, { recursive: true });
  }

  test('first night, unchanged night, changed night; the family is never empty', async () => {
    const seen: (string | undefined)[] = [];
    compute.manner.onChange = () => seen.push(compute.latest('shop'));
    const first = await disk('1', DATA);
    const target = await open();
    const input = createInput(dir, first, '1', {
      prove: async () => {
        expect(compute.latest('shop')).toBeUndefined();
        expect(await look(target, '1')).toMatchObject({ state: 'in-progress', owner: 'run-1@here' });
        await expectArchiveShows(only(), first);
      },
    });
    const made = await target.create(input);
    expect(made).toMatchObject({ adopted: false, method: 'gcs-import', content: 'ok', dataBytes: 5 * MIB });
    expect(made.sentBytes).toBeGreaterThan(5 * MIB);
    expect(made.sentBytes).toBeLessThan(5.1 * MIB);
    expect(made.proof).toContain('CRC32C');
    expect(input.told.warnings.join()).toContain('whole GiB');
    expect(await objects()).toEqual([]);
    expect(only()).toMatchObject({
      family: 'shop',
      architecture: 'X86_64',
      labels: { 'port-image-sync': sync.replace('.', '-'), 'property-os_distro': 'debian' },
    });
    expect(compute.latest('shop')).toBe(made.ref);

    const calls = target.calls();
    const sent = proxy.sentBytes();
    const [listed, ...others] = await target.list(syncContext());
    expect(target.calls() - calls).toBe(2);
    expect(proxy.sentBytes() - sent).toBe(0);
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
      hiddenAt: '',
      bytes: 1000,
    });
    const again = await target.create(createInput(dir, first, '1', { owner: 'run-2@there' }));
    expect(again).toMatchObject({ ref: made.ref, adopted: true, sentBytes: 0, changedBytes: 0 });
    expect(proxy.sentBytes() - sent).toBe(0);

    const second = await disk('2', { 1: 'random', 8: 'zero' }, first);
    const next = await target.create(createInput(dir, second, '2'));
    expect(compute.latest('shop')).toBe(next.ref);
    expect(compute.images.size).toBe(2);
    const [one = '', two = ''] = [made.ref, next.ref];
    expect(seen.slice(seen.indexOf(one))).toEqual([
      ...seen.filter((name) => name === one),
      ...seen.filter((name) => name === two),
    ]);
  });

  test('an older version that is made later does not come before the newest', async () => {
    const seen: (string | undefined)[] = [];
    const first = await disk('1', DATA);
    const target = await open();
    const ten = await target.create(createInput(dir, first, '1.10'));
    compute.manner.onChange = () => seen.push(compute.latest('shop'));
    const nine = await target.create(createInput(dir, await disk('2', some(3)), '1.9'));
    expect(new Set(seen)).toEqual(new Set([ten.ref]));
    expect(compute.images.get(nine.ref)).toMatchObject({
      family: 'shop',
      deprecated: { state: 'DEPRECATED', replacement: expect.stringContaining(ten.ref) as string },
    });
    expect(await look(target, '1.9')).toMatchObject({ state: 'complete', hidden: false });

    // Two at once: whichever is shown last sets it right.
    const eleven = await disk('3', some(4));
    const twelve = await disk('4', some(5));
    const [, newest] = await Promise.all([
      (await open()).create(createInput(dir, eleven, '1.11')),
      (await open()).create(createInput(dir, twelve, '1.12')),
    ]);
    expect(compute.latest('shop')).toBe(newest.ref);
    const last = await target.create(createInput(dir, await disk('5', some(6)), '1.13'));
    expect(compute.latest('shop')).toBe(last.ref);
    expect((await target.list(syncContext())).filter((image) => image.hidden)).toEqual([]);
  });

  test('two at once make one image; the second adopts it', async () => {
    const first = await disk('1', DATA);
    const ends = await Promise.allSettled([
      (await open()).create(createInput(dir, first, '1', { owner: 'a@a' })),
      (await open()).create(createInput(dir, first, '1', { owner: 'b@b' })),
    ]);
    const failed = ends.filter((e) => e.status === 'rejected').map((e) => e.reason as PortError);
    expect(failed.map((e) => [e.code, e.temporary])).toEqual([['SYNC_BUSY', true]]);
    const adopted = await (await open()).create(createInput(dir, first, '1', { owner: 'b@b' }));
    expect(adopted).toMatchObject({ adopted: true, sentBytes: 0, ref: only().name });
    expect(compute.calls.filter((call) => call.endsWith('insert'))).toHaveLength(1);
    expect(await objects()).toEqual([]);
  });

  test('a run that is taken for dead and is not: it gives up, one image is made', async () => {
    const first = await disk('1', DATA);
    compute.manner.hold = { id: 'compute.images.insert', isDone: true };
    const stuck = (await open()).create(createInput(dir, first, '1', { owner: 'a@a', staleAfterMs: 1 }));
    stuck.catch(() => {});
    while (compute.manner.hold.held !== true) await sleep(5);
    compute.manner.hold = undefined;
    const second = createInput(dir, first, '1', { owner: 'b@b', staleAfterMs: 1 });
    const made = (await open()).create({ ...second, prove: () => sleep(1500) });
    await expect(stuck).rejects.toMatchObject({ code: 'SYNC_BUSY' });
    expect(await made).toMatchObject({ adopted: false, ref: only().name });
    expect(compute.latest('shop')).toBe(only().name);
    expect(await objects()).toEqual([]);
  });

  /** Runs until `isThere`, then kills it with SIGKILL. */
  async function killed(wanted: LocalDisk, isThere: () => boolean | Promise<boolean>): Promise<void> {
    const child = spawn(
      process.execPath,
      [
        path.join(import.meta.dirname, 'sync-child.ts'),
        JSON.stringify(options()),
        wanted.rawPath,
        String(wanted.virtualBytes),
        '1',
        'run-1@here',
        sync,
      ],
      { stdio: ['ignore', 'inherit', 'inherit'] },
    );
    const ended = new Promise((resolve) => child.once('exit', (_, signal) => resolve(signal)));
    while (child.exitCode === null && !(await isThere())) await sleep(5);
    child.kill('SIGKILL');
    expect(await ended).toBe('SIGKILL');
    proxy.reset();
    compute.manner.hold = undefined;
  }

  /** Another place waits, its own goes on; afterwards all is as if nothing had been. */
  async function expectGoneOn(wanted: LocalDisk): Promise<number> {
    const target = await open();
    const images = await target.list(syncContext());
    expect(images).toMatchObject([{ state: 'in-progress', owner: 'run-1@here', version: '1' }]);
    await expect(
      target.create(createInput(dir, wanted, '1', { owner: 'run-2@there' })),
    ).rejects.toMatchObject({ code: 'SYNC_BUSY' });
    expect(await target.sweep(images, syncContext())).toBe(0);
    let archive: Promise<void> | undefined;
    const made = await target.create(
      createInput(dir, wanted, '1', {
        owner: 'run-2@here',
        prove: async () => {
          archive = expectArchiveShows(only(), wanted);
          await archive;
        },
      }),
    );
    expect(archive).toBeDefined();
    expect(made).toMatchObject({ adopted: false, ref: only().name, content: 'ok' });
    expect(await look(target, '1')).toMatchObject({ state: 'complete', wanted: 'wanted-1', hidden: false });
    expect(compute.latest('shop')).toBe(made.ref);
    expect(await objects()).toEqual([]);
    return made.sentBytes;
  }

  test('killed while the archive is sent: what is there is not sent again', async () => {
    const data = some(...Array.from({ length: 40 }, (_, n) => n));
    const first = await disk('1', data);
    proxy.on({ method: 'POST', path: /part-0001/ }, { stall: true });
    await killed(first, () => proxy.count({ method: 'POST', path: /part-0001/ }) > 0);
    expect(compute.images.size).toBe(0);
    expect((await objects()).filter((name) => name.includes('.part-'))).toHaveLength(1);
    expect(await expectGoneOn(first)).toBeLessThan(9 * MIB);
  });

  test.each([
    ['the image is asked for', 'compute.images.insert', false, 0, true],
    ['Compute Engine makes it', 'compute.images.insert', true, 0, true],
    ['it waits for it', 'compute.globalOperations.get', false, 1, true],
    ['it gets its family', 'compute.images.patch', false, 0, true],
    ['it has its family', 'compute.images.patch', true, 0, false],
    ['it becomes complete', 'compute.images.patch', false, 1, false],
  ] as const)('killed when %s', async (_name, id, isDone, after, isPrivate) => {
    const first = await disk('1', DATA);
    compute.manner.hold = { id, isDone, after };
    await killed(first, () => compute.manner.hold?.held === true);
    expect(compute.latest('shop') === undefined).toBe(isPrivate);
    // its archive is there, so nothing is sent
    expect(await expectGoneOn(first)).toBe(0);
    expect(compute.calls.filter((call) => call.endsWith('insert')).length).toBeLessThan(3);
  });

  test.each([false, true])(
    'killed at the deprecation of an older version (done: %s): the newest stays',
    async (isDone) => {
      const newest = await (await open()).create(createInput(dir, await disk('2', some(3)), '2'));
      const seen: (string | undefined)[] = [];
      compute.manner.onChange = () => seen.push(compute.latest('shop'));
      const first = await disk('1', DATA);
      compute.manner.hold = { id: 'compute.images.deprecate', isDone };
      await killed(first, () => compute.manner.hold?.held === true);
      const target = await open();
      expect(await look(target, '1')).toMatchObject({ state: 'in-progress' });
      const made = await target.create(createInput(dir, first, '1', { owner: 'run-2@here' }));
      expect(made).toMatchObject({ adopted: false, sentBytes: 0 });
      expect(await look(target, '1')).toMatchObject({ state: 'complete', hidden: false });
      expect(new Set(seen)).toEqual(new Set([newest.ref]));
    },
  );

  test('killed when it was complete: adopted, and its archive is swept', async () => {
    const first = await disk('1', DATA);
    compute.manner.hold = { id: 'compute.images.patch', after: 1, isDone: true };
    await killed(first, () => compute.manner.hold?.held === true);
    const target = await open();
    expect(await target.create(createInput(dir, first, '1', { owner: 'run-2@there' }))).toMatchObject({
      adopted: true,
    });
    const before = await objects();
    expect(before).toHaveLength(2);
    expect(await target.sweep(await target.list(syncContext()), syncContext())).toBe(0);
    await grow(before, '2020-01-01T00:00:00Z');
    await gcs.bucket.file(`port-image/.sync/${sync}/notes.txt`).save('mine');
    expect(await target.sweep(await target.list(syncContext()), syncContext())).toBeGreaterThan(5 * MIB);
    expect(await objects()).toEqual([`port-image/.sync/${sync}/notes.txt`]);
    expect(compute.latest('shop')).toBe(only().name);
  });

  /** Makes the run that holds the locks among these objects dead since then. */
  async function grow(names: readonly string[], alive: string): Promise<void> {
    for (const name of names.filter((n) => n.endsWith('/lock'))) {
      const file = gcs.bucket.file(name);
      const [{ metadata = {} }] = await file.getMetadata();
      await file.setMetadata({ metadata: { ...metadata, alive } });
    }
  }

  test('an image nobody finished is swept with what it left, by whoever runs next', async () => {
    const first = await disk('1', DATA);
    const target = await open();
    const prove = async () => {
      throw new PortError('VERIFY_FAILED', 'no sign of life');
    };
    await expect(target.create(createInput(dir, first, '1', { prove }))).rejects.toMatchObject({
      code: 'VERIFY_FAILED',
    });
    expect(compute.latest('shop')).toBeUndefined();
    // The archive is kept for the next night, the lock is not.
    expect(await objects()).toHaveLength(1);
    const image = only();
    const images = await target.list(syncContext());
    expect(await target.sweep(images, syncContext())).toBe(0);
    image.description = String(image.description).replace(
      /"alive":"[^"]+"/,
      '"alive":"2020-01-01T00:00:00Z"',
    );
    expect(await target.sweep(await target.list(syncContext()), syncContext())).toBe(1000);
    expect(compute.images.size).toBe(0);

    proxy.on({ method: 'POST', path: /\.tar\.gz/ }, { stall: true });
    await killed(first, () => proxy.count({ method: 'POST', path: /\.tar\.gz/ }) > 0);
    await grow(await objects(), '2020-01-01T00:00:00Z');
    await target.sweep(await target.list(syncContext()), syncContext());
    expect(await target.list(syncContext())).toEqual([]);
  });

  test('update, hide, show again, protected, in use, remove; images of others stay as they are', async () => {
    const target = await open();
    const other = await open({}, `${sync}-b`);
    const first = await disk('1', DATA);
    const { ref } = await target.create(
      createInput(dir, first, '1', { wanted: plainWanted({ protected: true }) }),
    );
    const second = await target.create(createInput(dir, await disk('2', some(3)), '2'));
    await other.create(createInput(dir, first, '1'));
    const server = () => compute.images.get(ref) ?? expect.fail('no image');
    server().labels = { ...server().labels, team: 'web' };

    const one = await look(target, '1');
    await target.hide(one, syncContext());
    expect(server().deprecated).toEqual({ state: 'DEPRECATED' });
    const hidden = await look(target, '1');
    expect(hidden).toMatchObject({ hidden: true, protected: true });
    expect(Date.now() - Date.parse(hidden.hiddenAt)).toBeLessThan(60_000);
    const changes = compute.calls.length;
    await target.hide(hidden, syncContext());
    expect(compute.calls.length).toBe(changes);
    await expect(target.remove(hidden, syncContext())).rejects.toMatchObject({ code: 'CLOUD_CONFLICT' });

    const wanted = plainWanted({ name: 'Läden', properties: { os_version: '12.5', 'Bad Key': 'x' } });
    const told = syncContext();
    await target.update(hidden, wanted, 'wanted-2', told);
    expect(told.told.warnings.join()).toContain('1 properties');
    expect(await look(target, '1')).toMatchObject({
      hidden: false,
      hiddenAt: '',
      protected: false,
      name: 'Läden',
      wanted: 'wanted-2',
    });
    expect(server().labels).toMatchObject({ team: 'web', 'property-os_version': '12-5' });
    expect(server().labels).not.toHaveProperty('property-os_distro');

    // By hand: since when is not known, so it is never removed by age.
    server().deprecated = { state: 'DEPRECATED' };
    expect(await look(target, '1')).toMatchObject({ hidden: true, hiddenAt: '' });
    server().deprecated = undefined;

    compute.manner.disks[String(server().id)] = ['shop-web-1'];
    await expect(target.remove(await look(target, '1'), syncContext())).rejects.toMatchObject({
      code: 'CLOUD_CONFLICT',
      message: expect.stringContaining('shop-web-1') as string,
    });
    compute.manner.disks = {};
    compute.manner.failing = {
      status: 400,
      reason: 'resourceInUseByAnotherResource',
      times: 1,
      method: 'DELETE',
    };
    const last = await look(target, '1');
    await expect(target.remove(last, syncContext())).rejects.toMatchObject({ code: 'CLOUD_CONFLICT' });
    await target.remove(last, syncContext());
    await target.remove(last, syncContext());
    expect((await target.list(syncContext())).map((i) => i.ref)).toEqual([second.ref]);
    expect((await other.list(syncContext())).map((i) => [i.version, i.state])).toEqual([['1', 'complete']]);

    // Somebody else's of our name, and a copy that has our marks.
    const two = compute.images.get(second.ref) ?? expect.fail('no image');
    compute.images.set('copy', { ...two, name: 'copy' });
    compute.images.set(two.name, { ...two, description: 'mine' });
    expect(await target.list(syncContext())).toEqual([]);
    const image = { ...last, ref: two.name, version: '2' };
    const theirs = { ...image, rawSha256: (await disk('2', some(3))).index.rawSha256 };
    await target.remove(theirs, syncContext());
    expect(compute.images.has(two.name)).toBe(true);
  });

  test('a taken name, a full project, a bad import, a missing bucket: told, and nothing is left', async () => {
    const first = await disk('1', DATA);
    const target = await open();
    compute.manner.quota = { limit: 5, usage: 5 };
    const sent = proxy.sentBytes();
    await expect(target.create(createInput(dir, first, '1'))).rejects.toMatchObject({
      code: 'CLOUD_REFUSED',
    });
    expect(proxy.sentBytes() - sent).toBeLessThan(10_000);
    compute.manner.quota = { limit: 5, usage: 1 };
    compute.manner.insertError = { code: 'INTERNAL_ERROR', message: 'cannot read disk.raw' };
    await expect(target.create(createInput(dir, first, '1'))).rejects.toMatchObject({
      message: expect.stringContaining('cannot read disk.raw') as string,
    });
    expect(compute.images.size).toBe(0);
    compute.manner.insertError = undefined;
    compute.manner.diskSizeGb = '2';
    await expect(target.create(createInput(dir, first, '1'))).rejects.toMatchObject({
      code: 'CLOUD_MISMATCH',
    });
    expect(compute.images.size).toBe(0);
    compute.manner.diskSizeGb = '1';
    const made = await target.create(createInput(dir, first, '1'));
    expect(made.sentBytes).toBe(0);
    only().description = 'mine';
    await expect(target.create(createInput(dir, first, '1'))).rejects.toMatchObject({
      code: 'CLOUD_CONFLICT',
    });
    await expect((await open({ bucket: 'none-1' })).list(syncContext())).rejects.toMatchObject({
      code: 'CLOUD_REFUSED',
      hint: expect.stringContaining('gs://none-1') as string,
    });
    // damage on the way
    const second = await disk('2', some(2, 3));
    proxy.on({ method: 'POST', path: /\.tar\.gz/, times: 1 }, { flipRequestByte: 100_000 });
    const whole = await target.create(createInput(dir, second, '2'));
    expect(whole.sentBytes).toBeGreaterThan(4 * MIB);
  });

  test('nights of the program: made, unchanged, changed and the old one hidden, removed', async () => {
    // it waits five seconds before each question
    compute.manner.polls = -1;
    const home = path.join(dir, 'home');
    mkdirSync(path.join(home, 'images'), { recursive: true });
    const file = path.join(home, 'sync.yaml');
    const config = {
      sync,
      sources: { lab: { folder: { path: 'images' } } },
      targets: { far: { platform: 'gcp', options: options() } },
      retention: { keep: 1, hideFor: '1s' },
      state: 'state',
    };
    writeFileSync(file, JSON.stringify(config));
    const image = async (version: string, change: DiskChange) => {
      const name = path.join(home, 'images', `shop-${version}.qcow2`);
      // a disk is known by its partition table: one Linux partition from 1 MiB on
      const mbr = Buffer.alloc(MIB);
      mbr.writeUInt8(0x83, 450);
      mbr.writeUInt32LE(2048, 454);
      mbr.writeUInt32LE(DISK / 512 - 2048, 458);
      mbr.writeUInt16BE(0x55aa, 510);
      const { rawPath } = await disk(`night-${version}`, { ...change, 0: mbr });
      execFileSync('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', rawPath, name]);
      writeFileSync(`${name}.json`, JSON.stringify({ series: 'shop', version, minRamMib: 512 }));
    };
    const night = async () => {
      const sent = proxy.sentBytes();
      const result = await runCli(['sync', file, '--json'], { cwd: home });
      expect(result.stderr).not.toContain('left out');
      const report = result.json() as SyncReport;
      expect(report.notes).toEqual([]);
      expect([result.exitCode, report.exitStatus]).toEqual([0, 0]);
      const done = report.outcomes.map((o) => [o.action.verb, o.action.version, o.result, o.content]);
      return { done, calls: report.calls.far, sent: proxy.sentBytes() - sent };
    };
    await image('1', DATA);
    const first = await night();
    expect(first.done).toEqual([['create', '1', 'done', 'ok']]);
    expect(first.sent).toBeGreaterThan(4 * MIB);
    expect(await night()).toEqual({ done: [['skip', '1', 'skipped', undefined]], calls: 2, sent: 0 });
    const [one = ''] = [...compute.images.keys()];
    await image('2', some(3));
    rmSync(path.join(home, 'images', 'shop-1.qcow2'));
    expect((await night()).done).toEqual([
      ['create', '2', 'done', 'ok'],
      ['hide', '1', 'done', undefined],
    ]);
    expect(compute.images.get(one)).toMatchObject({ deprecated: { state: 'DEPRECATED' } });
    expect(compute.latest('shop')).toMatch(/^shop-2-/);
    await sleep(1100);
    expect((await night()).done).toEqual([
      ['skip', '2', 'skipped', undefined],
      ['delete', '1', 'done', undefined],
    ]);
    expect([...compute.images.keys()]).toEqual([compute.latest('shop')]);
    expect(await objects()).toEqual([]);
  });

  test('two series of one family, wrong targets, rules and disks are refused', async () => {
    const bad = (more: object) =>
      openGcpTarget('far', TargetConfig.parse({ platform: 'gcp', options: options(more) }), { sync }).catch(
        (e: unknown) => e,
      );
    for (const more of [{ family: 'x' }, { keepObject: true }, { onExists: 'fail' }, { project: 'X' }])
      expect(await bad(more)).toMatchObject({ code: 'CONFIG' });
    const first = await disk('1', DATA);
    const target = await open();
    const input = createInput(dir, first, '1');
    const wanted = plainWanted({ visibility: 'public' });
    await expect(target.create({ ...input, wanted })).rejects.toMatchObject({ code: 'CONFIG' });
    await target.create(input);
    const identity = { series: 'Shop', version: '1', rawSha256: first.index.rawSha256 };
    await expect(target.create({ ...input, identity })).rejects.toMatchObject({
      code: 'CLOUD_CONFLICT',
      message: expect.stringContaining('family shop') as string,
    });
    const second = await disk('2', DATA);
    await diskFile(second.rawPath, DISK, some(8));
    await expect(target.create(createInput(dir, second, '2'))).rejects.toMatchObject({
      code: 'SOURCE_CHANGED',
    });
  });
});
