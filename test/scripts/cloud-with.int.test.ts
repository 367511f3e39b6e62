import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { promisify } from 'node:util';
import { BlobServiceClient } from '@azure/storage-blob';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { serviceProgram } from '../support/services.ts';

const run = promisify(execFile);
const SCRIPT = path.join(import.meta.dirname, '../../scripts/cloud');
const NAMES = ['azurite', 'moto', 'fake-gcs', 'vcsim'] as const;
const there = new Map<string, boolean>();
for (const name of NAMES) there.set(name, (await serviceProgram(name)) !== undefined);
const govc = await serviceProgram('govc');
const had = NAMES.filter((name) => there.get(name));

const dir = mkdtempSync(path.join(os.tmpdir(), 'port-image-with-'));
const state = path.join(dir, 'state');
const cloud = (command: string, ...args: string[]) => run(SCRIPT, [command, '--state', state, ...args]);
let env: Record<string, string> = {};

beforeAll(async () => {
  if (had.length === 0) return;
  await cloud('up', '--ports-base', '15300', '--without-openstack', '--with', had.join(','));
  const { stdout } = await cloud('env');
  env = Object.fromEntries(
    [...stdout.matchAll(/^export (\w+)='(.*)'$/gm)].map(([, name = '', value = '']) => [name, value]),
  );
});
afterAll(async () => {
  await cloud('down', '--forget').catch(() => undefined);
  rmSync(dir, { recursive: true, force: true });
});

test.skipIf(had.length === 0)('only what was named runs, each healthy', async () => {
  const { stdout } = await cloud('status', '--json');
  const known = JSON.parse(stdout) as { services: { name: string; healthy: boolean }[] };
  expect(known.services.map(({ name, healthy }) => [name, healthy])).toEqual(had.map((name) => [name, true]));
  expect(Object.keys(env).some((name) => name.startsWith('OS_'))).toBe(false);
});

test.skipIf(!there.get('azurite'))('azurite takes a blob of the SDK by the connection string', async () => {
  const box = BlobServiceClient.fromConnectionString(
    env.AZURE_STORAGE_CONNECTION_STRING ?? '',
  ).getContainerClient('box');
  await box.create();
  await box.getBlockBlobClient('x').upload('hello', 5);
  expect((await box.getBlobClient('x').downloadToBuffer()).toString()).toBe('hello');
});

test.skipIf(!there.get('moto') || !existsSync('/usr/bin/aws'))('moto answers the aws client', async () => {
  const { stdout } = await run(
    '/usr/bin/aws',
    ['--endpoint-url', env.AWS_ENDPOINT_URL ?? '', 'ec2', 'describe-regions', '--output', 'text'],
    { env: { PATH: '/usr/bin:/bin', HOME: dir, AWS_DEFAULT_REGION: 'us-east-1', ...env } },
  );
  expect(stdout).toContain('us-east-1');
});

test.skipIf(!there.get('fake-gcs'))('fake-gcs makes a bucket', async () => {
  const url = `${env.STORAGE_EMULATOR_HOST}/storage/v1/b`;
  const headers = { 'content-type': 'application/json' };
  expect((await fetch(url, { method: 'POST', headers, body: '{"name":"box"}' })).status).toBe(200);
  expect(await (await fetch(url)).text()).toContain('"box"');
});

test.skipIf(!there.get('vcsim') || govc === undefined)('vcsim shows govc its inventory', async () => {
  const { stdout } = await run(govc ?? '', ['ls', '/DC0/host'], { env: { HOME: dir, ...env } });
  expect(stdout).toContain('/DC0/host/DC0_C0');
});

test.skipIf(!there.get('azurite'))(
  'a second `up` leaves alone what runs, and stops what is not named any more',
  async () => {
    const pids = async () => {
      const { stdout } = await cloud('status', '--json').catch((error: { stdout: string }) => error);
      const known = JSON.parse(stdout) as { services: { name: string; pid: number }[] };
      return Object.fromEntries(known.services.map(({ name, pid }) => [name, pid]));
    };
    const before = await pids();
    await cloud('up', '--without-openstack');
    expect(await pids()).toEqual(before);
    await cloud('up', '--without-openstack', '--with', 'azurite');
    expect(await pids()).toEqual({ azurite: before.azurite });
  },
);

test('what cannot be had is told by name, and by the exit status', async () => {
  const cache = path.join(dir, 'cache');
  const args = [
    'up',
    '--state',
    path.join(dir, 'other'),
    '--ports-base',
    '15320',
    '--without-openstack',
    '--with',
    'vcsim',
  ];
  const failed = run(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', SCRIPT.concat('.ts'), ...args],
    {
      // no Go among these
      env: { PATH: '/usr/bin:/bin', HOME: dir, PORT_IMAGE_CACHE: cache },
    },
  );
  await expect(failed).rejects.toMatchObject({
    code: 6,
    stderr: expect.stringMatching(/vcsim \S+ cannot be installed: .*go is not on this machine/),
  });
  await expect(cloud('up', '--with', 'nonsense')).rejects.toMatchObject({ code: 2 });
});
