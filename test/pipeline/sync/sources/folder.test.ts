import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { buildContract } from '../../../../core/contract.ts';
import type { SourceFormat } from '../../../../core/request.ts';
import { SourceConfig } from '../../../../core/sync/config.ts';
import { openstack } from '../../../../drivers/openstack/index.ts';
import { DISK_BYTES, goodDisk } from '../../../../fixtures/hostile/build.ts';
import { makeSamples, samples } from '../../../../fixtures/hostile/make.ts';
import { type FolderConfig, openFolderSource } from '../../../../pipeline/sync/sources/folder.ts';
import { gate } from '../../../../stages/capture/gate.ts';
import { requires } from '../../../support/requires.ts';
import { CountedDigests, syncContext } from '../../../support/sync-context.ts';
import { makeContext, sampleFacts, TreeSession } from '../../../support/tree-guest.ts';

const missing = requires('qemu-img');
/** Older than what a file system may still be changing. */
const OLD = new Date('2026-08-21T01:02:03Z');

let dir: string;
let digests: CountedDigests;
let ctx: ReturnType<typeof syncContext>;
beforeEach(async () => {
  dir = await fs.mkdtemp(path.join(os.tmpdir(), 'sync-folder-'));
  digests = new CountedDigests();
  ctx = syncContext();
});
afterEach(() => fs.rm(dir, { recursive: true }));

function source(folder: Partial<FolderConfig['folder']> = {}) {
  const config = SourceConfig.parse({ folder: { path: '.', ...folder } });
  if (!('folder' in config)) throw new Error('no folder');
  return openFolderSource('images', config, { base: dir, digests });
}

async function disk(name: string, content = goodDisk()): Promise<string> {
  const file = path.join(dir, name);
  await fs.writeFile(file, content);
  await fs.utimes(file, OLD, OLD);
  return file;
}

function qcow2(name: string): string {
  const file = path.join(dir, name);
  execFileSync('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', path.join(dir, 'base.bin'), file]);
  return file;
}

const write = (name: string, value: unknown) => fs.writeFile(path.join(dir, name), JSON.stringify(value));
const sha256 = (data: Buffer) => `sha256:${createHash('sha256').update(data).digest('hex')}`;
/** The change time of a file cannot be set, so the memory takes no file that is younger than two seconds. */
const settle = () => new Promise((resolve) => setTimeout(resolve, 2100));

describe('without a description', () => {
  test('name and time of the file are the identity, the rest comes from the configuration', async () => {
    const file = await disk('web server.raw');
    const [image] = await source({ firmware: 'uefi' }).list(ctx);
    expect(image).toEqual({
      series: 'web-server',
      version: '20260821T010203Z',
      ref: file,
      name: 'web-server',
      fileDigest: sha256(goodDisk()),
      format: 'raw',
      fileBytes: DISK_BYTES,
      virtualBytes: DISK_BYTES,
      createdAt: '2026-08-21T01:02:03Z',
      arch: 'x86_64',
      firmware: 'uefi',
      minDiskGib: 1,
      minRamMib: 0,
      properties: { architecture: 'x86_64', hw_firmware_type: 'uefi', hw_machine_type: 'q35' },
      dataSets: [],
    });
    expect(ctx.warnings).toEqual([]);
  });

  test('only names that fit, nothing hidden, no folders', async () => {
    await disk('shop.raw');
    await disk('.shop.raw');
    await disk('other.img');
    await fs.mkdir(path.join(dir, 'folder.raw'));
    const images = await source({ names: ['*.raw'] }).list(ctx);
    expect(images.map((i) => i.series)).toEqual(['shop']);
    expect(ctx.warnings).toEqual([expect.stringMatching(/^folder\.raw is left out: .*no regular file/)]);
  });

  test('a folder that is not there is an error', async () => {
    await expect(source({ path: 'nowhere' }).list(ctx)).rejects.toMatchObject({ code: 'HOST_IO' });
  });
});

test.skipIf(missing)('an image in two formats is one image', async () => {
  await disk('base.bin');
  await disk('shop.raw');
  const file = qcow2('shop.qcow2');
  await write('shop.json', { series: 'shop', version: '7' });
  const images = await source().list(ctx);
  expect(images.map((i) => i.ref)).toEqual([file]);
  expect(ctx.warnings).toEqual([expect.stringContaining('is shop@7 already')]);
});

describe('with a description', () => {
  test('it says what the image is', async () => {
    await disk('a.raw');
    await write('a.json', {
      series: 'shop',
      version: '1.10',
      arch: 'aarch64',
      firmware: 'uefi',
      os: { type: 'linux', distro: 'debian', version: '13' },
      minRamMib: 2048,
      properties: { hw_disk_bus: 'scsi' },
      dataSets: ['shop-data-1'],
    });
    await disk('b.raw');
    await write('b.raw.json', { series: 'shop', version: '1.9' });
    const images = await source().list(ctx);
    expect(images.map((i) => [i.series, i.version])).toEqual([
      ['shop', '1.10'],
      ['shop', '1.9'],
    ]);
    expect(images[0]).toMatchObject({
      arch: 'aarch64',
      firmware: 'uefi',
      minRamMib: 2048,
      dataSets: ['shop-data-1'],
      properties: {
        architecture: 'aarch64',
        hw_firmware_type: 'uefi',
        os_type: 'linux',
        os_distro: 'debian',
        os_version: '13',
        hw_disk_bus: 'scsi',
      },
    });
  });

  test.each([
    ['not json', '{', /not JSON/],
    ['unknown field', '{"series":"a","version":"1","sereis":"b"}', /sereis/],
    ['no version', '{"series":"a"}', /version/],
    ['a series that leads out', '{"series":"../a","version":"1"}', /series/],
    ['an escape code', '{"series":"a","version":"1\\u001b[31m"}', /version/],
  ])('one that is wrong refuses its image, the others go on: %s', async (_what, text, why) => {
    await disk('a.raw');
    await disk('good.raw');
    await fs.writeFile(path.join(dir, 'a.json'), text);
    const images = await source().list(ctx);
    expect(images.map((i) => i.series)).toEqual(['good']);
    expect(ctx.warnings).toEqual([expect.stringMatching(why)]);
    expect(ctx.warnings.join('')).not.toContain('\u001b');
  });
});

describe('beside a contract', () => {
  const facts = sampleFacts();
  const { request } = makeContext({
    stage: 'seal',
    guest: new TreeSession('/x'),
    facts,
    platforms: [openstack],
    request: { name: 'shop01' },
  });
  const set = { path: '/srv', bytes: 1, storedBytes: 1, files: 1, entries: 1, segments: 1, neededBy: [] };
  const digest = 'a'.repeat(64);
  const contract = buildContract({
    facts,
    request,
    platforms: [openstack],
    version: '20260821-01',
    dataSets: [
      {
        ...set,
        id: 'shop01-srv-1',
        manifest: { key: 'shop01-srv-1/manifest.json', sha256: digest },
        segmentsSha256: digest,
        mode: 'eager',
        rule: 'srv',
        reused: false,
      },
    ],
  });

  test('name, version, data sets and properties are those of the conversion', async () => {
    await disk('shop01.raw');
    await disk('shop01-sdb.raw');
    await disk('stranger.raw');
    await write('contract.json', contract);
    await write('shop01.raw.json', { schema: 'port-image/artifact/1', file: 'shop01.raw' });
    await write('shop01-sdb.raw.json', { schema: 'port-image/artifact/1', disk: 'sdb' });
    const images = await source().list(ctx);
    expect(ctx.warnings).toEqual([]);
    expect(images.map((i) => [i.series, i.version, i.dataSets])).toEqual([
      ['shop01', '20260821-01', ['shop01-srv-1']],
      ['shop01-sdb', '20260821-01', []],
      ['stranger', '20260821T010203Z', []],
    ]);
    expect(images[0]?.properties).toMatchObject({
      os_type: 'linux',
      hw_firmware_type: 'bios',
      img_config_drive: 'mandatory',
      port_image_contract: expect.stringMatching(/^[0-9a-f]{64}$/),
    });
    expect(Object.keys(images[0]?.properties ?? {})).not.toContain('port_image_job');
  });

  test('NAME.contract.json is for that image', async () => {
    await disk('x.raw');
    await write('x.contract.json', contract);
    const [image] = await source().list(ctx);
    expect(image).toMatchObject({ series: 'shop01', version: '20260821-01' });
  });

  test('one that is broken refuses the image', async () => {
    await disk('x.raw');
    await write('x.contract.json', { contract: 'port-image/1' });
    expect(await source().list(ctx)).toEqual([]);
    expect(ctx.warnings).toEqual([expect.stringContaining('no contract')]);
  });
});

describe('hostile', () => {
  test.skipIf(missing)('everything that is refused is told by name, the good ones come', async () => {
    await makeSamples(dir);
    await disk('the good one.raw');
    const images = await source({ names: ['*'] }).list(ctx);
    expect(images.map((i) => i.series)).toContain('the-good-one');
    const bad = samples.filter((s) => s.code !== undefined && s.format === undefined);
    const came = images.filter((image) => bad.some((s) => s.name === path.basename(image.ref)));
    // What only qemu-img can tell is refused when the image is opened, and fails alone.
    expect(
      came.map((i) => path.basename(i.ref)).filter((n) => !/^(inside-|qcow2-refcount-)/.test(n)),
    ).toEqual([]);
    for (const image of came)
      await expect(gate(image.ref, { format: image.format as SourceFormat, tmp: dir })).rejects.toThrow();
    expect(ctx.warnings.length).toBeGreaterThanOrEqual(bad.length - came.length);
    for (const warning of ctx.warnings) expect(warning).not.toMatch(/[\u0000-\u001f]/);
  });

  test('links, pipes and a raw disk that begins like a qcow2', async () => {
    const secret = await disk('secret.bin');
    await fs.symlink(secret, path.join(dir, 'link.raw'));
    await fs.symlink('/dev/zero', path.join(dir, 'zero.raw'));
    execFileSync('mkfifo', [path.join(dir, 'pipe.raw')]);
    const nested = goodDisk();
    nested.write('QFI\xfb\0\0\0\x03', 0, 'latin1');
    await disk('nested.raw', nested);
    await disk('empty.raw', Buffer.alloc(0));
    expect(await source().list(ctx)).toEqual([]);
    const named = ['empty', 'link', 'nested', 'pipe', 'zero'].map((n) => `${n}.raw`);
    expect(ctx.warnings.map((w) => w.split(' ')[0]).sort()).toEqual(named);
  });
});

describe('memory', () => {
  test('an unchanged night reads nothing, a changed file is read again', async () => {
    const file = await disk('shop.raw');
    await settle();
    const first = await source().list(ctx);
    expect(digests.learned).toBe(2);
    await source().list(ctx);
    expect(digests.learned).toBe(2);
    const changed = goodDisk();
    changed.write('changed', DISK_BYTES - 100);
    await disk('shop.raw', changed);
    const [image] = await source().list(ctx);
    expect(image?.fileDigest).toBe(sha256(changed));
    expect(first[0]?.fileDigest).not.toBe(image?.fileDigest);
    expect(file).toBe(image?.ref);
  });

  test('a file that may still be changing is not remembered', async () => {
    await disk('shop.raw');
    await source().list(ctx);
    expect(digests.learned).toBe(0);
  });
});

describe('fetch', () => {
  test('gives the file itself', async () => {
    const file = await disk('shop.raw');
    const opened = source();
    const [image] = await opened.list(ctx);
    if (image === undefined) throw new Error('no image');
    const before = await fs.stat(file);
    expect(await opened.fetch(image, '/nowhere', ctx)).toEqual({
      path: file,
      format: 'raw',
      receivedBytes: 0,
    });
    expect((await fs.stat(file)).mtimeMs).toBe(before.mtimeMs);
  });

  test('a file that changed since is refused, also where its size and time are the same', async () => {
    const file = await disk('shop.raw');
    const opened = source();
    const [image] = await opened.list(ctx);
    if (image === undefined) throw new Error('no image');
    const changed = goodDisk();
    changed.write('x', DISK_BYTES - 100);
    await disk('shop.raw', changed);
    await expect(opened.fetch(image, '/nowhere', ctx)).rejects.toMatchObject({ code: 'SOURCE_CHANGED' });
    await fs.rm(file);
    await expect(opened.fetch(image, '/nowhere', ctx)).rejects.toMatchObject({ code: 'SOURCE_CHANGED' });
    await expect(opened.fetch({ ...image, ref: '/etc/shadow' }, '/', ctx)).rejects.toMatchObject({
      code: 'UNSAFE_PATH',
    });
  });

  test('a signal ends a listing', async () => {
    await disk('shop.raw');
    ctx.abort();
    await expect(source().list(ctx)).rejects.toMatchObject({ code: 'INTERRUPTED' });
  });
});
