/** The real services of scripts/cloud for tests: one cloud per run, a project and user of its own per test file. */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { promisify } from 'node:util';
import { Identity } from '../../scripts/cloud.d/identity.ts';
import { emptyAccount, removeImages } from './cloud-cleanup.ts';

const run = promisify(execFile);
const ROOT = path.join(import.meta.dirname, '..', '..');
const REGION = 'RegionOne';
/** The CLI programs of the distribution, never those of a pyenv. */
const PATH = '/usr/bin:/bin:/usr/sbin:/sbin';

/** Settings that differ from a plain `scripts/cloud up`. Give a `state` and `portsBase` with any other. */
export interface CloudOptions {
  /** Name of a folder beside the usual cloud's. */
  state?: string;
  /** As `scripts/cloud --name`: a folder and ports of its own; the cloud is for one test file alone. */
  name?: string;
  /** First of thirteen ports. */
  portsBase?: number;
  tokenLifeS?: number;
  maxObjectMib?: number;
  maxSegments?: number;
  imageCapBytes?: number;
  tls?: boolean;
}

/** Base URLs, without a path, that stand for the services': those of fault proxies. */
export interface Endpoints {
  identity?: string;
  image?: string;
  objectStore?: string;
}

/** A running cloud. */
export interface Cloud {
  stateDir: string;
  /** How it was found: `running`, then somebody else may be using it; `stopped`, then its state is somebody's. */
  before: 'running' | 'stopped' | 'none';
  /** Base URLs of the services, without a path. */
  identityUrl: string;
  imageUrl: string;
  objectStoreUrl: string;
  /** With `tls`: Keystone behind TLS; its catalog has all services behind TLS in the region RegionTLS. */
  tlsIdentityUrl: string | undefined;
  /** Private CA of that (there with `tls`). */
  caFile: string;
  /** The administrator, for what members may not do. */
  admin(): Promise<Identity>;
  /** A fresh project with one user; default role: member. */
  project(name: string, options?: { roles?: string[]; endpoints?: Endpoints }): Promise<TestProject>;
  /** Stops it; `forget` removes its state too. Only for clouds of one test file. */
  down(options?: { forget?: boolean }): Promise<void>;
}

/** Name of the entry in every clouds.yaml written here. */
export const CLOUD_NAME = 'test';

/** A project of one test file. */
export interface TestProject {
  projectId: string;
  projectName: string;
  userId: string;
  userName: string;
  password: string;
  /** Keystone's address with /v3, through the proxy if one was given. */
  authUrl: string;
  region: string;
  /** The account's address in Swift, past any proxy. */
  accountUrl: string;
  /** Temporary folder, 0700. */
  dir: string;
  /** Password login, entry `test`, 0600. */
  cloudsYaml: string;
  /** PATH, HOME and OS_* for the distribution's CLI tools, past any proxy; no OS_CLOUD. */
  env: Record<string, string>;
  /** A token of the user. */
  login(): Promise<Identity>;
  /** Writes another clouds.yaml (entry `test`); `fields` replaces or adds keys of the entry. */
  writeClouds(name: string, endpoints: Endpoints, fields?: Record<string, unknown>): string;
  /** Makes an application credential; `fields` as in Keystone's API (access_rules, expires_at, roles). */
  applicationCredential(fields?: Record<string, unknown>): Promise<{ id: string; secret: string }>;
  /** Sets Glance's quotas of this project: image_size_total and image_stage_total in MiB, image_count_total. */
  limitImages(limits: Record<string, number>): Promise<void>;
  /** Sets Swift's quota of this project's account. */
  limitObjects(quotaBytes: number): Promise<void>;
  /** Makes a key pair for the S3 protocol. */
  ec2(): Promise<{ access: string; secret: string }>;
  /** Removes objects, images, user, project and folder. */
  cleanup(): Promise<void>;
}

/** Starts the cloud unless it runs. Throws with the reason when this machine cannot have one. */
export async function startCloud(options: CloudOptions = {}): Promise<Cloud> {
  const { state, name, ...settings } = options;
  if (state === undefined && name === undefined && Object.keys(settings).length > 0)
    throw new Error('a cloud with its own settings needs its own state folder');
  const cache =
    process.env.PORT_IMAGE_CACHE ??
    path.join(process.env.XDG_CACHE_HOME ?? path.join(os.homedir(), '.cache'), 'port-image');
  let stateArgs = state === undefined ? [] : ['--state', path.join(cache, `cloud-${state}`)];
  if (name !== undefined) stateArgs = ['--name', name];
  const flags: Record<string, string | number | undefined> = {
    '--ports-base': settings.portsBase,
    '--token-life': settings.tokenLifeS,
    '--max-object-mib': settings.maxObjectMib,
    '--max-segments': settings.maxSegments,
    '--image-cap': settings.imageCapBytes,
  };
  const given = Object.entries(flags).flatMap(([flag, value]) =>
    value === undefined ? [] : [flag, `${value}`],
  );
  const before = await script('status', ...stateArgs).then(
    () => 'running' as const,
    (error: Error) => (error.message.includes('no cloud in') ? ('none' as const) : ('stopped' as const)),
  );
  await script('up', ...stateArgs, ...given, ...(settings.tls || stateArgs.length === 0 ? ['--tls'] : []));
  const known = JSON.parse(await statusJson(stateArgs)) as {
    state: string;
    services: { name: string; url: string }[];
  };
  const url = (name: string) => new URL(known.services.find((one) => one.name === name)?.url ?? '').origin;
  const identityUrl = url('keystone');
  const clouds = {
    stateDir: known.state,
    before,
    identityUrl,
    imageUrl: url('glance'),
    objectStoreUrl: url('swift-proxy'),
    tlsIdentityUrl: known.services.find((one) => one.name === 'tls-front')?.url,
    caFile: path.join(known.state, 'ca.pem'),
    admin: () => Identity.login(`${identityUrl}/v3`, 'admin', adminPassword(known.state), 'admin'),
    down: async ({ forget = false } = {}) => {
      await script('down', ...stateArgs, ...(forget ? ['--forget'] : []));
    },
  };
  return { ...clouds, project: (name, wanted) => makeProject(clouds, name, wanted ?? {}) };
}

/** Status 1 says that a service did not answer just now, which on a busy machine is no reason to give up after `up`. */
async function statusJson(stateArgs: string[]): Promise<string> {
  return script('status', '--json', ...stateArgs).catch((error: { cause?: { stdout?: string } }) => {
    if (error.cause?.stdout?.startsWith('{')) return error.cause.stdout;
    throw error;
  });
}

async function script(...args: string[]): Promise<string> {
  try {
    return (await run(path.join(ROOT, 'scripts', 'cloud'), args, { maxBuffer: 2 ** 24 })).stdout;
  } catch (error) {
    const { stderr, message } = error as { stderr?: string; message: string };
    throw new Error(`scripts/cloud ${args[0]}: ${stderr?.trim() || message}`, { cause: error });
  }
}

/** The file is JSON, which is YAML. */
function adminPassword(stateDir: string): string {
  const known = JSON.parse(readFileSync(path.join(stateDir, 'clouds.yaml'), 'utf8')) as {
    clouds: Record<string, { auth: { password: string } }>;
  };
  const entry = known.clouds['port-image-admin'];
  if (entry === undefined) throw new Error(`no port-image-admin in ${stateDir}/clouds.yaml`);
  return entry.auth.password;
}

async function makeProject(
  cloud: Omit<Cloud, 'project'>,
  name: string,
  options: { roles?: string[]; endpoints?: Endpoints },
): Promise<TestProject> {
  const admin = await cloud.admin();
  const unique = `${name}-${randomBytes(4).toString('hex')}`;
  const password = randomBytes(12).toString('hex');
  const projectId = await admin.ensure('project', unique);
  const userId = await admin.ensure('user', unique, { password, default_project_id: projectId });
  for (const role of options.roles ?? ['member'])
    await admin.grant(projectId, userId, await admin.ensure('role', role));
  const dir = mkdtempSync(path.join(os.tmpdir(), `port-image-${name}-`));
  const account = `/v1/AUTH_${projectId}`;
  const login = () => Identity.login(`${cloud.identityUrl}/v3`, unique, password, unique);
  const writeClouds = (file: string, at: Endpoints, fields: Record<string, unknown> = {}) => {
    const entry = {
      auth: {
        auth_url: `${at.identity ?? cloud.identityUrl}/v3`,
        username: unique,
        password,
        project_name: unique,
        user_domain_id: 'default',
        project_domain_id: 'default',
      },
      region_name: REGION,
      identity_api_version: 3,
      ...(at.image === undefined ? {} : { image_endpoint_override: at.image }),
      ...(at.objectStore === undefined ? {} : { object_store_endpoint_override: at.objectStore + account }),
      ...fields,
    };
    const written = path.join(dir, file);
    writeFileSync(written, `${JSON.stringify({ clouds: { [CLOUD_NAME]: entry } }, null, 2)}\n`, {
      mode: 0o600,
    });
    return written;
  };
  const endpoints = options.endpoints ?? {};
  const limitIds = new Map<string, string>();
  return {
    projectId,
    projectName: unique,
    userId,
    userName: unique,
    password,
    authUrl: `${endpoints.identity ?? cloud.identityUrl}/v3`,
    region: REGION,
    accountUrl: cloud.objectStoreUrl + account,
    dir,
    cloudsYaml: writeClouds('clouds.yaml', endpoints),
    env: {
      PATH,
      HOME: dir,
      LANG: 'C.UTF-8',
      OS_AUTH_URL: `${cloud.identityUrl}/v3`,
      OS_USERNAME: unique,
      OS_PASSWORD: password,
      OS_PROJECT_NAME: unique,
      OS_USER_DOMAIN_ID: 'default',
      OS_PROJECT_DOMAIN_ID: 'default',
      OS_REGION_NAME: REGION,
      OS_IDENTITY_API_VERSION: '3',
    },
    login,
    writeClouds,
    async applicationCredential(fields = {}) {
      const made = await (await login()).call<{ application_credential: { id: string; secret: string } }>(
        'POST',
        `/users/${userId}/application_credentials`,
        { application_credential: { name: randomBytes(4).toString('hex'), ...fields } },
      );
      return { id: made.application_credential.id, secret: made.application_credential.secret };
    },
    async limitImages(limits) {
      const serviceId = await admin.ensure('service', 'glance');
      const fresh: [string, number][] = [];
      for (const [name, limit] of Object.entries(limits)) {
        const id = limitIds.get(name);
        if (id === undefined) fresh.push([name, limit]);
        else await admin.call('PATCH', `/limits/${id}`, { limit: { resource_limit: limit } });
      }
      if (fresh.length === 0) return;
      const made = await admin.call<{ limits: { id: string; resource_name: string }[] }>('POST', '/limits', {
        limits: fresh.map(([name, limit]) => ({
          service_id: serviceId,
          project_id: projectId,
          region_id: REGION,
          resource_name: name,
          resource_limit: limit,
        })),
      });
      for (const { id, resource_name } of made.limits) limitIds.set(resource_name, id);
    },
    async limitObjects(quotaBytes) {
      const headers = { 'x-account-meta-quota-bytes': `${quotaBytes}` };
      const { status } = await admin.request('POST', cloud.objectStoreUrl + account, { headers });
      if (status >= 300) throw new Error(`cannot set the quota: ${status}`);
    },
    async ec2() {
      const made = await (await login()).call<{ credential: { access: string; secret: string } }>(
        'POST',
        `/users/${userId}/credentials/OS-EC2`,
        { tenant_id: projectId },
      );
      return { access: made.credential.access, secret: made.credential.secret };
    },
    async cleanup() {
      // A role that a test left out must not leave its data behind.
      await admin.grant(projectId, userId, await admin.ensure('role', 'member'));
      await emptyAccount(cloud.objectStoreUrl + account, await login());
      await removeImages(cloud.imageUrl, projectId, admin);
      await admin.call('DELETE', `/users/${userId}`);
      await admin.call('DELETE', `/projects/${projectId}`);
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
