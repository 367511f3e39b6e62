/**
 * The image calls of Oracle's Core Services API, for tests: there is no emulator of them. Every signature is verified and
 * every body checked with the model of Oracle's own SDK; what it does with images is this file's.
 */
import { createHash, createPublicKey, generateKeyPairSync, verify } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import * as http from 'node:http';
import type { AddressInfo } from 'node:net';
import * as path from 'node:path';

interface Model {
  extends: string | null;
  properties: Record<string, { required: boolean; type: string }>;
  enums: Record<string, string[]>;
}
const { models } = JSON.parse(
  readFileSync(path.join(import.meta.dirname, '../../../fixtures/api-models/oci-core-20160918.json'), 'utf8'),
) as { models: Record<string, Model> };

function checkModel(name: string, value: Record<string, unknown>, more: string[] = []): string[] {
  const model = models[name];
  if (model === undefined) return [`${name} is not in the fixture`];
  const parent = model.extends === null ? undefined : models[model.extends];
  const properties = { ...parent?.properties, ...model.properties };
  const enums = { ...parent?.enums, ...model.enums };
  const problems = [...more];
  for (const [key, { required }] of Object.entries(properties)) {
    if (required && value[key] === undefined) problems.push(`${name}.${key} is missing`);
  }
  for (const [key, v] of Object.entries(value)) {
    const type = properties[key]?.type;
    if (type === undefined) problems.push(`${name}.${key} is not in the model`);
    else if (type === 'string' && typeof v !== 'string') problems.push(`${name}.${key} is no string`);
    const allowed = enums[type?.split('.')[1] ?? ''];
    if (allowed !== undefined && !allowed.includes(String(v)))
      problems.push(`${name}.${key} is none of its values`);
  }
  return problems;
}

/** An image as the server keeps it. */
export interface ServerImage {
  id: string;
  displayName: string;
  lifecycleState: string;
  freeformTags: Record<string, string>;
  [key: string]: unknown;
}

/** Starts it; `dir` gets the configuration and the key. */
export async function startOciServer(dir: string) {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', {
    modulusLength: 2048,
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  });
  const manner = {
    /** Answers of `GET` before an import ends. */
    polls: 2,
    /** State an import ends in. */
    end: 'AVAILABLE',
    failing: undefined as { status: number; code: string; times: number; method?: string } | undefined,
  };
  const images = new Map<string, ServerImage>();
  const left = new Map<string, number>();
  const tokens = new Map<string, ServerImage>();
  const calls: string[] = [];
  const problems: string[] = [];

  const isSigned = (request: http.IncomingMessage, body: string): boolean => {
    const header = request.headers.authorization ?? '';
    const [, names = '', keyId, , signature = ''] =
      /^Signature version="1",headers="([^"]*)",keyId="([^"]*)",algorithm="(rsa-sha256)",signature="([^"]*)"$/.exec(
        header,
      ) ?? [];
    const list = names.split(' ');
    const needed = ['date', '(request-target)', 'host'];
    if (body !== '') needed.push('content-length', 'content-type', 'x-content-sha256');
    const text = list
      .map((name) =>
        name === '(request-target)'
          ? `${name}: ${request.method?.toLowerCase()} ${request.url}`
          : `${name}: ${request.headers[name]}`,
      )
      .join('\n');
    const hash = createHash('sha256').update(body).digest('base64');
    return (
      keyId === 'ocid1.tenancy.oc1..t/ocid1.user.oc1..u/aa:bb' &&
      needed.every((n) => list.includes(n)) &&
      Math.abs(Date.parse(request.headers.date ?? '') - Date.now()) < 300_000 &&
      (body === '' || request.headers['x-content-sha256'] === hash) &&
      verify('sha256', Buffer.from(text), createPublicKey(publicKey), Buffer.from(signature, 'base64'))
    );
  };

  const create = (body: Record<string, unknown>, token: string): ServerImage => {
    const known = tokens.get(token);
    if (known !== undefined) return known;
    const id = `ocid1.image.oc1.test.${images.size + 1}`;
    const image: ServerImage = {
      id,
      displayName: String(body.displayName),
      freeformTags: body.freeformTags as Record<string, string>,
      launchMode: body.launchMode,
      lifecycleState: 'IMPORTING',
      timeCreated: new Date(1_700_000_000_000 + images.size * 1000).toISOString(),
      source: body.imageSourceDetails,
    };
    images.set(id, image);
    left.set(id, manner.polls);
    tokens.set(token, image);
    return image;
  };

  const answer = (request: http.IncomingMessage, text: string): { status: number; body: unknown } => {
    const fail = (status: number, code: string) => ({ status, body: { code, message: `told: ${code}` } });
    if (!isSigned(request, text)) return fail(401, 'NotAuthenticated');
    const url = new URL(request.url ?? '/', 'http://x');
    const { failing } = manner;
    if (failing !== undefined && failing.times > 0 && (failing.method ?? request.method) === request.method) {
      failing.times -= 1;
      return fail(failing.status, failing.code);
    }
    const [, id] = /^\/20160918\/images(?:\/([^/]+))?$/.exec(url.pathname) ?? [];
    calls.push(`${request.method} ${id === undefined ? '/images' : '/images/ID'}`);
    if (id === undefined && request.method === 'GET') {
      const known = ['compartmentId', 'limit', 'page', 'displayName'];
      for (const name of url.searchParams.keys()) if (!known.includes(name)) problems.push(`query ${name}`);
      if (!url.searchParams.has('compartmentId')) problems.push('no compartmentId');
      return { status: 200, body: [...images.values()] };
    }
    if (id === undefined) {
      const body = JSON.parse(text) as Record<string, unknown>;
      const source = body.imageSourceDetails as Record<string, unknown>;
      const wrong = checkModel(
        'CreateImageDetails',
        body,
        checkModel('ImageSourceViaObjectStorageTupleDetails', source),
      );
      problems.push(...wrong);
      if (wrong.length > 0) return fail(400, 'InvalidParameter');
      return { status: 200, body: create(body, String(request.headers['opc-retry-token'])) };
    }
    const image = images.get(id);
    if (image === undefined) return fail(404, 'NotAuthorizedOrNotFound');
    if (request.method === 'DELETE') {
      images.delete(id);
      return { status: 204, body: undefined };
    }
    const polls = (left.get(id) ?? 0) - 1;
    left.set(id, polls);
    if (polls < 0 && image.lifecycleState === 'IMPORTING') image.lifecycleState = manner.end;
    return { status: 200, body: image };
  };

  const server = http.createServer(async (request, response) => {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    const { status, body } = answer(request, Buffer.concat(parts).toString());
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(body === undefined ? '' : JSON.stringify(body));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const config = path.join(dir, 'oci-config');
  writeFileSync(path.join(dir, 'oci.pem'), privateKey);
  writeFileSync(
    config,
    `[DEFAULT]\nuser=ocid1.user.oc1..u\nfingerprint=aa:bb\ntenancy=ocid1.tenancy.oc1..t\nregion=eu-frankfurt-1\nkey_file=${dir}/oci.pem\n[WRONG]\nfingerprint=cc:dd\n`,
  );
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    config,
    manner,
    images,
    calls,
    problems,
    close: async () => {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}
