/** TLS before the services: a CA of its own, and one process that terminates TLS for all three. */
import { existsSync, readFileSync } from 'node:fs';
import * as http from 'node:http';
import * as https from 'node:https';
import * as path from 'node:path';
import { pipeline } from 'node:stream';
import { runStep, type Service } from './processes.ts';
import { type Cloud, HOST } from './settings.ts';

/** Which listener stands before which. */
const FRONTS = {
  'tls-keystone': 'keystone',
  'tls-glance': 'glance',
  'tls-swift-proxy': 'swift-proxy',
} as const;

/** The front, its certificate made; $STATE/ca.pem is the CA. */
export async function tlsFront(cloud: Cloud): Promise<Service> {
  await makeCertificates(cloud);
  return frontService(cloud);
}

/** The front as a service, for those who only ask how it is. */
export function frontService(cloud: Cloud): Service {
  return {
    name: 'tls-front',
    url: cloud.url('tls-keystone'),
    healthUrl: `${cloud.url('tls-keystone')}/v3`,
    caFile: cloud.path('ca.pem'),
    command: process.execPath,
    args: [
      '--disable-warning=ExperimentalWarning',
      path.join(import.meta.dirname, '..', 'cloud.ts'),
      'tls-front',
    ].concat(['--state', cloud.dir]),
    configs: [cloud.path('tls', 'server.pem'), cloud.path('settings.json')],
  };
}

async function makeCertificates(cloud: Cloud): Promise<void> {
  if (existsSync(cloud.path('ca.pem')) && existsSync(cloud.path('tls', 'ready'))) return;
  cloud.mkdir('tls');
  const at = (name: string) => cloud.path('tls', name);
  const openssl = (...args: string[]) => runStep(cloud, `openssl ${args[0]}`, 'openssl', args);
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  await openssl(
    ...['req', '-x509', ...key, '-days', '3650', '-subj', '/CN=port-image test CA'],
    ...['-addext', 'keyUsage=critical,keyCertSign', '-keyout', at('ca.key'), '-out', cloud.path('ca.pem')],
  );
  cloud.write('tls/names', `subjectAltName=IP:${HOST},DNS:localhost\nextendedKeyUsage=serverAuth\n`);
  await openssl(
    'req',
    ...key,
    '-subj',
    '/CN=localhost',
    '-keyout',
    at('server.key'),
    '-out',
    at('server.csr'),
  );
  await openssl(
    ...['x509', '-req', '-in', at('server.csr'), '-CA', cloud.path('ca.pem'), '-CAkey', at('ca.key')],
    ...['-CAcreateserial', '-days', '3650', '-extfile', at('names'), '-out', at('server.pem')],
  );
  cloud.write('tls/ready', '');
}

/** Serves until it is stopped. */
export function serveTls(cloud: Cloud): void {
  const identity = {
    key: readFileSync(cloud.path('tls', 'server.key')),
    cert: readFileSync(cloud.path('tls', 'server.pem')),
  };
  const agent = new http.Agent({ keepAlive: true });
  for (const front of Object.keys(FRONTS) as (keyof typeof FRONTS)[]) {
    const port = cloud.port(FRONTS[front]);
    const server = https.createServer(identity, (request, response) => {
      const { method, url, headers } = request;
      const upstream = http.request({
        ...{ agent, host: HOST, port, method, path: url },
        // Keystone and Glance make their links from these.
        headers: { ...headers, 'x-forwarded-proto': 'https' },
      });
      upstream.on('response', (incoming) => {
        response.writeHead(incoming.statusCode ?? 502, incoming.headers);
        pipeline(incoming, response, () => undefined);
      });
      upstream.on('error', () => response.destroy());
      response.on('close', () => upstream.destroy());
      // Not `pipeline`: a service that answers early must be heard.
      request.pipe(upstream);
    });
    server.requestTimeout = 0;
    server.listen(cloud.port(front), HOST);
  }
}
