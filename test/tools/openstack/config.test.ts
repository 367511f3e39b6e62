import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { cloudName, loadCloud } from '../../../tools/openstack/config.ts';
import { keystoneRoot } from '../../../tools/openstack/session.ts';

let home = '';
beforeEach(async () => {
  home = await fs.mkdtemp(path.join(os.tmpdir(), 'clouds-'));
});
afterEach(() => fs.rm(home, { recursive: true, force: true }));

async function clouds(text: string, secure?: string): Promise<NodeJS.ProcessEnv> {
  const dir = path.join(home, '.config/openstack');
  await fs.mkdir(dir, { recursive: true });
  await fs.writeFile(path.join(dir, 'clouds.yaml'), text);
  if (secure !== undefined) await fs.writeFile(path.join(dir, 'secure.yaml'), secure);
  return { HOME: home };
}

const PASSWORD = `clouds:
  one:
    auth: {auth_url: https://keys.example:5000/v3, username: anna, password: geheim-1, project_name: shop, user_domain_name: Default, project_domain_id: d1}
    region_name: R1
    interface: internal
    cacert: /etc/ca.pem
    image_endpoint_override: http://127.0.0.1:1/
`;

describe('clouds.yaml', () => {
  test('password, region, interface, CA and endpoints', async () => {
    const env = await clouds(PASSWORD);
    expect(await loadCloud('one', env)).toMatchObject({
      name: 'one',
      auth: {
        type: 'password',
        user: { name: 'anna', domain: { name: 'Default' } },
        password: 'geheim-1',
        scope: { project: { name: 'shop', domain: { id: 'd1' } } },
      },
      region: 'R1',
      interface: 'internal',
      caFile: '/etc/ca.pem',
      endpoints: { image: 'http://127.0.0.1:1/' },
    });
  });

  test('secure.yaml adds the password, a profile adds what the section lacks', async () => {
    const env = await clouds(
      'public-clouds: {vendor: {auth: {auth_url: "https://k/v3"}, region_name: RX}}\nclouds: {a: {profile: vendor, auth: {username: u, project_id: p}}}\n',
      'clouds: {a: {auth: {password: pw}}}\n',
    );
    expect(await loadCloud('a', env)).toMatchObject({
      auth: { password: 'pw', scope: { project: { id: 'p' } } },
      region: 'RX',
    });
  });

  test('application credentials by id and by name; token', async () => {
    const env = await clouds(`clouds:
  id: {auth_type: v3applicationcredential, auth: {auth_url: 'https://k', application_credential_id: a1, application_credential_secret: s}}
  name: {auth: {auth_url: 'https://k', application_credential_name: n, username: u, user_domain_id: default, application_credential_secret: s}}
  token: {auth_type: v3token, auth: {auth_url: 'https://k', token: t, project_id: p}}
`);
    expect((await loadCloud('id', env)).auth).toEqual({
      type: 'application_credential',
      id: 'a1',
      secret: 's',
    });
    expect((await loadCloud('name', env)).auth).toEqual({
      type: 'application_credential',
      name: 'n',
      user: { name: 'u', domain: { id: 'default' } },
      secret: 's',
    });
    expect((await loadCloud('token', env)).auth).toEqual({
      type: 'token',
      token: 't',
      scope: { project: { id: 'p' } },
    });
  });

  test.each([
    ['clouds: {one: {auth: {auth_url: https://k, username: u, project_name: p}}}', 'password is missing'],
    [
      'clouds: {one: {auth: {auth_url: https://k, username: u, password: topsecret}}}',
      'project_name is missing',
    ],
    ['clouds: {one: {auth: {username: u, password: topsecret}}}', 'auth_url'],
    [
      'clouds: {one: {auth: {auth_url: "ftp://k", username: u, password: topsecret, project_id: p}}}',
      'no http(s) URL',
    ],
    [
      'clouds: {one: {auth: {auth_url: "https://u:topsecret@k/v3", username: u, password: p, project_id: p}}}',
      'auth_url may not hold',
    ],
    [
      'clouds: {one: {verify: false, auth: {auth_url: "https://k", username: u, password: topsecret, project_id: p}}}',
      'always verified',
    ],
    ['clouds: {one: {auth_type: v3kerberos, auth: {auth_url: "https://k"}}}', 'not supported'],
    ['clouds: {two: {auth: {auth_url: "https://k"}}}', 'no cloud one'],
    [
      'clouds: {one: {interface: sideways, auth: {auth_url: "https://k", token: topsecret}}}',
      'does not exist',
    ],
    [
      'clouds: {one: {image_endpoint_override: "https://u:topsecret@g/", auth: {auth_url: "https://k", token: topsecret}}}',
      'has a password in it',
    ],
    ['clouds: [topsecret', 'is not YAML'],
    ['clouds: {one: topsecret}', 'wrong form'],
  ])('refused by name and without a secret: %s', async (text, words) => {
    const env = await clouds(text);
    const error = await loadCloud('one', env).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: 'CONFIG', message: expect.stringContaining(words) });
    expect(String((error as Error).message)).not.toContain('topsecret');
  });

  test('an explicit file wins over the search path, and must exist', async () => {
    const env = await clouds(PASSWORD);
    const file = path.join(home, 'other.yaml');
    await fs.writeFile(file, 'clouds: {b: {auth: {auth_url: "https://k", token: t}}}');
    expect((await loadCloud('b', { ...env, OS_CLIENT_CONFIG_FILE: file })).auth.type).toBe('token');
    await expect(loadCloud('b', { ...env, OS_CLIENT_CONFIG_FILE: `${file}.no` })).rejects.toMatchObject({
      code: 'CONFIG',
    });
  });
});

describe('OS_* variables', () => {
  const env = {
    OS_AUTH_URL: 'https://k/identity',
    OS_USERNAME: 'u',
    OS_PASSWORD: 'p',
    OS_PROJECT_NAME: 'x',
    OS_USER_DOMAIN_NAME: 'Default',
    OS_REGION_NAME: 'R2',
    OS_INTERFACE: 'publicURL',
    OS_CACERT: '/ca',
  };

  test('stand for the cloud `envvars`', async () => {
    expect(cloudName(undefined, env)).toBe('envvars');
    expect(await loadCloud('envvars', env)).toMatchObject({
      auth: {
        type: 'password',
        user: { name: 'u' },
        scope: { project: { name: 'x', domain: { id: 'default' } } },
      },
      region: 'R2',
      interface: 'public',
      caFile: '/ca',
    });
  });

  test('the flag beats OS_CLOUD, OS_CLOUD beats plain variables, nothing means no cloud', () => {
    expect(cloudName('flag', { ...env, OS_CLOUD: 'c' })).toBe('flag');
    expect(cloudName(undefined, { ...env, OS_CLOUD: 'c' })).toBe('c');
    expect(cloudName(undefined, {})).toBeUndefined();
  });
});

test.each([
  ['https://k:5000', 'https://k:5000/v3/'],
  ['https://k:5000/v3', 'https://k:5000/v3/'],
  ['https://k/identity/v2.0/', 'https://k/identity/v3/'],
])('Keystone root of %s', (from, to) => {
  expect(keystoneRoot(new URL(from)).href).toBe(to);
});
