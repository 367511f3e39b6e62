import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import * as path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ask } from '../../scripts/cloud.d/http.ts';
import { type Cloud, startCloud, type TestProject } from '../support/cloud.ts';
import { startFaultProxy } from '../support/fault-proxy.ts';

let cloud: Cloud;
let project: TestProject;
let file: string;
const data = randomBytes(3 * 2 ** 20);

beforeAll(async () => {
  cloud = await startCloud();
  project = await cloud.project('clients');
  file = path.join(project.dir, 'data');
  writeFileSync(file, data);
});
afterAll(() => project?.cleanup());

/** Runs a client of the distribution with closed stdin; rejects with its output. */
function client(command: string, args: string[], env: Record<string, string> = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    // `glance` takes any open stdin for the image; the shell can start it with none.
    const child = spawn('/bin/sh', ['-c', 'exec "$@" <&-', 'sh', `/usr/bin/${command}`, ...args], {
      env: { ...project.env, ...env },
      cwd: project.dir,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let [out, errors] = ['', ''];
    child.stdout.on('data', (chunk) => {
      out += chunk;
    });
    child.stderr.on('data', (chunk) => {
      errors += chunk;
    });
    child.on('error', reject);
    child.on('close', (code) =>
      code === 0 ? resolve(out) : reject(new Error(`${command} ${args[0]}: ${code}\n${errors}`)),
    );
  });
}

test('state and secrets are for their owner alone', () => {
  expect(statSync(cloud.stateDir).mode & 0o777).toBe(0o700);
  for (const name of ['clouds.yaml', 'secrets.json', 'keystone/keystone.conf'])
    expect(statSync(path.join(cloud.stateDir, name)).mode & 0o777).toBe(0o600);
  expect(statSync(project.cloudsYaml).mode & 0o777).toBe(0o600);
});

test('openstack issues a token, by variables and by clouds.yaml', async () => {
  const args = ['token', 'issue', '-f', 'value', '-c', 'project_id'];
  expect((await client('openstack', args)).trim()).toBe(project.projectId);
  const viaFile = { OS_CLIENT_CONFIG_FILE: project.cloudsYaml };
  const byFile = await client(
    'env',
    [
      ...Object.keys(project.env).flatMap((name) => (name.startsWith('OS_') ? ['-u', name] : [])),
      ...['/usr/bin/openstack', '--os-cloud', 'test', ...args],
    ],
    viaFile,
  );
  expect(byFile.trim()).toBe(project.projectId);
});

test('swift uploads in segments and downloads the same bytes', async () => {
  await client('swift', [
    'upload',
    '--use-slo',
    '--segment-size',
    '1048576',
    '--object-name',
    'o',
    'box',
    file,
  ]);
  await client('swift', ['download', 'box', 'o', '--output', path.join(project.dir, 'back')]);
  expect(readFileSync(path.join(project.dir, 'back')).equals(data)).toBe(true);
  expect(await client('swift', ['stat', 'box', 'o'])).toMatch(/X-Static-Large-Object: True/i);
});

test('swift holds more metadata than ext4 would', async () => {
  const { token } = await project.login();
  const meta = Array.from({ length: 16 }, (_, i) => [`x-object-meta-m${i}`, 'v'.repeat(200)]);
  const headers = { 'x-auth-token': token, 'content-length': '0', ...Object.fromEntries(meta) };
  await ask('PUT', `${project.accountUrl}/meta`, { headers: { 'x-auth-token': token } });
  expect((await ask('PUT', `${project.accountUrl}/meta/o`, { headers })).status).toBe(201);
});

test('an object above the limit is refused', async () => {
  const info = JSON.parse((await ask('GET', `${cloud.objectStoreUrl}/info`)).text);
  expect(info.swift.max_file_size).toBe(64 * 2 ** 20);
  const { token } = await project.login();
  const headers = { 'x-auth-token': token, 'content-length': `${64 * 2 ** 20 + 1}` };
  await ask('PUT', `${project.accountUrl}/big`, { headers: { 'x-auth-token': token } });
  expect((await ask('PUT', `${project.accountUrl}/big/o`, { headers })).status).toBe(413);
});

test('glance takes and returns an image, in both stores', async () => {
  const made = await client('glance', [
    ...['image-create', '--name', 'i', '--disk-format', 'raw', '--container-format', 'bare', '--file', file],
  ]);
  const id = /\| id +\| (\S+)/.exec(made)?.[1] ?? '';
  await client('glance', ['image-download', id, '--file', path.join(project.dir, 'image')]);
  expect(readFileSync(path.join(project.dir, 'image')).equals(data)).toBe(true);
  expect(await client('glance', ['stores-info'])).toMatch(/fast[\s\S]*slow|slow[\s\S]*fast/);
  const headers = { 'x-auth-token': (await project.login()).token };
  const methods = JSON.parse((await ask('GET', `${cloud.imageUrl}/v2/info/import`, { headers })).text);
  expect(methods['import-methods'].value).toEqual(['glance-direct', 'web-download', 'copy-image']);
});

test('aws s3 reads what swift wrote', async () => {
  const { access, secret } = await project.ec2();
  const out = await client('aws', ['--endpoint-url', cloud.objectStoreUrl, 's3', 'ls', 's3://box/'], {
    AWS_ACCESS_KEY_ID: access,
    AWS_SECRET_ACCESS_KEY: secret,
    AWS_DEFAULT_REGION: 'us-east-1',
  });
  expect(out).toMatch(new RegExp(` ${data.length} o\\n`));
});

test('openstack goes through a fault proxy by the endpoint in clouds.yaml', async () => {
  const proxy = await startFaultProxy(cloud.objectStoreUrl);
  try {
    const file = project.writeClouds('proxied.yaml', { objectStore: proxy.url });
    const unset = Object.keys(project.env).flatMap((name) => (name.startsWith('OS_') ? ['-u', name] : []));
    const list = ['/usr/bin/openstack', '--os-cloud', 'test', 'container', 'list', '-f', 'value'];
    expect(await client('env', [...unset, `OS_CLIENT_CONFIG_FILE=${file}`, ...list])).toMatch(/^box$/m);
    expect(proxy.count({ method: 'GET', path: new RegExp(`/v1/AUTH_${project.projectId}`) })).toBe(1);
  } finally {
    await proxy.close();
  }
});

test('quotas can be set for one project', async () => {
  const small = await cloud.project('quota');
  try {
    await small.limitImages({ image_size_total: 1 });
    await small.limitObjects(1000);
    const headers = { 'x-auth-token': (await small.login()).token };
    const usage = JSON.parse((await ask('GET', `${cloud.imageUrl}/v2/info/usage`, { headers })).text);
    expect(usage.usage.image_size_total).toEqual({ limit: 1, usage: 0 });
    await ask('PUT', `${small.accountUrl}/box`, { headers });
    const put = (bytes: number) =>
      ask('PUT', `${small.accountUrl}/box/o`, { headers, body: 'x'.repeat(bytes) });
    expect((await put(2000)).status).toBe(413);
    expect((await put(10)).status).toBe(201);
  } finally {
    await small.cleanup();
  }
});

test('a second cloud beside it: TLS with its own CA, short tokens, nothing left', async () => {
  const other = await startCloud({ state: 'second', portsBase: 15100, tls: true, tokenLifeS: 15 });
  try {
    const url = `${other.tlsIdentityUrl}/v3`;
    expect((await ask('GET', url, { caFile: other.caFile })).status).toBe(200);
    await expect(ask('GET', url)).rejects.toThrow(/certificate/);

    const mine = await other.project('short');
    const headers = { 'x-auth-token': (await mine.login()).token };
    expect((await ask('GET', `${mine.accountUrl}?format=json`, { headers })).status).toBe(200);
    const later = async () => (await ask('GET', `${mine.accountUrl}?format=json`, { headers })).status;
    await expect.poll(later, { timeout: 60_000, interval: 1000 }).toBe(401);
    const fields = { region_name: 'RegionTLS', cacert: other.caFile };
    const tls = mine.writeClouds('tls.yaml', { identity: other.tlsIdentityUrl ?? '' }, fields);
    const unset = Object.keys(project.env).flatMap((name) => (name.startsWith('OS_') ? ['-u', name] : []));
    const list = ['/usr/bin/openstack', '--os-cloud', 'test', 'image', 'list'];
    await client('env', [...unset, `OS_CLIENT_CONFIG_FILE=${tls}`, ...list]);
    await mine.cleanup();
  } finally {
    await other.down({ forget: true });
  }
  expect(existsSync(other.stateDir)).toBe(false);
  await expect(ask('GET', other.identityUrl)).rejects.toThrow(/ECONNREFUSED/);
  expect((await ask('GET', `${cloud.identityUrl}/v3`)).status).toBe(200);
});
