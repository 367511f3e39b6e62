/** Keystone: configuration, first start, catalog. */
import { existsSync } from 'node:fs';
import * as path from 'node:path';
import { Identity } from './identity.ts';
import { runStep, type Service } from './processes.ts';
import { type Cloud, HOST, ini, userName } from './settings.ts';

const HERE = import.meta.dirname;
/** The distribution's own: a pyenv or venv one does not see the packages. */
export const PYTHON = '/usr/bin/python3';
/** The program of this folder that starts the services. */
export const SERVICE_PY = path.join(HERE, 'service.py');
/** The only region without TLS. */
export const REGION = 'RegionOne';
/** The region whose endpoints are the TLS front. */
export const TLS_REGION = 'RegionTLS';

/** Glance's four quotas, sizes in MiB. */
const IMAGE_LIMITS = {
  image_size_total: 2 ** 24,
  image_stage_total: 2 ** 24,
  image_count_total: 100_000,
  image_count_uploading: 100_000,
};

/** The service, its configuration written. */
export function keystone(cloud: Cloud): Service {
  const config = cloud.write(
    'keystone/keystone.conf',
    ini({
      DEFAULT: { log_dir: '', use_stderr: true },
      // One write at a time is all sqlite can: the others wait.
      database: {
        connection: `sqlite:///${cloud.path('keystone', 'keystone.db')}?timeout=30`,
        sqlite_synchronous: false,
      },
      token: { provider: 'fernet', expiration: cloud.settings.tokenLifeS },
      fernet_tokens: { key_repository: cloud.path('keystone', 'fernet') },
      fernet_receipts: { key_repository: cloud.path('keystone', 'fernet') },
      credential: { key_repository: cloud.path('keystone', 'credential') },
      // The fewest rounds bcrypt takes: these passwords protect nothing.
      identity: { password_hash_rounds: 4 },
      // A pickling backend: with the others EC2 credentials break at their second use.
      cache: { enabled: true, backend: 'dogpile.cache.memory_pickle' },
      oslo_middleware: { enable_proxy_headers_parsing: true },
    }),
  );
  const url = cloud.url('keystone');
  return {
    name: 'keystone',
    url: `${url}/v3`,
    healthUrl: `${url}/v3`,
    command: '/usr/bin/gunicorn',
    // One worker: sqlite again.
    args: [
      ...['--bind', `${HOST}:${cloud.port('keystone')}`, '--workers', '1', '--threads', '8'],
      ...['--timeout', '120', '--worker-tmp-dir', cloud.mkdir('run')],
      ...['--chdir', HERE, 'keystone_wsgi:application'],
    ],
    env: { OS_KEYSTONE_CONFIG_FILES: config },
    configs: [config],
  };
}

/** Database and keys, once. */
export async function initKeystone(cloud: Cloud): Promise<void> {
  if (existsSync(cloud.path('keystone', 'ready'))) return;
  const database = cloud.path('keystone', 'keystone.db');
  const manage = (...args: string[]) =>
    runStep(
      cloud,
      `keystone-manage ${args[0]}`,
      PYTHON,
      ['/usr/bin/keystone-manage', '--config-file', cloud.path('keystone', 'keystone.conf'), ...args],
      { OS_BOOTSTRAP_PASSWORD: cloud.secrets.admin },
    );
  const owner = ['--keystone-user', userName(), '--keystone-group', userName()];
  cloud.mkdir('keystone', 'fernet');
  cloud.mkdir('keystone', 'credential');
  await Promise.all([manage('db_sync'), manage('fernet_setup', ...owner)]);
  await Promise.all([
    // Without write-ahead log the second request fails with "database is locked".
    runStep(cloud, 'keystone database', PYTHON, [SERVICE_PY, 'wal', database]),
    manage('credential_setup', ...owner),
  ]);
  await runStep(cloud, 'keystone database', PYTHON, [SERVICE_PY, 'cascade', database]);
  const url = `${cloud.url('keystone')}/v3`;
  await manage(
    'bootstrap',
    ...['public', 'internal', 'admin'].flatMap((kind) => [`--bootstrap-${kind}-url`, url]),
    ...['--bootstrap-region-id', REGION],
  );
  cloud.write('keystone/ready', '');
}

/** Service users, the member of the example project, and the catalog; all as they should be afterwards. */
export async function fillKeystone(cloud: Cloud): Promise<void> {
  const { secrets } = cloud;
  const admin = await Identity.login(`${cloud.url('keystone')}/v3`, 'admin', secrets.admin, 'admin');
  // Alone: Keystone reads its policy at the first request that needs it, and refuses (403) what comes meanwhile.
  await admin.call('GET', '/projects');
  const [service, project, adminProject, adminUser] = await Promise.all([
    admin.ensure('project', 'service'),
    admin.ensure('project', 'port-image-test'),
    admin.ensure('project', 'admin'),
    admin.ensure('user', 'admin'),
  ]);
  const role = (name: string) => admin.ensure('role', name);
  const [adminRole, member, reseller] = await Promise.all([
    role('admin'),
    role('member'),
    role('ResellerAdmin'),
  ]);
  const user = (name: string, password: string) => admin.ensure('user', name, { password });
  const [swiftUser, glanceUser] = [
    await user('swift', secrets.service),
    await user('glance', secrets.service),
  ];
  for (const one of [swiftUser, glanceUser]) await admin.grant(service, one, adminRole);
  // Reads the quotas of every project.
  await admin.call('PUT', `/system/users/${glanceUser}/roles/${await role('reader')}`);
  await admin.grant(project, await user('port-image-test', secrets.member), member);
  // Sets account quotas of other projects.
  await admin.grant(adminProject, adminUser, reseller);

  const catalog = [
    ['keystone', 'identity', '/v3'],
    ['glance', 'image', ''],
    ['swift-proxy', 'object-store', '/v1/AUTH_$(project_id)s'],
  ] as const;
  const regions = cloud.settings.tls ? [REGION, TLS_REGION] : [REGION];
  for (const region of regions) {
    if (region === TLS_REGION) await ensureRegion(admin);
    for (const [name, type, suffix] of catalog) {
      const id = await admin.ensure('service', name === 'swift-proxy' ? 'swift' : name, { type });
      const base = cloud.url(region === REGION ? name : (`tls-${name}` as const));
      const endpointId = await admin.endpoint(id, region, base + suffix);
      if (name === 'glance' && region === REGION) await ensureImageLimits(cloud, admin, id, endpointId);
    }
  }
}

/** Quotas nobody meets, so that a test can set lower ones for its project. Glance must know its endpoint for it. */
async function ensureImageLimits(cloud: Cloud, admin: Identity, serviceId: string, endpointId: string) {
  cloud.write('glance/endpoint.json', JSON.stringify(endpointId));
  const { registered_limits: known } = await admin.call<{ registered_limits: { resource_name: string }[] }>(
    'GET',
    `/registered_limits?service_id=${serviceId}`,
  );
  const missing = Object.entries(IMAGE_LIMITS).filter(
    ([name]) => !known.some((one) => one.resource_name === name),
  );
  if (missing.length === 0) return;
  await admin.call('POST', '/registered_limits', {
    registered_limits: missing.map(([name, limit]) => ({
      service_id: serviceId,
      region_id: REGION,
      resource_name: name,
      default_limit: limit,
    })),
  });
}

async function ensureRegion(admin: Identity): Promise<void> {
  const { regions } = await admin.call<{ regions: { id: string }[] }>('GET', '/regions');
  if (!regions.some((one) => one.id === TLS_REGION))
    await admin.call('POST', '/regions', { region: { id: TLS_REGION } });
}

/** The [keystone_authtoken] of a service. */
export function authtoken(cloud: Cloud, user: string, serviceType: string): Record<string, string | number> {
  return {
    www_authenticate_uri: `${cloud.url('keystone')}/v3`,
    auth_url: `${cloud.url('keystone')}/v3`,
    auth_type: 'password',
    project_domain_id: 'default',
    user_domain_id: 'default',
    project_name: 'service',
    username: user,
    password: cloud.secrets.service,
    // Else tokens of application credentials with access rules are refused.
    service_type: serviceType,
    // The default of 300 s keeps accepting revoked tokens.
    token_cache_time: 5,
  };
}
