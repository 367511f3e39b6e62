/** What clients need to know: clouds.yaml and environment. */
import { REGION, TLS_REGION } from './keystone.ts';
import { type Cloud, readJson } from './settings.ts';

/** Writes $STATE/clouds.yaml, 0600. JSON is YAML, and needs no library here. */
export function writeCloudsYaml(cloud: Cloud): string {
  const entry = (name: string, password: string, project: string, tls = false) => ({
    auth: {
      auth_url: `${cloud.url(tls ? 'tls-keystone' : 'keystone')}/v3`,
      username: name,
      password,
      project_name: project,
      user_domain_id: 'default',
      project_domain_id: 'default',
    },
    region_name: tls ? TLS_REGION : REGION,
    identity_api_version: 3,
    ...(tls ? { cacert: cloud.path('ca.pem'), verify: true } : {}),
  });
  const { member, admin } = cloud.secrets;
  const { name, tls } = cloud.settings;
  const clouds = {
    'port-image-test': entry('port-image-test', member, 'port-image-test'),
    'port-image-admin': entry('admin', admin, 'admin'),
    ...(tls ? { 'port-image-tls': entry('port-image-test', member, 'port-image-test', true) } : {}),
    // Under names that no other cloud has, so that one file can hold several.
    ...(name === ''
      ? {}
      : {
          [name]: entry('port-image-test', member, 'port-image-test'),
          [`${name}-admin`]: entry('admin', admin, 'admin'),
          ...(tls ? { [`${name}-tls`]: entry('port-image-test', member, 'port-image-test', true) } : {}),
        }),
  };
  return cloud.write('clouds.yaml', `${JSON.stringify({ clouds }, null, 2)}\n`);
}

/** One clouds.yaml for several named clouds: of each the entries `NAME`, `NAME-admin` and, with TLS, `NAME-tls`. */
export function mergedClouds(clouds: readonly Cloud[]): string {
  const entries = clouds.flatMap((cloud) => {
    const { name } = cloud.settings;
    const written = readJson<{ clouds: Record<string, unknown> }>(cloud.path('clouds.yaml'));
    return Object.entries(written?.clouds ?? {}).filter(([entry]) =>
      [name, `${name}-admin`, `${name}-tls`].includes(entry),
    );
  });
  return `${JSON.stringify({ clouds: Object.fromEntries(entries) }, null, 2)}\n`;
}

/** Variables for a shell: the member's. The OS_* ones too, because `swift` reads no clouds.yaml. */
export function clientEnv(cloud: Cloud): Record<string, string> {
  return {
    OS_CLIENT_CONFIG_FILE: cloud.path('clouds.yaml'),
    OS_AUTH_URL: `${cloud.url('keystone')}/v3`,
    OS_USERNAME: 'port-image-test',
    OS_PASSWORD: cloud.secrets.member,
    OS_PROJECT_NAME: 'port-image-test',
    OS_USER_DOMAIN_ID: 'default',
    OS_PROJECT_DOMAIN_ID: 'default',
    OS_REGION_NAME: REGION,
    OS_IDENTITY_API_VERSION: '3',
  };
}
