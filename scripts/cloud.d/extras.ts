/** Services of other clouds beside the OpenStack ones: Azurite, moto, fake-gcs-server, vcsim. */
import type { Service } from './processes.ts';
import { installProgram, type ProgramName } from './programs.ts';
import { type Cloud, HOST } from './settings.ts';

/** What `--with` takes. */
export const EXTRAS = ['azurite', 'moto', 'fake-gcs', 'vcsim'] as const satisfies readonly ProgramName[];
/** A further service. */
export type Extra = (typeof EXTRAS)[number];

/** Name of the storage account in Azurite. */
const AZURE_ACCOUNT = 'portimage';

/** The service, its program at `program`. */
function serviceOf(cloud: Cloud, name: Extra, program: string): Service {
  const port = `${cloud.port(name)}`;
  const url = cloud.url(name);
  const base = { name, url, configs: [] };
  if (name === 'azurite') {
    return {
      ...base,
      command: process.execPath,
      args: [program, '--blobHost', HOST, '--blobPort', port, '--location', cloud.path('azurite')]
        // the SDKs are newer than it
        .concat(['--silent', '--disableTelemetry', '--skipApiVersionCheck']),
      env: { AZURITE_ACCOUNTS: `${AZURE_ACCOUNT}:${cloud.secrets.azureKey}` },
      // without a login nothing but a refusal can be had
      healthUrl: `${url}/${AZURE_ACCOUNT}?comp=list`,
      healthStatus: 403,
    };
  }
  if (name === 'moto')
    return {
      ...base,
      command: program,
      args: ['-H', HOST, '-p', port],
      healthUrl: `${url}/moto-api/data.json`,
    };
  if (name === 'fake-gcs') {
    const args = ['-backend', 'filesystem', '-filesystem-root', cloud.path('fake-gcs')];
    args.push('-scheme', 'http', '-host', HOST, '-port', port, '-public-host', `${HOST}:${port}`);
    return {
      ...base,
      command: program,
      args: args.concat(['-external-url', url]),
      healthUrl: `${url}/_internal/healthcheck`,
    };
  }
  return {
    ...base,
    command: program,
    args: ['-l', `${HOST}:${port}`, '-tls=false'],
    healthUrl: `${url}/about`,
  };
}

/** Services as they are known without their programs: for those who ask how they are. */
export function extraConditions(cloud: Cloud): Service[] {
  return cloud.settings.with.map((name) => serviceOf(cloud, name, ''));
}

/** Installs what is missing. What cannot be had is told, each by name with the reason; the others come. */
export async function prepareExtras(cloud: Cloud): Promise<{ services: Service[]; failures: string[] }> {
  const services: Service[] = [];
  const failures: string[] = [];
  // One after the other: npm, pip and go each use all there is.
  for (const name of cloud.settings.with) {
    try {
      services.push(serviceOf(cloud, name, await installProgram(name)));
      cloud.mkdir(name);
    } catch (error) {
      failures.push((error as Error).message);
    }
  }
  return { services, failures };
}

/** Variables with which clients of the other clouds find them. The keys open these emulators and nothing else. */
export function extraEnv(cloud: Cloud): Record<string, string> {
  const env: Record<string, string> = {};
  for (const name of cloud.settings.with) Object.assign(env, envOf(cloud, name));
  return env;
}

function envOf(cloud: Cloud, name: Extra): Record<string, string> {
  const url = cloud.url(name);
  switch (name) {
    case 'azurite':
      return {
        AZURE_STORAGE_CONNECTION_STRING: `DefaultEndpointsProtocol=http;AccountName=${AZURE_ACCOUNT};AccountKey=${cloud.secrets.azureKey};BlobEndpoint=${url}/${AZURE_ACCOUNT};`,
      };
    case 'moto':
      return {
        AWS_ENDPOINT_URL: url,
        AWS_ACCESS_KEY_ID: 'test',
        AWS_SECRET_ACCESS_KEY: 'test',
        AWS_REGION: 'us-east-1',
      };
    case 'fake-gcs':
      return { STORAGE_EMULATOR_HOST: url };
    case 'vcsim':
      return { GOVC_URL: `${url.replace('://', '://user:pass@')}/sdk` };
  }
}
