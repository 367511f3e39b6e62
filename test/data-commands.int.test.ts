/** `data` against the real Keystone and Swift; what was written is read by curl, as any client would. */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parse } from 'yaml';
import { Provision } from '../core/contract.ts';
import { openStore } from '../drivers/stores/index.ts';
import type { Store } from '../drivers/stores/store.ts';
import { runCli } from './support/cli.ts';
import { CLOUD_NAME, type Cloud, startCloud, type TestProject } from './support/cloud.ts';
import { listTree, putSmallSet, SMALL_TREE } from './support/small-set.ts';

const run = promisify(execFile);
let cloud: Cloud;
let project: TestProject;
let store: Store;
let dir: string;

const env = () => ({
  OS_CLIENT_CONFIG_FILE: project.cloudsYaml,
  OS_CLOUD: CLOUD_NAME,
  PORT_IMAGE_STORE: 'swift:t',
  PORT_IMAGE_JOBS: path.join(dir, 'jobs'),
});
const data = (...args: string[]) => runCli(['data', ...args], { env: env() });
async function ok(...args: string[]) {
  const result = await data(...args);
  expect(result.exitCode, result.stderr).toBe(0);
  return result;
}
/** HTTP status of a GET by curl; the URL and headers go by stdin. */
async function status(url: string, token?: string, method = 'GET'): Promise<number> {
  const child = run('curl', ['-q', '-s', '-K', '-', '-o', '/dev/null', '-w', '%{http_code}']);
  const header = token === undefined ? '' : `header = "X-Auth-Token: ${token}"\n`;
  const asked = method === 'HEAD' ? 'head\n' : `request = ${method}\n`;
  child.child.stdin?.end(`url = "${url}"\n${header}${asked}`);
  return Number((await child).stdout);
}
const below = (url: string, key: string) => {
  const [base = '', query] = url.split('?');
  return `${base}${key}${query === undefined ? '' : `?${query}`}`;
};
const document = async (file: string) => Provision.parse(JSON.parse(await fs.readFile(file, 'utf8')));

beforeAll(async () => {
  cloud = await startCloud();
  project = await cloud.project('data');
  dir = project.dir;
  process.env.OS_CLIENT_CONFIG_FILE = project.cloudsYaml;
  store = openStore('swift:t', { cloud: CLOUD_NAME });
  await putSmallSet(store, 'shop-srv');
  await putSmallSet(store, 'shop-var', { tree: { a: 'b' } });
});
afterAll(async () => {
  await store?.close?.();
  await project?.cleanup();
  delete process.env.OS_CLIENT_CONFIG_FILE;
});

test('list and verify see what is in Swift', async () => {
  const rows = (await ok('list', '--json')).json();
  expect(rows).toMatchObject([
    { id: 'shop-srv', state: 'complete', files: 6 },
    { id: 'shop-var', state: 'complete', files: 1 },
  ]);
  expect((await ok('verify', '--all')).stdout).toMatch(/^ok {6}shop-srv .*\nok {6}shop-var /);
  expect((await data('show', 'shop-svr')).stderr).toContain('did you mean shop-srv');
});

test('mint opens one data set to curl, restore needs the document alone, revoke closes it', async () => {
  const file = path.join(dir, 'provision.json');
  const minted = await ok('mint', 'shop-srv', '--out', file, '--expires', '2h');
  expect(minted.stdout + minted.stderr).not.toContain('temp_url');
  expect((await fs.stat(file)).mode & 0o777).toBe(0o600);
  const provision = await document(file);
  const { url = '', expires = '' } = provision.data['shop-srv'] ?? {};
  const leftMs = Date.parse(expires) - Date.now();
  expect(leftMs).toBeGreaterThan(1.9 * 3_600_000);
  expect(leftMs).toBeLessThan(2.1 * 3_600_000);
  expect(await status(below(url, 'manifest.json'))).toBe(200);
  expect(await status(below(url, 'segments/000001.tar.zst'))).toBe(200);
  expect(await status(below(url, 'manifest.json'), undefined, 'DELETE')).toBe(401);
  expect(await status(below(url, 'manifest.json'), undefined, 'PUT')).toBe(401);
  expect(await status(below(url.replace('t.shop-srv', 't.shop-var'), 'manifest.json'))).toBe(401);
  expect(await status(url.split('?')[0] ?? '')).toBe(401);

  // no cloud, no store, no configuration: only the file
  const back = path.join(dir, 'back');
  const restored = await runCli(['data', 'restore', 'shop-srv', back, '--from-provision', file, '--json'], {
    env: { OS_CLIENT_CONFIG_FILE: '/dev/null', OS_CLOUD: '', PORT_IMAGE_STORE: '' },
  });
  expect(restored.exitCode, restored.stderr).toBe(0);
  const direct = path.join(dir, 'direct');
  await ok('restore', 'shop-srv', direct);
  expect(listTree(back)).toBe(listTree(direct));
  expect(await fs.readFile(path.join(back, 'app/data/big1'))).toEqual(SMALL_TREE['app/data/big1']);

  expect((await ok('revoke', 'shop-srv')).stdout).toContain('revoked');
  expect(await status(below(url, 'manifest.json'))).toBe(401);
  const refused = await data('restore', 'shop-srv', path.join(dir, 'no'), '--from-provision', file);
  expect(refused.exitCode).toBe(6);
  expect(refused.stderr).toMatch(
    /refuses the URL of shop-srv \(HTTP 401\)[^\n]*\n {2}hint: .*data mint shop-srv/,
  );
  expect(refused.stderr).not.toContain('temp_url_sig=');
});

test('user data and pointer carry the same document', async () => {
  const userData = path.join(dir, 'user-data.yaml');
  const minted = await ok('mint', 'shop-srv', 'shop-var', '--user-data', userData, '--pointer');
  const text = await fs.readFile(userData, 'utf8');
  expect(text).toMatch(/^#cloud-config\n/);
  expect((await fs.stat(userData)).mode & 0o777).toBe(0o600);
  const [file] = parse(text).write_files;
  expect(file).toMatchObject({
    path: '/run/port-image/provision.json',
    owner: 'root:root',
    permissions: '0600',
  });
  const provision = Provision.parse(JSON.parse(file.content));
  expect(Object.keys(provision.data)).toEqual(['shop-srv', 'shop-var']);
  const lines = [...minted.stdout.matchAll(/^(port_image(?:_\d)?)=(.*)$/gm)];
  expect(lines.map((l) => l[1])).toEqual(['port_image', 'port_image_2'].slice(0, lines.length));
  for (const [, , value = ''] of lines) expect(value.length).toBeLessThanOrEqual(255);
  const pointer = lines.map((l) => l[2]).join('');
  const { stdout } = await run('curl', ['-q', '-s', '-f', pointer]);
  expect(JSON.parse(stdout)).toEqual(provision);
  // the data set is still whole, and the document is not garbage while it is good
  await ok('verify', 'shop-srv');
  expect((await ok('gc', '--older-than', '0s', '--json')).json()).toMatchObject({ garbage: [] });
  await ok('revoke', 'shop-srv');
  expect(await status(pointer)).toBe(401);
});

test('--ip binds the URL to an address', async () => {
  const url = async (ip: string) => {
    const made = Provision.parse((await ok('mint', 'shop-var', '--ip', ip)).json());
    return below(made.data['shop-var']?.url ?? '', 'manifest.json');
  };
  expect(await status(await url('127.0.0.0/8'))).toBe(200);
  expect(await status(await url('10.9.8.7'))).toBe(401);
});

async function tokenOf(id: string, secret: string): Promise<string | undefined> {
  const body = path.join(dir, 'login.json');
  const identity = { methods: ['application_credential'], application_credential: { id, secret } };
  await fs.writeFile(body, JSON.stringify({ auth: { identity } }), { mode: 0o600 });
  const { stdout } = await run('curl', [
    ...['-q', '-s', '-i', '-H', 'Content-Type: application/json', '-d', `@${body}`],
    `${project.authUrl}/auth/tokens`,
  ]);
  return /^x-subject-token: (\S+)/im.exec(stdout)?.[1];
}

test('an application credential reads its data sets and nothing else, until it is revoked', async () => {
  const file = path.join(dir, 'credential.json');
  const minted = await ok('mint', 'shop-srv', '--application-credential', 'new', '--out', file, '--json');
  const { applicationCredential: id } = minted.json() as { applicationCredential: string };
  const { url = '', auth } = (await document(file)).data['shop-srv'] ?? {};
  expect(auth).toMatchObject({ type: 'v3applicationcredential', id });
  expect(minted.stdout + minted.stderr).not.toContain(auth?.secret);
  const token = await tokenOf(id, auth?.secret ?? '');
  expect(token).toBeDefined();
  expect(await status(below(url, 'manifest.json'), token)).toBe(200);
  expect(await status(below(url, 'manifest.json'), token, 'HEAD')).toBe(200);
  expect(await status(below(url, 'segments/000001.tar.zst'), token)).toBe(200);
  const elsewhere = [
    await status(below(url.replace('t.shop-srv', 't.shop-var'), 'manifest.json'), token),
    await status(project.accountUrl, token),
    await status(below(url, 'manifest.json'), token, 'DELETE'),
    await status(below(url, 'new'), token, 'PUT'),
    await status(`${cloud.imageUrl}/v2/images`, token),
    await status(below(url, 'manifest.json')),
  ];
  for (const code of elsewhere) expect([401, 403]).toContain(code);
  expect(await status(below(url, 'manifest.json'), token)).toBe(200);

  const back = path.join(dir, 'back-credential');
  const alone = { OS_CLIENT_CONFIG_FILE: '/dev/null', OS_CLOUD: '', PORT_IMAGE_STORE: '' };
  const restored = await runCli(['data', 'restore', 'shop-srv', back, '--from-provision', file], {
    env: alone,
  });
  expect(restored.exitCode, restored.stderr).toBe(0);
  expect(await fs.readFile(path.join(back, 'app/config'), 'utf8')).toBe('port=80\n');

  // an existing one: its rules are read, its secret comes from a file
  const secretFile = path.join(dir, 'secret');
  await fs.writeFile(secretFile, `${auth?.secret}\n`, { mode: 0o600 });
  const existing = ['--application-credential', id, '--secret-file', secretFile];
  const again = Provision.parse((await ok('mint', 'shop-srv', ...existing)).json());
  expect(again.data['shop-srv']?.auth?.id).toBe(id);
  const wrong = await data('mint', 'shop-var', ...existing);
  expect(wrong.stderr).toMatch(/do not allow reading the data sets/);
  expect(wrong.exitCode).toBe(6);

  const revoked = await ok('revoke', ...existing);
  expect(revoked.stdout).toContain('gives no token');
  expect(await tokenOf(id, auth?.secret ?? '')).toBeUndefined();
  expect((await data('revoke', ...existing)).exitCode).toBe(2);
  const refused = await runCli(
    ['data', 'restore', 'shop-srv', path.join(dir, 'no2'), '--from-provision', file],
    {
      env: alone,
    },
  );
  expect(refused.exitCode).toBe(6);
  expect(refused.stderr).toContain('CLOUD_LOGIN');
});

test('credentials without rules, with an end in the past, or of nobody are refused', async () => {
  const use = (id: string, secret: string, ...more: string[]) =>
    runCli(['data', 'mint', 'shop-var', '--application-credential', id, ...more], {
      env: { ...env(), OS_APPLICATION_CREDENTIAL_SECRET: secret },
    });
  const roles = [{ name: 'member' }];
  const open = await project.applicationCredential({ roles });
  const refused = await use(open.id, open.secret);
  expect(refused.exitCode).toBe(6);
  expect(refused.stderr).toContain('has no access rules');
  expect(refused.stdout).toBe('');
  const forced = await use(open.id, open.secret, '--allow-unrestricted');
  expect(forced.exitCode, forced.stderr).toBe(0);
  expect(forced.stderr).toContain('HAS NO ACCESS RULES');
  const unknown = await use('0'.repeat(32), 'x');
  expect(unknown.stderr).toContain('no application credential');
  const odd = await use('../../projects', 'x');
  expect(odd.stderr).toContain('not an id');
  const soon = new Date(Date.now() + 2000).toISOString().replace('Z', '000');
  const ending = await project.applicationCredential({ roles, expires_at: soon });
  await new Promise((resolve) => setTimeout(resolve, 3000));
  // Keystone hides or shows an expired credential, depending on its version
  expect((await use(ending.id, ending.secret, '--allow-unrestricted')).stderr).toMatch(
    /expired at|no application/,
  );
});

test('gc takes only our own garbage; rm takes a whole set', async () => {
  const { token } = await project.login();
  const at = (name: string) => `${project.accountUrl}/${name}`;
  const put = async (name: string, body: string) => {
    const file = path.join(dir, 'body');
    await fs.writeFile(file, body);
    await run('curl', ['-q', '-s', '-f', '-H', `X-Auth-Token: ${token}`, '-T', file, at(name)]);
  };
  await putSmallSet(store, 'dead', { tree: { a: 'b', big: randomBytes(1000) } });
  await store.remove('dead/manifest.json');
  await put('t.dead/segments/000009.tar.zst.parts/000001', 'part of a killed upload');
  await put('t.shop-srv/segments/000099.tar.zst', 'stray');
  await run('curl', ['-q', '-s', '-f', '-X', 'PUT', '-H', `X-Auth-Token: ${token}`, at('t.foreign')]);
  await put('t.foreign/segments/000001.tar.zst', 'looks like ours, has no mark');
  expect((await ok('list', '--json')).json()).toMatchObject([
    { id: 'dead', state: 'incomplete' },
    { id: 'shop-srv', state: 'complete' },
    { id: 'shop-var' },
  ]);
  // a day has not passed
  expect((await ok('gc', '--yes')).stderr).toMatch(/left alone: dead/);
  const wait = () => new Promise((resolve) => setTimeout(resolve, 1500));
  await wait();
  const listed = (await ok('gc', '--older-than', '1s', '--json')).json() as { garbage: { key: string }[] };
  const keys = listed.garbage.map((g) => g.key);
  expect(keys).toContain('dead/segments/000009.tar.zst.parts/000001');
  expect(keys).toContain('shop-srv/segments/000099.tar.zst');
  expect(keys.every((k) => k.startsWith('dead/') || k === 'shop-srv/segments/000099.tar.zst')).toBe(true);
  await ok('gc', '--older-than', '1s', '--yes');
  expect(await status(at('t.dead'), token)).toBe(404);
  expect(await status(at('t.foreign/segments/000001.tar.zst'), token)).toBe(200);
  expect(await status(at('t.shop-srv/segments/000099.tar.zst'), token)).toBe(404);
  await ok('verify', 'shop-srv');

  expect((await data('rm', 'shop-var')).exitCode).toBe(2);
  await ok('rm', 'shop-var', '--yes');
  expect(await status(at('t.shop-var'), token)).toBe(404);
  expect((await ok('list', '--json')).json()).toMatchObject([{ id: 'shop-srv' }]);
});
