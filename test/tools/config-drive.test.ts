import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { run } from '../../core/command.ts';
import {
  configDriveFiles,
  type InstanceMetadata,
  NOVA_VERSIONS,
  noCloudFiles,
  pointerMeta,
} from '../../tools/config-drive.ts';
import { writeMetadataDisk, writeMetadataIso } from '../../tools/metadata-disk.ts';
import { requires } from '../support/requires.ts';

const missing = requires('xorriso');
const meta: InstanceMetadata = {
  instanceId: '5b1e9f3a-0000-4000-8000-000000000001',
  hostname: 'shop01',
  networkData: { links: [], networks: [], services: [] },
  vendorData: { port_image: { version: 1, data: {} } },
  staticVendorData: { site: 'lab' },
  userData: '#cloud-config\n{}\n',
  meta: pointerMeta(`https://swift/v1/AUTH_x/doc?temp_url_sig=${'a'.repeat(300)}`),
  publicKey: { name: 'ops', type: 'ssh', data: 'ssh-ed25519 AAAA ops' },
  files: [{ path: '/etc/motd', content: 'hello' }],
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

/**
 * What Nova writes for a server with user data, a key pair and one injected file, from openstack/nova
 * nova/api/metadata/base.py `metadata_for_config_drive` with the default `config_drive_skip_versions`.
 */
function novaLayout(): string[] {
  const expected = ['openstack/content/0000'];
  for (const version of ['2009-04-04', 'latest'])
    expected.push(`ec2/${version}/meta-data.json`, `ec2/${version}/user-data`);
  const added: [string, string[]][] = [
    ['2012-08-10', ['meta_data.json', 'user_data']],
    ['2013-04-04', []],
    ['2013-10-17', ['vendor_data.json']],
    ['2015-10-15', ['network_data.json']],
    ['2016-06-30', []],
    ['2016-10-06', ['vendor_data2.json']],
    ['2017-02-22', []],
    ['2018-08-27', []],
    ['2020-10-14', []],
    ['2025-04-04', []],
    ['latest', []],
  ];
  let files: string[] = [];
  for (const [version, more] of added) {
    files = [...files, ...more];
    expected.push(...files.map((name) => `openstack/${version}/${name}`));
  }
  return expected.sort();
}

test('the files are those Nova writes', () => {
  expect([...configDriveFiles(meta).keys()].sort()).toEqual(novaLayout());
  const { userData: _, ...silent } = meta;
  expect([...configDriveFiles(silent).keys()].filter((name) => /user.data$/.test(name))).toEqual([]);
});

test('meta_data.json of each version has the fields of its time', () => {
  const files = configDriveFiles(meta);
  const since = { random_seed: '2013-04-04', project_id: '2015-10-15', devices: '2016-06-30' };
  for (const version of NOVA_VERSIONS) {
    const data = JSON.parse(files.get(`openstack/${version}/meta_data.json`) ?? '');
    for (const [field, first] of Object.entries({ ...since, dedicated_cpus: '2020-10-14' }))
      expect([version, field, field in data]).toEqual([version, field, version >= first]);
    expect(data).toMatchObject({
      uuid: meta.instanceId,
      hostname: 'shop01',
      launch_index: 0,
      meta: meta.meta,
      public_keys: { ops: 'ssh-ed25519 AAAA ops' },
      keys: [{ name: 'ops', type: 'ssh', data: 'ssh-ed25519 AAAA ops' }],
      files: [{ path: '/etc/motd', content_path: '/content/0000' }],
    });
  }
  const vendor = JSON.parse(files.get('openstack/latest/vendor_data2.json') ?? '');
  expect(vendor).toEqual({ static: { site: 'lab' }, port_image: { version: 1, data: {} } });
  expect(JSON.parse(files.get('openstack/latest/vendor_data.json') ?? '')).toEqual({ site: 'lab' });
});

test('a long URL is cut into values Nova accepts', () => {
  const values = Object.entries(meta.meta ?? {});
  expect(values.map(([name]) => name)).toEqual(['port_image', 'port_image_2']);
  expect(values.every(([, value]) => value.length <= 255)).toBe(true);
  expect(values.map(([, value]) => value).join('')).toMatch(/^https:\/\/swift.*a{300}$/);
  expect(pointerMeta('http://h/')).toEqual({ port_image: 'http://h/' });
});

test.skipIf(missing)('the ISO lists exactly these files, with label, publisher and content', async () => {
  const iso = path.join(dir, 'a,b seed.iso');
  await writeMetadataIso(iso, 'config-drive', meta);
  const { stdout, stderr } = await run('xorriso', ['-indev', iso, '-pvd_info']);
  expect(stdout + stderr).toContain('config-2');
  expect(stdout + stderr).toMatch(/OpenStack Compute/i);
  const listed = await run('xorriso', ['-indev', iso, '-find', '/', '-type', 'f', '-exec', 'echo', '--']);
  const names = listed.stdout.split('\n').filter((line) => line.startsWith("'/"));
  expect(names.map((line) => line.slice(2, -1)).sort()).toEqual(novaLayout());
  const out = await extract(iso);
  const latest = path.join(out, 'openstack', 'latest');
  expect(JSON.parse(await readFile(path.join(latest, 'meta_data.json'), 'utf8'))).toMatchObject({
    uuid: meta.instanceId,
  });
  expect(await readFile(path.join(latest, 'user_data'), 'utf8')).toBe(meta.userData);
  expect(await readFile(path.join(out, 'openstack/content/0000'), 'utf8')).toBe('hello');
});

test.skipIf(requires('mkfs.vfat', 'mcopy', 'mdir'))(
  'the vfat disk is 64 MiB and lists the same',
  async () => {
    const disk = path.join(dir, 'drive.vfat');
    await writeMetadataDisk(disk, 'config-drive', meta, { format: 'vfat' });
    expect((await stat(disk)).size).toBe(64 * 2 ** 20);
    const { stdout } = await run('mdir', ['-/', '-b', '-i', disk, '::']);
    const names = stdout.split('\n').flatMap((line) => /^::\/(.*[^/])$/.exec(line)?.[1] ?? []);
    expect(names.sort()).toEqual(novaLayout());
    expect((await run('mlabel', ['-s', '-i', disk, '::'])).stdout).toMatch(/config-2/i);
  },
);

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
