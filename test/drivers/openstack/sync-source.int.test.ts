import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { MIB } from '../../../core/sizes.ts';
import { SourceConfig } from '../../../core/sync/config.ts';
import type { SyncSource } from '../../../core/sync/types.ts';
import { openGlanceSource } from '../../../drivers/openstack/sync/source.ts';
import { matches } from '../../../pipeline/sync/rules.ts';
import { CLOUD_NAME } from '../../support/cloud.ts';
import { syncContext } from '../../support/sync-input.ts';
import { type SyncPlace, syncPlace } from './sync-support.ts';

const run = promisify(execFile);
const RAW = 'a'.repeat(64);
const ctx = syncContext();
const content = randomBytes(3 * MIB);
const opened: SyncSource[] = [];
let place: SyncPlace;

beforeAll(async () => {
  place = await syncPlace('sync-source');
  const file = path.join(place.dir, 'disk.raw');
  await fs.writeFile(file, content);
  const add = (name: string, ...args: string[]) =>
    run('/usr/bin/openstack', ['image', 'create', '--disk-format', 'raw', '--file', file, ...args, name], {
      env: place.project.env,
      cwd: place.dir,
    });
  const properties = {
    port_image_id: 'shop-2026.1',
    port_image_version: '2026.1',
    port_image_sha256: RAW,
    port_image_data: 'uploads,mail',
    os_distro: 'debian',
    hw_disk_bus: 'virtio',
    hw_firmware_type: 'uefi',
    owner_specified_x: 'no',
    team: 'web',
  };
  const shop = Object.entries(properties).flatMap(([key, value]) => ['--property', `${key}=${value}`]);
  await Promise.all([
    add('shop', ...shop),
    add('Strange name: ü/1', '--property', 'team=web', '--min-disk', '3'),
    add('half', '--property', 'port_image_state=in-progress'),
    add('hidden'),
  ]);
  const user = await place.project.login();
  const images = `${place.cloud.imageUrl}/v2/images`;
  const empty = { name: 'empty', disk_format: 'raw', container_format: 'bare' };
  expect((await user.request('POST', images, { body: empty })).status).toBe(201);
  const told = JSON.parse((await user.request('GET', `${images}?name=hidden`)).text) as {
    images: { id: string }[];
  };
  const hiding = await user.request('PATCH', `${images}/${told.images[0]?.id}`, {
    headers: { 'content-type': 'application/openstack-images-v2.1-json-patch' },
    body: [{ op: 'replace', path: '/os_hidden', value: true }],
  });
  expect(hiding.status).toBe(200);
});
afterAll(async () => {
  for (const source of opened) await source.close();
  await place?.close();
});

async function source(glance: Record<string, unknown> = {}): Promise<SyncSource> {
  const config = SourceConfig.parse({ glance: { cloud: CLOUD_NAME, ...glance } });
  if (!('glance' in config)) throw new Error('no Glance');
  const { signal } = new AbortController();
  const made = await openGlanceSource('here', config, { signal, matches });
  opened.push(made);
  return made;
}

test('images that are whole, ours by what they say of themselves, others by name and date', async () => {
  place.reset();
  const images = await (await source()).list(ctx);
  expect(place.image.count()).toBe(1);
  expect(images.map(({ name }) => name).sort()).toEqual(['Strange name: ü/1', 'shop']);
  const ours = images.find(({ name }) => name === 'shop');
  expect(ours).toMatchObject({
    series: 'shop',
    version: '2026.1',
    rawSha256: RAW,
    fileDigest: `sha512:${createHash('sha512').update(content).digest('hex')}`,
    format: 'raw',
    fileBytes: content.length,
    firmware: 'uefi',
    dataSets: ['uploads', 'mail'],
    properties: { os_distro: 'debian', hw_disk_bus: 'virtio', hw_firmware_type: 'uefi' },
  });
  expect(Object.keys(ours?.properties ?? {}).sort()).toEqual([
    'hw_disk_bus',
    'hw_firmware_type',
    'os_distro',
  ]);
  const other = images.find(({ name }) => name !== 'shop');
  expect(other).toMatchObject({ series: 'Strange-name-1', minDiskGib: 3, dataSets: [], properties: {} });
  expect(other?.rawSha256).toBeUndefined();
  expect(other?.version).toMatch(/^\d{8}T\d{6}Z$/);
});

test('filters', async () => {
  const names = async (glance: Record<string, unknown>) =>
    (await (await source(glance)).list(ctx)).map(({ name }) => name);
  expect(await names({ names: ['sh*'] })).toEqual(['shop']);
  expect(await names({ properties: { os_distro: 'debian', team: 'web' } })).toEqual(['shop']);
  expect(await names({ visibility: 'public' })).toEqual([]);
});

test('an image is fetched over a connection that breaks', async () => {
  const from = await source({ names: ['shop'] });
  const [image] = await from.list(ctx);
  if (image === undefined) throw new Error('no image');
  place.reset();
  place.image.on({ method: 'GET', path: /\/file$/, times: 1 }, { cutResponse: { fraction: 0.5 } });
  const dir = path.join(place.dir, 'fetched');
  await fs.mkdir(dir, { mode: 0o700 });
  const fetched = await from.fetch(image, dir, ctx);
  expect(fetched.format).toBe('raw');
  expect((await fs.readFile(fetched.path)).equals(content)).toBe(true);
  expect(place.image.requests.filter((request) => request.faulty)).toHaveLength(1);
});
