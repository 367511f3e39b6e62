import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { makeDir } from '../../../../core/files.ts';
import { SourceConfig } from '../../../../core/sync/config.ts';
import type { SyncImage } from '../../../../core/sync/types.ts';
import { goodDisk } from '../../../../fixtures/hostile/build.ts';
import { createJob } from '../../../../pipeline/job.ts';
import { keepImages, readKept } from '../../../../pipeline/sync/sources/kept-images.ts';
import { madeFromFiles } from '../../../../pipeline/sync/sources/recapture.ts';
import {
  openServersSource,
  type ServerConfig,
  serverRequest,
} from '../../../../pipeline/sync/sources/servers.ts';
import { CountedDigests, syncContext } from '../../../support/sync-context.ts';

let base: string;
let ctx: ReturnType<typeof syncContext>;
beforeEach(async () => {
  base = await fs.mkdtemp(path.join(os.tmpdir(), 'sync-servers-'));
  ctx = syncContext();
});
afterEach(() => fs.rm(base, { recursive: true }));

function configOf(...servers: unknown[]) {
  const config = SourceConfig.parse({ servers });
  if (!('servers' in config)) throw new Error('no servers');
  return config;
}
const server = (more: Partial<ServerConfig> = {}): ServerConfig => {
  const [one] = configOf({
    name: 'web',
    source: 'web.raw',
    job: 'jobs/web',
    options: { to: 'qemu' },
    ...more,
  }).servers;
  if (one === undefined) throw new Error('no server');
  return one;
};
const source = (...servers: ServerConfig[]) =>
  openServersSource('fleet', configOf(...servers), { base, digests: new CountedDigests() });

/** An image as a conversion of this job would leave it. */
async function image(job: string, version: string, content = `image ${version}`): Promise<SyncImage> {
  const out = path.join(base, job, 'out');
  await makeDir(out);
  const ref = path.join(out, 'web.qcow2');
  await fs.writeFile(`${ref}.tmp`, content);
  await fs.rename(`${ref}.tmp`, ref);
  return {
    series: 'web',
    version,
    ref,
    name: 'web',
    fileDigest: `sha256:${createHash('sha256').update(content).digest('hex')}`,
    format: 'qcow2',
    fileBytes: content.length,
    virtualBytes: 2 ** 30,
    createdAt: '2026-08-21T01:02:03Z',
    arch: 'x86_64',
    firmware: 'bios',
    minDiskGib: 1,
    minRamMib: 512,
    properties: { os_type: 'linux' },
    dataSets: ['web-srv-1'],
  };
}

describe('the request of a server', () => {
  test('options are those of convert; paths are relative to the sync file; nothing is uploaded by it', async () => {
    const { request, dir } = await serverRequest(
      server({
        options: {
          to: ['openstack', 'qemu'],
          strip: 'auto',
          freeze: 'none',
          verify: false,
          packages: 'debs',
        },
      }),
      base,
      'file:data',
    );
    expect(dir).toBe(path.join(base, 'jobs/web'));
    expect(request).toMatchObject({
      source: path.join(base, 'web.raw'),
      name: 'web',
      to: ['openstack', 'qemu'],
      strip: 'auto',
      verify: false,
      compare: true,
      packages: path.join(base, 'debs'),
      store: `file:${path.join(base, 'data')}`,
      targets: {},
    });
    expect(request.capture.freeze).toBe('none');
  });

  test('a source elsewhere stays as it is written, a name and a store of its own count', async () => {
    const { request } = await serverRequest(
      server({
        source: 'ssh://root@shop01/dev/sda',
        options: { to: 'aws', name: 'shop', store: 's3:bucket/p' },
      }),
      base,
      'file:/data',
    );
    expect(request).toMatchObject({
      source: 'ssh://root@shop01/dev/sda',
      name: 'shop',
      store: 's3:bucket/p',
    });
  });

  test.each([
    ['an unknown option', { to: 'qemu', strp: 'auto' }, 'CONFIG', /options of web: .*strp/],
    ['a wrong value', { to: 'qemu', network: 'none' }, 'CONFIG', /options of web: network/],
    ['no platform', {}, 'CONFIG', /to: where/],
    ['an unknown platform', { to: 'cloud9' }, 'USAGE', /cloud9/],
  ])('refused: %s', async (_what, options, code, message) => {
    await expect(serverRequest(server({ options }), base, undefined)).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
  });
});

describe('images kept', () => {
  test('stay what they are when a later conversion replaces or loses its files', async () => {
    const job = path.join(base, 'jobs/web');
    await keepImages(job, { madeFrom: 'a', images: [await image('jobs/web', '1')] });
    await image('jobs/web', '2', 'not proved yet');
    const kept = await readKept(job);
    expect(kept).toMatchObject({ madeFrom: 'a', images: [{ version: '1', dataSets: ['web-srv-1'] }] });
    expect(await fs.readFile(kept?.images[0]?.ref ?? '', 'utf8')).toBe('image 1');
    await fs.rm(path.join(job, 'out'), { recursive: true });
    expect((await readKept(job))?.images).toHaveLength(1);
  });

  test('take no space while the conversion has the same file, and only the last ones stay', async () => {
    const job = path.join(base, 'jobs/web');
    const first = await image('jobs/web', '1');
    await keepImages(job, { madeFrom: 'a', images: [first] });
    expect((await fs.stat(first.ref)).nlink).toBe(2);
    await keepImages(job, { madeFrom: 'b', images: [await image('jobs/web', '2')] });
    expect((await fs.readdir(path.join(job, 'sync'))).sort()).toEqual(['images.json', 'web-2.qcow2']);
  });

  test('that were changed are refused', async () => {
    const job = path.join(base, 'jobs/web');
    await keepImages(job, { madeFrom: 'a', images: [await image('jobs/web', '1')] });
    const file = path.join(job, 'sync/images.json');
    const text = await fs.readFile(file, 'utf8');
    await fs.writeFile(file, text.replace('web-1.qcow2', '../out/web.qcow2'));
    await expect(readKept(job)).rejects.toMatchObject({ code: 'JOB_TAMPERED' });
    await fs.writeFile(file, text);
    await fs.appendFile(path.join(job, 'sync/web-1.qcow2'), 'x');
    await expect(readKept(job)).rejects.toMatchObject({ code: 'JOB_TAMPERED' });
  });
});

describe('a listing', () => {
  test('captures nothing, offers the last images and says that a run makes new ones', async () => {
    await keepImages(path.join(base, 'jobs/web'), { madeFrom: 'a', images: [await image('jobs/web', '1')] });
    const opened = source(server(), server({ name: 'new', source: 'new.raw', job: 'jobs/new' }));
    const images = await opened.list(ctx);
    expect(images.map((i) => [i.series, i.version])).toEqual([['web', '1']]);
    expect(ctx.warnings).toEqual([
      expect.stringContaining('web is captured again by a run'),
      expect.stringContaining('new has no image yet'),
    ]);
    await expect(fs.readdir(path.join(base, 'jobs/new'))).rejects.toThrow('ENOENT');
    const [first] = images;
    if (first === undefined) throw new Error('no image');
    expect(await opened.fetch(first, '/nowhere', ctx)).toMatchObject({ path: first.ref, receivedBytes: 0 });
  });

  test('of a job folder that was tampered with leaves out that server alone', async () => {
    await keepImages(path.join(base, 'jobs/web'), { madeFrom: 'a', images: [await image('jobs/web', '1')] });
    await makeDir(path.join(base, 'jobs/bad/sync'));
    await fs.writeFile(path.join(base, 'jobs/bad/sync/images.json'), '{}');
    const images = await source(server({ name: 'bad', job: 'jobs/bad' }), server()).list(ctx);
    expect(images).toHaveLength(1);
    expect(ctx.warnings[0]).toMatch(/^bad is left out: .*not what a run of this sync left/);
  });
});

describe('a run', () => {
  test('a server that fails is told, the others go on, its last image stays', async () => {
    await keepImages(path.join(base, 'jobs/web'), { madeFrom: 'a', images: [await image('jobs/web', '1')] });
    await createJob(
      path.join(base, 'jobs/other'),
      (await serverRequest(server({ name: 'x' }), base, undefined)).request,
    );
    await fs.writeFile(path.join(base, 'text.raw'), 'this is no disk\n'.repeat(100));
    const opened = source(
      server({ source: 'gone.raw' }),
      server({ name: 'wrong', job: 'jobs/wrong', options: { to: 'qemu', what: 1 } }),
      server({ name: 'other', job: 'jobs/other' }),
      server({ name: 'text', source: 'text.raw', job: 'jobs/text' }),
    );
    const failures = await opened.refresh(ctx);
    expect(failures.map((f) => [f.what, f.code])).toEqual([
      ['web', 'USAGE'],
      ['wrong', 'CONFIG'],
      ['other', 'JOB_MISMATCH'],
      ['text', 'NOT_A_DISK'],
    ]);
    const images = await opened.list(ctx);
    expect(images.map((i) => i.version)).toEqual(['1']);
    expect(ctx.warnings.filter((w) => w.includes('captured again by a run'))).toEqual([]);
  });

  test('a file that is what it was is not converted again', async () => {
    const file = path.join(base, 'web.raw');
    await fs.writeFile(file, goodDisk());
    await new Promise((resolve) => setTimeout(resolve, 2100));
    const { request, dir } = await serverRequest(server(), base, undefined);
    const madeFrom = await madeFromFiles(request);
    if (madeFrom === undefined) throw new Error('not known');
    await keepImages(dir, { madeFrom, images: [await image('jobs/web', '1')] });
    // Made by hand, so that the folder is a job's: an image alone is none.
    await fs.rename(path.join(dir, 'sync'), path.join(base, 'kept'));
    await fs.rm(dir, { recursive: true });
    await createJob(dir, request);
    await fs.rename(path.join(base, 'kept'), path.join(dir, 'sync'));
    const opened = source(server());
    expect(await opened.refresh(ctx)).toEqual([]);
    expect((await fs.readdir(dir)).sort()).toEqual(['job.json', 'sync']);
    expect((await opened.list(ctx)).map((i) => i.version)).toEqual(['1']);
  });

  test('a signal ends it', async () => {
    ctx.abort();
    await expect(source(server()).refresh(ctx)).rejects.toMatchObject({ code: 'INTERRUPTED' });
  });
});
