/** The services as a guest sees them: HTTP on a unix socket. */
import { mkdtemp, rm } from 'node:fs/promises';
import { request as httpRequest } from 'node:http';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { XMLParser } from 'fast-xml-parser';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { MetadataKind } from '../../../core/platform.ts';
import { type MetadataServer, serveMetadata, serviceMetadata } from '../../../tools/metadata/index.ts';

const META = {
  instanceId: '6d2f0b5e-4c8a-4d5b-9c1f-3c1f2a7e9b04',
  hostname: 'shop01',
  userData: '#cloud-config\n{"bootcmd": ["ümlaut & <xml>"]}\n',
  mac: '52:54:00:12:34:56',
};
let dir = '';
let server: MetadataServer | undefined;

beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'metadata-'));
});
afterEach(async () => {
  await server?.close();
  server = undefined;
  await rm(dir, { recursive: true, force: true });
});

async function start(kind: MetadataKind): Promise<void> {
  server = await serveMetadata(kind, serviceMetadata(kind, META), path.join(dir, 's'));
}

type Answer = { status: number | undefined; body: string; headers: Record<string, unknown> };

function ask(url: string, headers: Record<string, string> = {}, method = 'GET', body = ''): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = httpRequest(
      {
        socketPath: path.join(dir, 's'),
        path: url,
        method,
        headers: { host: '169.254.169.254', ...headers },
      },
      (response) => {
        const pieces: Buffer[] = [];
        response.on('data', (piece: Buffer) => pieces.push(piece));
        response.on('end', () =>
          resolve({
            status: response.statusCode,
            body: Buffer.concat(pieces).toString('utf8'),
            headers: response.headers,
          }),
        );
        response.on('error', reject);
      },
    );
    asked.on('error', reject);
    asked.end(body);
  });
}

describe('ec2', () => {
  const TTL = { 'x-aws-ec2-metadata-token-ttl-seconds': '21600' };

  test('nothing without a token of its own; with one the whole tree', async () => {
    await start('ec2');
    expect((await ask('/latest/meta-data/')).status).toBe(401);
    expect((await ask('/latest/user-data', { 'x-aws-ec2-metadata-token': 'guessed' })).status).toBe(401);
    expect((await ask('/latest/api/token', {}, 'PUT')).status).toBe(400);
    const { status, body: token } = await ask('/latest/api/token', TTL, 'PUT');
    expect(status).toBe(200);
    const auth = { 'x-aws-ec2-metadata-token': token };
    // Versions cloud-init asks for, the newest first (DataSourceEc2 extended_metadata_versions).
    for (const version of ['2021-03-23', '2018-09-24', '2016-09-02', '2009-04-04', 'latest'])
      expect((await ask(`/${version}/meta-data/instance-id`, auth)).body).toBe(META.instanceId);
    const mac = '/latest/meta-data/network/interfaces/macs';
    expect((await ask(`${mac}/`, auth)).body).toBe(`${META.mac}/`);
    expect((await ask(`${mac}/${META.mac}/local-ipv4s`, auth)).body).toBe('169.254.2.15');
    expect((await ask('/latest/user-data', auth)).body).toBe(META.userData);
    const identity = (await ask('/latest/dynamic/instance-identity/document', auth)).body;
    expect(JSON.parse(identity)).toMatchObject({ instanceId: META.instanceId, region: 'eu-central-1' });
    expect((await ask('/latest/meta-data/public-keys/', auth)).status).toBe(404);
    expect((await ask('/latest/meta-data/__proto__/toString', auth)).status).toBe(404);
    expect((await ask('/latest/meta-data/', auth, 'DELETE')).status).toBe(405);
    expect(server?.seen()).toContain('GET /latest/meta-data/ 401');
  });

  test('every folder it lists can be read to the end', async () => {
    await start('ec2');
    const auth = { 'x-aws-ec2-metadata-token': (await ask('/latest/api/token', TTL, 'PUT')).body };
    let leaves = 0;
    const walk = async (folder: string): Promise<void> => {
      const { status, body } = await ask(folder, auth);
      expect([folder, status]).toEqual([folder, 200]);
      for (const name of body.split('\n')) {
        if (name.endsWith('/')) await walk(`${folder}${name}`);
        else {
          leaves++;
          expect((await ask(`${folder}${name}`, auth)).status).toBe(200);
        }
      }
    };
    await walk('/latest/meta-data/');
    expect(leaves).toBeGreaterThan(10);
  });
});

test('aliyun has the tree without tokens', async () => {
  await start('aliyun');
  expect((await ask('/2016-01-01/meta-data/instance-id')).body).toBe(META.instanceId);
  expect((await ask('/2016-01-01/user-data')).body).toBe(META.userData);
});

describe('gce', () => {
  const FLAVOR = { 'metadata-flavor': 'Google' };

  test('the header is required, and the answers carry it', async () => {
    await start('gce');
    expect((await ask('/computeMetadata/v1/instance/id')).status).toBe(403);
    const id = await ask('/computeMetadata/v1/instance/id', FLAVOR);
    expect(id).toMatchObject({ status: 200, headers: FLAVOR });
    expect(id.body).toMatch(/^\d+$/);
    // DataSourceGCE reads these two with recursive=True.
    const attributes = await ask('/computeMetadata/v1/instance/attributes/?recursive=True', FLAVOR);
    expect(JSON.parse(attributes.body)).toEqual({ 'user-data': META.userData });
    expect((await ask('/computeMetadata/v1/project/attributes/?recursive=True', FLAVOR)).body).toBe('{}');
    expect((await ask('/computeMetadata/v1/instance/', FLAVOR)).body.split('\n')).toContain('zone');
    expect((await ask('/computeMetadata/v2/', FLAVOR)).status).toBe(404);
  });

  test('a wait for changes does not end at once, and not with the service either', async () => {
    await start('gce');
    const waiting = ask(
      '/computeMetadata/v1/?recursive=true&wait_for_change=true&last_etag=0123456789abcdef',
      FLAVOR,
    ).then(
      () => 'answered',
      () => 'cut',
    );
    const still = new Promise((resolve) => setTimeout(resolve, 300, 'waiting'));
    expect(await Promise.race([waiting, still])).toBe('waiting');
    await server?.close();
    server = undefined;
    expect(await waiting).toBe('cut');
  });
});

describe('azure', () => {
  test('instance metadata wants its header', async () => {
    await start('azure');
    const url = '/metadata/instance?api-version=2021-08-01&extended=true';
    expect((await ask(url)).status).toBe(400);
    const instance = JSON.parse((await ask(url, { metadata: 'true' })).body);
    expect(instance.compute).toMatchObject({ name: 'shop01', vmId: META.instanceId });
    expect(instance.network.interface[0].macAddress).toBe('525400123456');
  });

  test('goal state and health report, as cloud-init ends its provisioning', async () => {
    await start('azure');
    const goal = new XMLParser().parse((await ask('/machine/?comp=goalstate')).body);
    // cloudinit/sources/helpers/azure.py GoalState: these three must be there.
    expect(goal.GoalState.Incarnation).toBe(1);
    expect(goal.GoalState.Container.ContainerId).toBe(META.instanceId);
    expect(goal.GoalState.Container.RoleInstanceList.RoleInstance.InstanceId).toBe(META.instanceId);
    expect((await ask('/machine?comp=health', {}, 'POST', '<Health/>')).status).toBe(200);
    expect((await ask('/machine?comp=health')).status).toBe(404);
    const versions = new XMLParser().parse((await ask('/?comp=versions')).body);
    expect(versions.Versions.Supported.Version).toContain('2012-11-30');
  });
});

test('oracle wants its bearer; user data is base64', async () => {
  await start('oracle');
  expect((await ask('/opc/v2/instance/')).status).toBe(403);
  const auth = { authorization: 'Bearer Oracle' };
  const instance = JSON.parse((await ask('/opc/v2/instance/', auth)).body);
  expect(Buffer.from(instance.metadata.user_data, 'base64').toString('utf8')).toBe(META.userData);
  expect(JSON.parse((await ask('/opc/v2/vnics/', auth)).body)[0].macAddr).toBe(META.mac);
  expect((await ask('/opc/v1/instance/', auth)).status).toBe(404);
});

test('what a guest may send is bounded', async () => {
  await start('azure');
  const answer = await ask('/machine?comp=health', {}, 'POST', 'x'.repeat(2 * 1024 * 1024)).then(
    ({ status }) => status,
    () => 'cut',
  );
  expect([400, 'cut']).toContain(answer);
  expect((await ask('/?comp=versions')).status).toBe(200);
});

test.each(['config-drive', 'nocloud', 'ovf'] as const)('%s has no service', async (kind) => {
  await start(kind);
  expect(server).toBeUndefined();
});
