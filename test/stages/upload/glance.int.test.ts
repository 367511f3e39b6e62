import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import * as path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { run } from '../../../core/command.ts';
import { sha256File } from '../../../core/files.ts';
import { silentLog } from '../../../core/log.ts';
import type { StageContext } from '../../../core/stage.ts';
import { openstack } from '../../../drivers/openstack/index.ts';
import { GlanceRequest } from '../../../drivers/openstack/options.ts';
import { stage } from '../../../stages/upload/index.ts';
import { CLOUD_NAME, type Cloud, startCloud, type TestProject } from '../../support/cloud.ts';

let cloud: Cloud;
let project: TestProject;
const before = process.env.OS_CLIENT_CONFIG_FILE;
beforeAll(async () => {
  cloud = await startCloud();
  project = await cloud.project('upload-stage');
  process.env.OS_CLIENT_CONFIG_FILE = project.cloudsYaml;
});
afterAll(async () => {
  if (before === undefined) delete process.env.OS_CLIENT_CONFIG_FILE;
  else process.env.OS_CLIENT_CONFIG_FILE = before;
  await project?.cleanup();
});

const CONTRACT = {
  contract: 'port-image/1',
  critical: [],
  image: { id: 'shop-2026.01.02', name: 'shop', version: '2026.01.02', source: 'p2v' },
  facts: {
    os: { distro: 'debian', version: '12' },
    arch: 'x86_64',
    firmware: ['bios'],
    drivers: ['virtio_blk', 'virtio_net'],
    datasources: ['ConfigDrive'],
    platforms: ['openstack'],
  },
  needs: { minDiskGiB: 1, minRamMiB: 512, configDrive: 'optional', egress: [] },
  data: [],
  credentials: [],
  stripped: [],
};

test('the stage plans, uploads and hands over; again it sends nothing', async () => {
  const folder = (name: string) => {
    const dir = path.join(project.dir, 'job', name);
    mkdirSync(dir, { recursive: true });
    return dir;
  };
  const paths = {
    dir: path.join(project.dir, 'job'),
    out: folder('out'),
    data: folder('data'),
    tmp: folder('tmp'),
  };
  writeFileSync(path.join(paths.data, 'contract.json'), JSON.stringify(CONTRACT));
  const raw = path.join(paths.tmp, 'raw');
  const image = path.join(paths.out, 'shop.qcow2');
  writeFileSync(raw, Buffer.concat([Buffer.from('boot'), Buffer.alloc(3 * 2 ** 20 - 4)]));
  await run('qemu-img', ['convert', '-c', '-f', 'raw', '-O', 'qcow2', raw, image]);
  const artifact = {
    platform: 'openstack',
    path: image,
    format: 'qcow2',
    bytes: statSync(image).size,
    virtualBytes: statSync(raw).size,
    sha256: await sha256File(image),
  };
  const changes: string[] = [];
  const sent: number[] = [];
  const ctx = {
    request: {
      name: 'shop',
      store: 'file:/nowhere',
      urlHours: 24,
      targets: { openstack: GlanceRequest.parse({ cloud: CLOUD_NAME }) },
    },
    platforms: [openstack],
    facts: {
      firmware: 'bios',
      disks: [{ id: 'disk0', use: 'system' }],
      bootDisk: 0,
      os: { type: 'linux', distro: 'debian', version: '12', arch: 'x86_64' },
      packages: [],
    },
    paths,
    result: (name: string) =>
      ({ encode: [artifact], strip: [], verify: [{ platform: 'openstack', verified: true }] })[name],
    change: (c: { path: string }) => changes.push(c.path),
    progress: (p: { doneBytes?: number }) => p.doneBytes !== undefined && sent.push(p.doneBytes),
    warn: (text: string) => expect.unreachable(text),
    log: silentLog,
    signal: new AbortController().signal,
  } as unknown as StageContext;
  const plan = await stage.plan(ctx);
  expect(changes).toContain(`glance:${CLOUD_NAME}/shop`);
  const result = await stage.run(ctx, plan);
  const [uploaded] = result.images;
  if (uploaded === undefined) throw new Error('not uploaded');
  expect(uploaded).toMatchObject({ content: 'ok', method: 'put', place: CLOUD_NAME });
  expect(uploaded.details).toMatchObject({
    flavor: 'disk of 1 GiB, 512 MiB of memory',
    port_image_sha256: await sha256File(raw),
    port_image_contract: await sha256File(path.join(paths.data, 'contract.json')),
    port_image_verified: 'yes',
    hw_disk_bus: 'virtio',
  });
  const text = readFileSync(path.join(paths.out, 'HANDOVER.txt'), 'utf8');
  expect(text).toContain(uploaded.start);
  expect(sent.at(-1)).toBe(artifact.bytes);
  sent.length = 0;
  expect((await stage.run(ctx, plan)).images).toMatchObject([{ id: uploaded.id }]);
  expect(sent).toEqual([]);
});
