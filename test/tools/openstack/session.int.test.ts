/** The login against a real Keystone, and through the TLS front with its own authority. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type CloudConfig, loadCloud } from '../../../tools/openstack/config.ts';
import { CloudSession, keystoneRoot } from '../../../tools/openstack/session.ts';
import { runCli } from '../../support/cli.ts';
import { CLOUD_NAME, type Cloud, startCloud, type TestProject } from '../../support/cloud.ts';
import { startFaultProxy } from '../../support/fault-proxy.ts';

let cloud: Cloud;
let project: TestProject;
const sessions: CloudSession[] = [];

beforeAll(async () => {
  cloud = await startCloud();
  project = await cloud.project('session');
}, 300_000);
afterAll(async () => {
  for (const session of sessions) await session.close();
  await project?.cleanup();
});

const config = (file = project.cloudsYaml) => loadCloud(CLOUD_NAME, { OS_CLIENT_CONFIG_FILE: file });
async function open(from: CloudConfig): Promise<CloudSession> {
  const session = await CloudSession.open(from);
  sessions.push(session);
  return session;
}
const images = async (session: CloudSession): Promise<number> => {
  const url = new URL('v2/images', session.endpoint('image'));
  const answer = await session.request(url, { method: 'GET', what: 'list' });
  await answer.drain();
  return answer.status;
};
async function revoke(token: string): Promise<void> {
  const url = new URL('auth/tokens', keystoneRoot(new URL(project.authUrl)));
  const answer = await fetch(url, {
    method: 'DELETE',
    headers: { 'x-auth-token': token, 'x-subject-token': token },
  });
  expect(answer.status).toBe(204);
}

describe('login', () => {
  test('password: project, roles, endpoints of the catalog', async () => {
    const session = await open(await config());
    expect(session.projectId).toBe(project.projectId);
    expect(session.roles).toContain('member');
    expect(session.endpoint('object-store').href).toBe(`${project.accountUrl}/`);
    expect(await images(session)).toBe(200);
  });

  test('OS_* variables, token, application credential with and without a name', async () => {
    expect(await images(await open(await loadCloud('envvars', project.env)))).toBe(200);
    const first = await open(await config());
    const byToken = project.writeClouds(
      'token.yaml',
      {},
      {
        auth_type: 'v3token',
        auth: { auth_url: project.authUrl, token: await first.token(), project_id: project.projectId },
      },
    );
    expect(await images(await open(await config(byToken)))).toBe(200);
    const { id, secret } = await project.applicationCredential();
    const byCredential = project.writeClouds(
      'credential.yaml',
      {},
      {
        auth_type: 'v3applicationcredential',
        auth: {
          auth_url: project.authUrl,
          application_credential_id: id,
          application_credential_secret: secret,
        },
      },
    );
    const session = await open(await config(byCredential));
    expect(session.projectId).toBe(project.projectId);
    expect(await images(session)).toBe(200);
  });

  test('a wrong password is one clear refusal without the password', async () => {
    const file = project.writeClouds(
      'wrong.yaml',
      {},
      {
        auth: {
          auth_url: project.authUrl,
          username: project.userName,
          password: 'wrong-secret-word',
          project_name: project.projectName,
          user_domain_id: 'default',
          project_domain_id: 'default',
        },
      },
    );
    const error = await open(await config(file)).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: 'CLOUD_LOGIN', message: expect.stringContaining('does not accept') });
    expect(JSON.stringify(error) + String(error)).not.toContain('wrong-secret-word');
  });

  test('no service in this region, several regions, no Keystone: each named', async () => {
    const elsewhere = await open({ ...(await config()), region: 'Nowhere' });
    expect(() => elsewhere.endpoint('image')).toThrow(
      expect.objectContaining({ code: 'CLOUD_REFUSED', hint: expect.stringContaining('RegionOne') }),
    );
    const notKeystone = { ...(await config()), authUrl: new URL(cloud.objectStoreUrl) };
    await expect(open(notKeystone)).rejects.toMatchObject({ code: expect.stringMatching(/^(CONFIG|CLOUD)/) });
  });
});

describe('tokens', () => {
  test('a revoked token is replaced once, and requests go on', async () => {
    const session = await open(await config());
    const old = await session.token();
    await revoke(old);
    // Glance's middleware keeps a token it has seen for some seconds; a fresh one it has not.
    expect(await images(session)).toBe(200);
    expect(await session.token()).not.toBe(old);
  });

  test('many requests at once renew it once', async () => {
    const proxy = await startFaultProxy(cloud.identityUrl);
    try {
      const file = project.writeClouds('proxy.yaml', { identity: proxy.url });
      const session = await open(await config(file));
      await revoke(await session.token());
      expect(await Promise.all(Array.from({ length: 8 }, () => images(session)))).toEqual(Array(8).fill(200));
      expect(proxy.requests.filter((r) => r.path.endsWith('/auth/tokens'))).toHaveLength(2);
    } finally {
      await proxy.close();
    }
  });

  test('a bare token cannot be renewed, and that is said', async () => {
    const first = await open(await config());
    const token = await first.token();
    const file = project.writeClouds(
      'bare.yaml',
      {},
      {
        auth_type: 'v3token',
        auth: { auth_url: project.authUrl, token, project_id: project.projectId },
      },
    );
    const session = await open(await config(file));
    await revoke(await session.token());
    await expect(images(session)).rejects.toMatchObject({ code: 'CLOUD_LOGIN' });
  });

  test('Keystone in trouble: the login is tried again', async () => {
    const proxy = await startFaultProxy(cloud.identityUrl);
    try {
      proxy.on({ method: 'POST', times: 2 }, { status: 503 });
      const file = project.writeClouds('trouble.yaml', { identity: proxy.url });
      expect(await images(await open(await config(file)))).toBe(200);
      expect(proxy.requests.map((r) => r.status)).toEqual([503, 503, 201]);
    } finally {
      await proxy.close();
    }
  });
});

test('doctor --os-cloud says what the cloud offers, and what is in the way', async () => {
  const env = { OS_CLIENT_CONFIG_FILE: project.cloudsYaml };
  const good = await runCli(['doctor', '--os-cloud', CLOUD_NAME, '--json'], { env });
  const { cloud: found } = good.json() as { cloud: { name: string; ok: boolean; detail: string }[] };
  expect(found.map((f) => [f.name, f.ok])).toEqual([
    ['login', true],
    ['images', true],
    ['objects', true],
    ['signed URLs', true],
  ]);
  expect(found[1]?.detail).toMatch(/glance-direct.*web-download.*fast, slow/);
  const roleless = await cloud.project('roleless', { roles: ['reader'] });
  try {
    const refused = await runCli(['doctor', '--os-cloud', CLOUD_NAME], {
      env: { OS_CLIENT_CONFIG_FILE: roleless.cloudsYaml },
    });
    expect(refused.exitCode).toBe(6);
    expect(refused.stdout).toMatch(/FAILED +objects/);
  } finally {
    await roleless.cleanup();
  }
  const none = await runCli(['doctor', '--os-cloud', 'nope'], { env });
  expect(none.exitCode).toBe(2);
  expect(none.stderr).toMatch(/no cloud nope.*\[CONFIG\]/);
});

test('convert names an unknown cloud, a wrong password, a missing service before it looks at the disk', async () => {
  const dir = path.join(project.dir, 'job');
  const wrong = project.writeClouds(
    'bad.yaml',
    {},
    {
      auth: {
        auth_url: project.authUrl,
        username: project.userName,
        password: 'wrong',
        project_name: project.projectName,
        user_domain_id: 'default',
        project_domain_id: 'default',
      },
    },
  );
  const elsewhere = project.writeClouds('elsewhere.yaml', {}, { region_name: 'Nowhere' });
  for (const [file, name, status, words] of [
    [project.cloudsYaml, 'nope', 2, /no cloud nope/],
    [wrong, CLOUD_NAME, 6, /CLOUD_LOGIN/],
    [elsewhere, CLOUD_NAME, 6, /no image service/],
  ] as const) {
    const args = ['convert', '/no/such/disk', '--to', 'openstack', '--os-cloud', name, '--job', dir];
    const result = await runCli(args, { env: { OS_CLIENT_CONFIG_FILE: file } });
    expect(result.stderr).toMatch(words);
    expect(result.exitCode).toBe(status);
    await expect(fs.stat(dir)).rejects.toThrow();
  }
});

test('TLS with an authority of its own, and not without it', async () => {
  const tls = { region_name: 'RegionTLS', cacert: cloud.caFile };
  const file = project.writeClouds('tls.yaml', { identity: cloud.tlsIdentityUrl ?? '' }, tls);
  const trusted = await config(file);
  expect(trusted.authUrl.protocol).toBe('https:');
  const session = await open(trusted);
  expect(session.endpoint('image').protocol).toBe('https:');
  expect(await images(session)).toBe(200);
  await expect(open({ ...trusted, caFile: undefined })).rejects.toMatchObject({
    code: 'CLOUD',
    hint: expect.stringContaining('cacert'),
  });
});
