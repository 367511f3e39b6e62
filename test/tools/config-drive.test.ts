import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { run } from '../../core/command.ts';
import { configDriveFiles, NOVA_VERSIONS, noCloudFiles, writeMetadataIso } from '../../tools/config-drive.ts';
import { requires } from '../support/requires.ts';

const missing = requires('xorriso');
const meta = {
  instanceId: '5b1e9f3a-0000-4000-8000-000000000001',
  hostname: 'shop01',
  networkData: { links: [], networks: [], services: [] },
  vendorData: { port_image: { version: 1, data: {} } },
  userData: '#cloud-config\n{}\n',
};
let dir = '';

beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'config-drive-test-'));
});
afterEach(async () => {
  await rm(dir, { recursive: true, force: true });
});

async function extract(iso: string): Promise<string> {
  const out = path.join(dir, 'out');
  await run('xorriso', ['-osirrox', 'on', '-indev', iso, '-extract', '/', out]);
  return out;
}

test('every Nova version has the files of its time', () => {
  const files = configDriveFiles(meta);
  for (const version of NOVA_VERSIONS) {
    expect(files.has(`openstack/${version}/meta_data.json`)).toBe(true);
    expect(files.has(`openstack/${version}/vendor_data.json`)).toBe(version >= '2013-10-17');
    expect(files.has(`openstack/${version}/network_data.json`)).toBe(version >= '2015-10-15');
    expect(files.has(`openstack/${version}/vendor_data2.json`)).toBe(version >= '2016-10-06');
  }
});

test.skipIf(missing)('the ISO reads back with its label, long names and content', async () => {
  const iso = path.join(dir, 'a,b seed.iso');
  await writeMetadataIso(iso, 'config-drive', meta);
  const { stdout, stderr } = await run('xorriso', ['-indev', iso, '-pvd_info']);
  expect(stdout + stderr).toContain('config-2');
  const out = await extract(iso);
  const latest = path.join(out, 'openstack', 'latest');
  expect(JSON.parse(await readFile(path.join(latest, 'meta_data.json'), 'utf8'))).toMatchObject({
    uuid: meta.instanceId,
    hostname: 'shop01',
  });
  expect(JSON.parse(await readFile(path.join(latest, 'vendor_data2.json'), 'utf8')).port_image).toEqual(
    meta.vendorData.port_image,
  );
  expect(await readFile(path.join(latest, 'user_data'), 'utf8')).toBe(meta.userData);
  expect(JSON.parse(await readFile(path.join(out, 'ec2/latest/meta-data.json'), 'utf8'))).toHaveProperty(
    'instance-id',
  );
});

test.skipIf(missing)('a NoCloud seed is labelled cidata and carries the provision document', async () => {
  const iso = path.join(dir, 'seed.iso');
  await writeMetadataIso(iso, 'nocloud', meta);
  const { stdout, stderr } = await run('xorriso', ['-indev', iso, '-pvd_info']);
  expect(stdout + stderr).toContain('cidata');
  const out = await extract(iso);
  expect(JSON.parse(await readFile(path.join(out, 'port-image.json'), 'utf8'))).toEqual({
    version: 1,
    data: {},
  });
  expect(noCloudFiles(meta).get('user-data')).toBe(meta.userData);
});
