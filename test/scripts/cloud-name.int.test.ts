import { execFile } from 'node:child_process';
import { createHash, createHmac, randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Cloud, startCloud, type TestProject } from '../support/cloud.ts';

const run = promisify(execFile);
const SCRIPT = path.join(import.meta.dirname, '../../scripts/cloud');
const NAMES = ['named-one', 'named-two'] as const;
const dir = mkdtempSync(path.join(os.tmpdir(), 'port-image-named-'));
const file = path.join(dir, 'clouds.yaml');
const clouds: Cloud[] = [];
let project: TestProject | undefined;

/** The distribution's client with nothing of this environment but the merged file. */
const openstack = (cloud: string, ...args: string[]) =>
  run('/usr/bin/openstack', ['--os-cloud', cloud, ...args], {
    env: { PATH: '/usr/bin:/bin', HOME: dir, OS_CLIENT_CONFIG_FILE: file },
  });

beforeAll(async () => {
  for (const name of NAMES) clouds.push(await startCloud({ name }));
  await run(SCRIPT, ['clouds', ...NAMES.flatMap((name) => ['--name', name]), '--out', file]);
}, 180_000);
afterAll(async () => {
  await project?.cleanup();
  for (const cloud of clouds) await cloud.down({ forget: true });
  rmSync(dir, { recursive: true, force: true });
  for (const cloud of clouds) expect(existsSync(cloud.stateDir)).toBe(false);
}, 60_000);

test('one clouds.yaml reaches both, and they share nothing', async () => {
  expect(statSync(file).mode & 0o777).toBe(0o600);
  await openstack(NAMES[0], 'container', 'create', 'only-in-one');
  const list = async (name: string) =>
    (await openstack(name, 'container', 'list', '-f', 'value')).stdout.trim();
  expect(await list(NAMES[0])).toBe('only-in-one');
  expect(await list(NAMES[1])).toBe('');
  const { stdout } = await openstack(`${NAMES[1]}-admin`, 'project', 'list', '-f', 'value', '-c', 'Name');
  expect(stdout).toContain('admin');
});

test('a name keeps its ports and its entries', async () => {
  const settings = () => readFileSync(path.join(clouds[0]?.stateDir ?? '', 'settings.json'), 'utf8');
  const before = settings();
  const { stdout } = await run(SCRIPT, ['env', '--name', NAMES[0]]);
  expect(stdout).toContain(`OS_AUTH_URL='${clouds[0]?.identityUrl}/v3'`);
  expect(settings()).toBe(before);
  const merged = await run(SCRIPT, ['clouds', '--name', NAMES[0]]);
  const known = JSON.parse(merged.stdout) as { clouds: Record<string, { auth: { auth_url: string } }> };
  expect(Object.keys(known.clouds)).toEqual([NAMES[0], `${NAMES[0]}-admin`]);
  expect(known.clouds[NAMES[0]]?.auth.auth_url).toBe(`${clouds[0]?.identityUrl}/v3`);
});

test('Glance reads an image from its own Swift, composed of segments, by a signed URL', async () => {
  const cloud = clouds[1];
  if (cloud === undefined) throw new Error('no cloud');
  project = await cloud.project('import');
  const user = await project.login();
  const bytes = [randomBytes(2 ** 20), randomBytes(2 ** 20), randomBytes(2 ** 19)];
  const put = (url: string, body: Buffer | string, headers: Record<string, string> = {}) =>
    fetch(url, { method: 'PUT', body, headers: { 'x-auth-token': user.token, ...headers } });
  const box = `${project.accountUrl}/box`;
  await put(box, '', { 'x-container-meta-temp-url-key': 'key' });
  for (const [at, part] of bytes.entries()) expect((await put(`${box}/part${at}`, part)).status).toBe(201);
  const manifest = JSON.stringify(
    bytes.map((part, at) => ({ path: `/box/part${at}`, size_bytes: part.length })),
  );
  expect((await put(`${box}/whole?multipart-manifest=put`, manifest)).status).toBe(201);
  const expires = Math.floor(Date.now() / 1000) + 600;
  const { pathname } = new URL(`${box}/whole`);
  const signature = createHmac('sha256', 'key').update(`GET\n${expires}\n${pathname}`).digest('hex');
  const headers = { 'x-auth-token': user.token, 'content-type': 'application/json' };
  const made = await fetch(`${cloud.imageUrl}/v2/images`, {
    method: 'POST',
    headers,
    body: JSON.stringify({ name: 'composed', disk_format: 'raw', container_format: 'bare' }),
  });
  const { id } = (await made.json()) as { id: string };
  const uri = `${box}/whole?temp_url_sig=${signature}&temp_url_expires=${expires}`;
  const begun = await fetch(`${cloud.imageUrl}/v2/images/${id}/import`, {
    method: 'POST',
    headers,
    body: JSON.stringify({ method: { name: 'web-download', uri } }),
  });
  expect(begun.status).toBe(202);
  const image = async () =>
    (await (await fetch(`${cloud.imageUrl}/v2/images/${id}`, { headers })).json()) as Record<string, string>;
  await expect.poll(async () => (await image()).status, { timeout: 60_000 }).toBe('active');
  const digest = createHash('sha512');
  for (const part of bytes) digest.update(part);
  expect((await image()).os_hash_value).toBe(digest.digest('hex'));
});

test('what is wrong is said', async () => {
  const fails = async (...args: string[]) =>
    run(SCRIPT, args).then(
      () => '',
      (error: { code: number; stderr: string }) => `${error.code} ${error.stderr.trim()}`,
    );
  expect(await fails('status', '--name', 'a/b')).toMatch(/^2 .*letters, digits and dashes/);
  expect(await fails('status', '--name', 'x', '--state', dir)).toMatch(/^2 .*not both/);
  expect(await fails('env', '--name', 'x', '--name', 'y')).toMatch(/^2 .*one --name/);
  expect(await fails('clouds')).toMatch(/^2 .*name each one/);
  expect(await fails('clouds', '--name', 'nobody')).toMatch(/^6 .*scripts\/cloud up --name nobody/);
  expect(await fails('status', '--name', 'nobody')).toMatch(/^6 .*scripts\/cloud up --name nobody/);
});
