/**
 * Stands for Azure Resource Manager and the login service, which have no emulator. Bodies are checked with the provider's
 * model (azure-model.ts); paths and versions are those of the REST reference; states change as it tells. VHDs lie in Azurite.
 */
import { execFileSync } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import * as https from 'node:https';
import type { AddressInfo } from 'node:net';
import * as os from 'node:os';
import * as path from 'node:path';
import { BlobSASPermissions, type ContainerClient, type PageBlobClient } from '@azure/storage-blob';
import { checkBody, checkResource } from './azure-model.ts';

const RULES = [
  { kind: 'disk', area: 'computeDisk', type: 'Disk', version: '2026-03-02', path: /^\/disks\/([^/]+)$/ },
  { kind: 'image', area: 'compute', type: 'Image', version: '2026-04-01', path: /^\/images\/([^/]+)$/ },
  {
    kind: 'gallery',
    area: 'computeGallery',
    type: 'Gallery',
    version: '2025-12-03',
    path: /^\/galleries\/([^/]+)$/,
  },
  {
    kind: 'definition',
    area: 'computeGallery',
    type: 'GalleryImage',
    version: '2025-12-03',
    path: /^\/galleries\/[^/]+\/images\/([^/]+)$/,
  },
  {
    kind: 'version',
    area: 'computeGallery',
    type: 'GalleryImageVersion',
    version: '2025-12-03',
    path: /^\/galleries\/[^/]+\/images\/[^/]+\/versions\/(\d+\.\d+\.\d+)$/,
  },
] as const;
type Rule = (typeof RULES)[number];

/** A resource as the server keeps it. */
export interface Resource {
  id: string;
  name: string;
  location?: string;
  tags?: Record<string, string>;
  properties: Record<string, unknown> & { provisioningState?: string; diskState?: string };
}

/** A fault for one request. */
interface Fault {
  method: string;
  path: RegExp;
  status: number;
  code: string;
}

/** A running double. */
export interface ArmServer {
  url: string;
  caFile: string;
  subscription: string;
  /** What DefaultAzureCredential needs. */
  env: Record<string, string>;
  resources: Map<string, Resource>;
  /** `METHOD path` of every request, without the subscription. */
  requests: string[];
  /** What no request of ours may have: it should stay empty. */
  problems: string[];
  /** Resources whose creation ends as failed, by the end of their path. */
  failing: Set<string>;
  /** Where VHDs of disks are; set before a disk is made. */
  container: ContainerClient | undefined;
  fault(fault: Fault): void;
  seed(pathBelowGroup: string, resource: Partial<Resource>): void;
  at(pathBelowGroup: string): Resource | undefined;
  close(): Promise<void>;
}

/** Starts one, with a certificate of its own. */
export async function startArm(): Promise<ArmServer> {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'port-image-arm-'));
  const [key, cert] = [path.join(dir, 'key.pem'), path.join(dir, 'ca.pem')];
  execFileSync(
    'openssl',
    [
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-days',
      '2',
      '-subj',
      '/CN=localhost',
    ].concat(['-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', cert]),
    { stdio: 'ignore' },
  );
  const subscription = randomUUID();
  const [tenant, client, secret, token] = [
    randomUUID(),
    randomUUID(),
    randomBytes(20).toString('hex'),
    randomBytes(20).toString('hex'),
  ];
  const operations = new Map<string, { left: number; end: () => unknown; failed?: string }>();
  const faults: Fault[] = [];
  const base = `/subscriptions/${subscription}/resourceGroups/rg/providers/Microsoft.Compute`;
  const arm: Omit<ArmServer, 'url' | 'close'> = {
    caFile: cert,
    subscription,
    env: { AZURE_TENANT_ID: tenant, AZURE_CLIENT_ID: client, AZURE_CLIENT_SECRET: secret },
    resources: new Map(),
    requests: [],
    problems: [],
    failing: new Set(),
    container: undefined,
    fault: (fault) => void faults.push(fault),
    seed: (below, resource) => {
      const id = `${base}${below}`;
      arm.resources.set(id.toLowerCase(), {
        id,
        name: below.split('/').at(-1) ?? '',
        properties: {},
        ...resource,
      });
    },
    at: (below) => arm.resources.get(`${base}${below}`.toLowerCase()),
  };

  const blobOf = (name: string): PageBlobClient => {
    if (arm.container === undefined) throw new Error('no container for disks');
    return arm.container.getPageBlobClient(`disk-${name}`);
  };

  const answer = (
    response: ServerResponse,
    status: number,
    body?: unknown,
    headers: Record<string, string> = {},
  ) => {
    response.writeHead(status, { 'content-type': 'application/json', ...headers });
    response.end(body === undefined ? undefined : JSON.stringify(body));
  };
  const refuse = (response: ServerResponse, status: number, code: string) =>
    answer(response, status, { error: { code, message: `${code} (test)` } });

  /** Long work: asked after twice before it is over. */
  const later = (
    response: ServerResponse,
    kind: 'async' | 'location',
    body: unknown,
    end: () => unknown,
    failed?: string,
  ) => {
    const id = randomUUID();
    operations.set(id, { left: 2, end, ...(failed === undefined ? {} : { failed }) });
    const name = kind === 'async' ? 'azure-asyncoperation' : 'location';
    answer(response, kind === 'async' ? 201 : 202, body, {
      [name]: `${url()}/operations/${kind}/${id}?api-version=2026-03-02`,
      'retry-after': '0',
    });
  };

  async function put(
    rule: Rule,
    id: string,
    name: string,
    body: Record<string, unknown>,
    response: ServerResponse,
  ) {
    if (arm.failing.has(rule.kind)) {
      const failed = makeResource(id, name, body, 'Failed');
      arm.resources.set(id.toLowerCase(), failed);
      return later(response, 'async', failed, () => failed, 'InternalExecutionError');
    }
    const resource = makeResource(id, name, body, 'Creating');
    arm.resources.set(id.toLowerCase(), resource);
    later(response, 'async', resource, async () => {
      resource.properties.provisioningState = 'Succeeded';
      if (rule.kind !== 'disk') return resource;
      const { uploadSizeBytes } = resource.properties.creationData as { uploadSizeBytes: number };
      await blobOf(name).create(uploadSizeBytes);
      resource.properties.diskState = 'ReadyToUpload';
      resource.properties.uniqueId = randomUUID();
      return resource;
    });
  }

  async function access(verb: string, resource: Resource, body: unknown, response: ServerResponse) {
    const blob = blobOf(resource.name);
    if (verb === 'endGetAccess') {
      return later(response, 'location', undefined, async () => {
        if (resource.properties.diskState === 'ActiveUpload') {
          const size = (resource.properties.creationData as { uploadSizeBytes: number }).uploadSizeBytes;
          // a managed disk is read with a footer that Azure made
          await blob.uploadPages(randomBytes(512), size - 512, 512);
        }
        resource.properties.diskState = 'Unattached';
        return {};
      });
    }
    arm.problems.push(...checkBody('computeDisk', 'GrantAccessData', body));
    const wanted = (body as { access: string }).access;
    const ready = wanted === 'Write' ? ['ReadyToUpload', 'ActiveUpload'] : ['Unattached', 'ActiveSAS'];
    if (!ready.includes(resource.properties.diskState ?? ''))
      return refuse(response, 409, 'OperationNotAllowed');
    resource.properties.diskState = wanted === 'Write' ? 'ActiveUpload' : 'ActiveSAS';
    const accessSAS = await blob.generateSasUrl({
      permissions: BlobSASPermissions.parse(wanted === 'Write' ? 'w' : 'r'),
      expiresOn: new Date(Date.now() + 3_600_000),
    });
    later(response, 'location', undefined, () => ({ accessSAS }));
  }

  async function serve(request: IncomingMessage, response: ServerResponse) {
    const asked = new URL(request.url ?? '/', url());
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const text = Buffer.concat(chunks).toString();
    if (asked.pathname.startsWith(`/${tenant}/`)) return login(asked, text, response);
    const below = asked.pathname.startsWith(base) ? asked.pathname.slice(base.length) : asked.pathname;
    const { method = 'GET' } = request;
    if (!below.startsWith('/operations/')) arm.requests.push(`${method} ${below}`);
    if (request.headers.authorization !== `Bearer ${token}`)
      return refuse(response, 401, 'InvalidAuthenticationToken');
    const index = faults.findIndex((fault) => fault.method === method && fault.path.test(below));
    const [fault] = index < 0 ? [] : faults.splice(index, 1);
    if (fault !== undefined) return refuse(response, fault.status, fault.code);
    if (below.startsWith('/operations/')) return operation(asked, response);
    const list = RULES.find(
      (rule) =>
        below === (rule.kind === 'image' ? '/images' : '') ||
        (rule.kind === 'version' && below.endsWith('/versions')),
    );
    if (method === 'GET' && list !== undefined) {
      const prefix = `${asked.pathname}/`.toLowerCase();
      const value = [...arm.resources].filter(
        ([id]) => id.startsWith(prefix) && !id.slice(prefix.length).includes('/'),
      );
      return answer(response, 200, { value: value.map(([, resource]) => resource) });
    }
    const verb = /^(\/disks\/[^/]+)\/(beginGetAccess|endGetAccess)$/.exec(below);
    const rule = RULES.find((one) => one.path.test(verb?.[1] ?? below));
    if (rule === undefined) return refuse(response, 404, 'InvalidResourceType');
    if (asked.searchParams.get('api-version') !== rule.version)
      arm.problems.push(`${below}: api-version ${asked.search}`);
    const id = `${base}${verb?.[1] ?? below}`;
    const resource = arm.resources.get(id.toLowerCase());
    const body = text === '' ? undefined : (JSON.parse(text) as Record<string, unknown>);
    if (method === 'PUT') {
      const wrong = checkResource(rule.area, rule.type, body);
      arm.problems.push(...wrong);
      if (wrong.length > 0) return refuse(response, 400, 'InvalidParameter');
      return put(rule, id, resource?.name ?? id.split('/').at(-1) ?? '', body ?? {}, response);
    }
    if (resource === undefined) return refuse(response, 404, 'ResourceNotFound');
    if (method === 'GET') return answer(response, 200, resource);
    if (method === 'PATCH') {
      // Only what is sent changes; a resource is updated at once here.
      resource.tags = (body?.tags as Record<string, string> | undefined) ?? resource.tags ?? {};
      const { publishingProfile } = (body?.properties ?? {}) as { publishingProfile?: object };
      if (publishingProfile !== undefined)
        resource.properties.publishingProfile = {
          ...(resource.properties.publishingProfile as object | undefined),
          ...publishingProfile,
        };
      return answer(response, 200, resource);
    }
    if (method === 'POST' && verb !== null) return access(verb[2] ?? '', resource, body, response);
    if (method !== 'DELETE') return refuse(response, 405, 'MethodNotAllowed');
    if (resource.properties.diskState?.startsWith('Active'))
      return refuse(response, 409, 'OperationNotAllowed');
    later(response, 'location', undefined, async () => {
      arm.resources.delete(id.toLowerCase());
      if (rule.kind === 'disk') await blobOf(resource.name).deleteIfExists();
    });
  }

  async function operation(asked: URL, response: ServerResponse) {
    const [, , kind, id = ''] = asked.pathname.split('/');
    const known = operations.get(id);
    if (known === undefined) return refuse(response, 404, 'NotFound');
    known.left -= 1;
    if (known.left > 0)
      return kind === 'async'
        ? answer(response, 200, { status: 'InProgress' })
        : answer(response, 202, undefined, { location: asked.href, 'retry-after': '0' });
    if (known.failed !== undefined)
      return answer(response, 200, {
        status: 'Failed',
        error: { code: known.failed, message: 'it failed (test)' },
      });
    const result = await known.end();
    return kind === 'async'
      ? answer(response, 200, { status: 'Succeeded' })
      : answer(response, result === undefined ? 204 : 200, result);
  }

  function login(asked: URL, text: string, response: ServerResponse) {
    const here = `${url()}/${tenant}`;
    if (asked.pathname.endsWith('/.well-known/openid-configuration'))
      return answer(response, 200, {
        issuer: `${here}/v2.0`,
        authorization_endpoint: `${here}/oauth2/v2.0/authorize`,
        token_endpoint: `${here}/oauth2/v2.0/token`,
        jwks_uri: `${here}/keys`,
      });
    const form = new URLSearchParams(text);
    if (form.get('client_id') !== client || form.get('client_secret') !== secret)
      return answer(response, 401, {
        error: 'invalid_client',
        error_description: 'AADSTS7000215: Invalid client secret provided.',
      });
    return answer(response, 200, { token_type: 'Bearer', expires_in: 3600, access_token: token });
  }

  const server = https.createServer(
    { key: readFileSync(key), cert: readFileSync(cert) },
    (request, response) => {
      serve(request, response).catch((error: Error) => {
        arm.problems.push(`server: ${error.message}`);
        response.destroy();
      });
    },
  );
  const url = () => `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return Object.assign(arm, {
    url: url(),
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      rmSync(dir, { recursive: true, force: true });
    },
  });
}

function makeResource(
  id: string,
  name: string,
  body: Record<string, unknown>,
  provisioningState: string,
): Resource {
  const { properties, ...rest } = body;
  return { ...rest, id, name, properties: { ...(properties as Record<string, unknown>), provisioningState } };
}
