/** Glance: two file stores, three import methods. */
import { existsSync } from 'node:fs';
import { authtoken, PYTHON, SERVICE_PY } from './keystone.ts';
import { runStep, type Service } from './processes.ts';
import { type Cloud, HOST, ini, readJson } from './settings.ts';

const STORES = ['fast', 'slow'] as const;

/** The service, its configuration written. */
export function glance(cloud: Cloud): Service {
  const folder = (name: string) => cloud.mkdir('glance', name);
  const paste = cloud.write('glance/paste.ini', PASTE);
  const login = authtoken(cloud, 'glance', 'image');
  const endpointId = readJson<string>(cloud.path('glance', 'endpoint.json'));
  const config = cloud.write(
    'glance/glance-api.conf',
    ini({
      DEFAULT: {
        bind_host: HOST,
        bind_port: cloud.port('glance'),
        workers: 0, // no fork: the recorded process is the server
        public_endpoint: '',
        enabled_backends: STORES.map((name) => `${name}:file`).join(','),
        // The brackets matter: without them every address "does not pass filtering".
        enabled_import_methods: '[glance-direct,web-download,copy-image]',
        image_size_cap: cloud.settings.imageCapBytes,
        use_keystone_limits: endpointId !== undefined,
        use_stderr: true,
      },
      database: {
        connection: `sqlite:///${cloud.path('glance', 'glance.db')}?timeout=30`,
        sqlite_synchronous: false,
      },
      glance_store: { default_backend: 'fast' },
      ...Object.fromEntries(STORES.map((name) => [name, { filesystem_store_datadir: folder(name) }])),
      os_glance_staging_store: { filesystem_store_datadir: folder('staging') },
      os_glance_tasks_store: { filesystem_store_datadir: folder('tasks') },
      // Loopback and any port: refused by default.
      import_filtering_opts: {
        allowed_hosts: `[${HOST}]`,
        allowed_ports: '[]',
        allowed_schemes: '[http,https]',
      },
      keystone_authtoken: login,
      oslo_limit: limits(login, endpointId),
      paste_deploy: { flavor: 'keystone', config_file: paste },
      oslo_middleware: { enable_proxy_headers_parsing: true },
      oslo_concurrency: { lock_path: folder('lock') },
    }),
  );
  const url = cloud.url('glance');
  return {
    name: 'glance',
    url,
    healthUrl: `${url}/healthcheck`,
    command: PYTHON,
    args: [SERVICE_PY, 'glance', config],
    configs: [config, paste],
  };
}

/** The login that reads quotas: scoped to the system, not to a project. */
function limits(login: ReturnType<typeof authtoken>, endpointId: string | undefined) {
  const { auth_url, auth_type, username, password, user_domain_id } = login;
  return {
    auth_url,
    auth_type,
    username,
    password,
    user_domain_id,
    system_scope: 'all',
    endpoint_id: endpointId,
  };
}

/** Database, once. */
export async function initGlance(cloud: Cloud): Promise<void> {
  if (existsSync(cloud.path('glance', 'ready'))) return;
  const python = (...args: string[]) => runStep(cloud, 'Glance database', PYTHON, [SERVICE_PY, ...args]);
  glance(cloud); // its configuration file, as far as it is known now
  await python('glance-manage', cloud.path('glance', 'glance-api.conf'));
  await python('wal', cloud.path('glance', 'glance.db'));
  cloud.write('glance/ready', '');
}

/** The distribution's own pipeline, which its library package leaves out, without cache and vendor filters. */
const PASTE = ini({
  'composite:glance-api-keystone': {
    'paste.composite_factory': 'glance.api:root_app_factory',
    '/': 'api',
    '/healthcheck': 'healthcheck',
  },
  'pipeline:api': {
    pipeline: 'cors http_proxy_to_wsgi versionnegotiation authtoken context rootapp',
  },
  'composite:rootapp': {
    'paste.composite_factory': 'glance.api:root_app_factory',
    '/': 'apiversions',
    '/v2': 'apiv2app',
  },
  'app:apiversions': { 'paste.app_factory': 'glance.api.versions:create_resource' },
  'app:apiv2app': { 'paste.app_factory': 'glance.api.v2.router:API.factory' },
  'app:healthcheck': { 'paste.app_factory': 'oslo_middleware:Healthcheck.app_factory' },
  'filter:versionnegotiation': {
    'paste.filter_factory': 'glance.api.middleware.version_negotiation:VersionNegotiationFilter.factory',
  },
  'filter:context': { 'paste.filter_factory': 'glance.api.middleware.context:ContextMiddleware.factory' },
  'filter:authtoken': {
    'paste.filter_factory': 'keystonemiddleware.auth_token:filter_factory',
    delay_auth_decision: true,
  },
  'filter:cors': {
    'paste.filter_factory': 'oslo_middleware.cors:filter_factory',
    oslo_config_project: 'glance',
  },
  'filter:http_proxy_to_wsgi': { 'paste.filter_factory': 'oslo_middleware:HTTPProxyToWSGI.factory' },
});
