import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { sha256File } from '../../../core/files.ts';
import { silentLog } from '../../../core/log.ts';
import { shellWord } from '../../../core/shell-word.ts';
import type { StageContext } from '../../../core/stage.ts';
import type { Artifact } from '../../../core/types.ts';
import { diskProperties } from '../../../drivers/openstack/properties.ts';
import { handOver } from '../../../stages/upload/hand-over.ts';
import { provisionTemplate, stage } from '../../../stages/upload/index.ts';

let dir = '';
beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'upload-test-'));
  await mkdir(path.join(dir, 'out'));
  await mkdir(path.join(dir, 'data'));
});
afterEach(async () => {
  await rm(dir, { recursive: true, force: true });
});

const dataSets = [{ id: 'shop-app-1', path: '/srv/a\nb', bytes: 5, mode: 'eager' }];

test('the folder gets contract, templates, text and checksums that agree', async () => {
  const image = path.join(dir, 'out', 'shop.qcow2');
  await writeFile(image, 'image');
  await writeFile(path.join(dir, 'data', 'contract.json'), '{}');
  const artifact: Artifact = {
    platform: 'openstack',
    path: image,
    format: 'qcow2',
    bytes: 5,
    virtualBytes: 8 * 2 ** 30,
    sha256: await sha256File(image),
  };
  const changes: string[] = [];
  const ctx = {
    request: { name: 'shop', store: 'file:/srv/store', targets: {} },
    facts: { firmware: 'uefi', os: { arch: 'x86_64' } },
    paths: { out: path.join(dir, 'out'), data: path.join(dir, 'data') },
    result: (name: string) => (name === 'encode' ? [artifact] : dataSets),
    change: (c: { path: string }) => changes.push(c.path),
    progress: () => {},
    log: silentLog,
    signal: new AbortController().signal,
  } as unknown as StageContext;
  const plan = await stage.plan(ctx);
  const result = (await stage.run(ctx, plan)) as { files: { name: string; sha256: string }[] };
  expect(changes).toContain('out/SHA256SUMS');
  const names = await readdir(path.join(dir, 'out'));
  expect(result.files.map((f) => f.name).sort()).toEqual(names.sort());
  for (const { name, sha256 } of result.files) {
    expect(await sha256File(path.join(dir, 'out', name))).toBe(sha256);
  }
  expect(
    JSON.parse(await readFile(path.join(dir, 'out', 'vendor-data.json'), 'utf8')).port_image.data,
  ).toHaveProperty('shop-app-1');
  const text = await readFile(path.join(dir, 'out', 'HANDOVER.txt'), 'utf8');
  expect(text).toContain('hw_firmware_type=uefi');
  expect(text).toContain('/srv/a\\x0ab');
  // A second run gives the same.
  expect(await stage.run(ctx, plan)).toEqual(result);
});

test('an image without data sets needs no document', () => {
  expect(provisionTemplate([])).toEqual({ version: 1, data: {} });
  const text = handOver({
    name: 'x',
    store: 'file:/s',
    firmware: 'bios',
    artifacts: [],
    dataSets: [],
    arch: 'x86_64',
    hasNetworkData: false,
  });
  expect(text).not.toContain('provision.json');
});

test('words for the shell', () => {
  expect(shellWord('shop.qcow2')).toBe('shop.qcow2');
  expect(shellWord("a'b c")).toBe("'a'\\''b c'");
});

test('images of further disks: how they come to the instance, and nothing a machine would be started by', () => {
  const artifact = (platform: string, disk?: string): Artifact => ({
    platform,
    ...(disk === undefined ? {} : { disk }),
    path: `/out/shop${disk === undefined ? '' : `-${disk}`}.qcow2`,
    format: 'qcow2',
    bytes: 5,
    virtualBytes: 1.5 * 2 ** 30,
    sha256: '0',
  });
  const artifacts = ['openstack', 'qemu'].flatMap((p) => [artifact(p), artifact(p, 'sdb')]);
  const input = { name: 'shop', store: 'file:/s', firmware: 'bios' as const, dataSets: [], arch: 'x86_64' };
  const text = handOver({ ...input, artifacts, hasNetworkData: false });
  expect(text).toContain(
    'openstack image create --disk-format qcow2 --container-format bare --min-disk 2 --file shop-sdb.qcow2 shop-sdb',
  );
  expect(text).toContain('openstack volume create --image shop-sdb --size 2 shop-sdb');
  expect(text).toContain('openstack server add volume shop shop-sdb');
  expect(text).toContain('--disk shop-sdb.qcow2,bus=virtio');
  expect(text.match(/server create/g)).toHaveLength(1);
  const whole = {
    properties: {
      hw_firmware_type: 'bios',
      img_config_drive: 'mandatory',
      port_image_job: 'j',
      port_image_id: 'i',
    },
    minDisk: 2,
    minRam: 512,
  };
  expect(diskProperties(whole, 'sdb')).toEqual({
    properties: { port_image_job: 'j', port_image_id: 'i', port_image_disk: 'sdb' },
    minDisk: 2,
    minRam: 0,
  });
});
