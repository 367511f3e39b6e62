/**
 * Compute Engine's image calls and a token service, for tests: there is no emulator of them. Every request is checked with
 * Google's own discovery document; what it does with images is this file's.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import * as http from 'node:http';
import type { AddressInfo } from 'node:net';
import * as path from 'node:path';
import { checkRequest, type Discovery } from '../../support/api-model.ts';

const MODEL = JSON.parse(
  readFileSync(path.join(import.meta.dirname, '../../../fixtures/api-models/compute-v1.json'), 'utf8'),
) as Discovery;

/** An image as the server keeps it. */
export interface ServerImage {
  name: string;
  status: string;
  family?: string;
  labels?: Record<string, string>;
  deprecated?: { state?: string; replacement?: string } | undefined;
  creationTimestamp?: string;
  [key: string]: unknown;
}

/** How it answers; may be changed while it runs. */
export interface Manner {
  /** Polls after which an operation is done; negative: its first answer says so. */
  polls: number;
  /** Answers so many requests with this status first. */
  failing: { status: number; reason: string; times: number; method?: string } | undefined;
  /** The end of an insert: an error of the operation, or none. */
  insertError: { code: string; message: string } | undefined;
  quota: { limit: number; usage: number };
  /** Answers a token is good for. */
  tokenAnswers: number;
  diskSizeGb: string;
  /** A call that is never answered: done, or not even that. So a run is killed at it. Those before `after` are let through. */
  hold: { id: string; after?: number; isDone: boolean; held?: boolean } | undefined;
  /** Disks that were made of an image, by its id. */
  disks: Record<string, string[]>;
  /** Told after each call that changes images. */
  onChange: () => void;
}

/** The server and what it saw. */
export interface ComputeServer {
  url: string;
  /** File for GOOGLE_APPLICATION_CREDENTIALS. */
  credentials: string;
  manner: Manner;
  images: Map<string, ServerImage>;
  /** `id` of the document of each request that was answered. */
  calls: string[];
  /** What requests had that the document has not. */
  problems: string[];
  tokens: number;
  /** What an instance of this family would be started from. */
  latest(family: string): string | undefined;
  close(): Promise<void>;
}

/** docs.cloud.google.com/compute/docs/labeling-resources, "Requirements for labels". */
function wrongLabels(labels: Record<string, string>): string[] {
  const wrong = Object.entries(labels).filter(
    ([key, value]) => !/^[a-z][a-z0-9_-]{0,62}$/.test(key) || !/^[a-z0-9_-]{0,63}$/.test(value),
  );
  const many = Object.keys(labels).length > 64 ? ['more than 64 labels'] : [];
  return [...wrong.map(([key, value]) => `label ${key}=${value}`), ...many];
}

/** Starts it; `dir` gets the credentials. */
export async function startComputeServer(dir: string): Promise<ComputeServer> {
  const manner: Manner = {
    polls: 2,
    failing: undefined,
    insertError: undefined,
    quota: { limit: 100, usage: 1 },
    tokenAnswers: Number.POSITIVE_INFINITY,
    diskSizeGb: '2',
    hold: undefined,
    disks: {},
    onChange: () => {},
  };
  const images = new Map<string, ServerImage>();
  const operations = new Map<string, { polls: number; end: () => object }>();
  const requests = new Map<string, string>();
  /** Operations that make images, by their names. */
  const makers = new Map<string, string>();
  const left = new Map<string, number>();
  const state = { tokens: 0, clock: 0 };
  const calls: string[] = [];
  const problems: string[] = [];

  const begin = (end: () => object): object => {
    const name = `operation-${operations.size + 1}`;
    operations.set(name, { polls: manner.polls, end });
    if (manner.polls < 0) return { name, status: 'DONE', ...end() };
    return { name, status: 'PENDING' };
  };
  const poll = (name: string): object | undefined => {
    const operation = operations.get(name);
    if (operation === undefined) return undefined;
    operation.polls -= 1;
    if (operation.polls >= 0) return { name, status: 'RUNNING', progress: 50 };
    operation.polls = -1;
    return { name, status: 'DONE', ...operation.end() };
  };
  const insert = (url: string, body: ServerImage, id: string | undefined): object | number => {
    const known = id === undefined ? undefined : requests.get(id);
    if (known !== undefined) return { name: known, status: 'RUNNING' };
    if (images.has(body.name)) return 409;
    problems.push(...wrongLabels(body.labels ?? {}));
    state.clock += 1000;
    const image: ServerImage = {
      ...body,
      status: 'PENDING',
      id: String(4_000_000 + state.clock),
      diskSizeGb: manner.diskSizeGb,
      archiveSizeBytes: '1000',
      labelFingerprint: `print-${state.clock}`,
      selfLink: `${url}/projects/shop-1/global/images/${body.name}`,
      creationTimestamp: new Date(1_700_000_000_000 + state.clock).toISOString(),
    };
    images.set(body.name, image);
    const error = manner.insertError;
    const operation = begin(() => {
      image.status = error === undefined ? 'READY' : 'FAILED';
      manner.onChange();
      return error === undefined ? {} : { error: { errors: [error] }, httpErrorStatusCode: 403 };
    });
    makers.set(image.name, (operation as { name: string }).name);
    if (id !== undefined) requests.set(id, (operation as { name: string }).name);
    return operation;
  };

  const answer = (
    url: string,
    request: { method: string; url: URL; body: unknown },
  ): { status: number; body: object } => {
    const fail = (status: number, reason: string) => ({
      status,
      body: { error: { code: status, message: `told: ${reason}`, errors: [{ reason, message: reason }] } },
    });
    const checked = checkRequest(MODEL, request, '/');
    if (checked === undefined) {
      problems.push(`${request.method} ${request.url.pathname} is no call of Compute Engine`);
      return fail(404, 'notFound');
    }
    problems.push(...checked.problems.map((p) => `${checked.id}: ${p}`));
    if (checked.problems.length > 0) return fail(400, 'invalid');
    const { failing } = manner;
    if (failing !== undefined && failing.times > 0 && (failing.method ?? request.method) === request.method) {
      failing.times -= 1;
      return fail(failing.status, failing.reason);
    }
    calls.push(checked.id);
    const { params } = checked;
    const name = params.image ?? '';
    const ok = (body: object | undefined) =>
      body === undefined ? fail(404, 'notFound') : { status: 200, body };
    switch (checked.id) {
      case 'compute.images.get': {
        const image = images.get(name);
        // Google goes on with it, whoever asks.
        if (image?.status === 'PENDING') poll(String(makers.get(name)));
        return ok(image);
      }
      case 'compute.images.list': {
        const [, label = '', value] =
          /^labels\.([\w-]+)=("?)(.*)\2$/.exec(params.filter ?? '')?.toSpliced(2, 1) ?? [];
        return ok({ items: [...images.values()].filter((i) => i.labels?.[label] === value) });
      }
      case 'compute.images.insert': {
        const made = insert(url, request.body as ServerImage, params.requestId);
        return typeof made === 'number' ? fail(made, 'alreadyExists') : ok(made);
      }
      case 'compute.images.delete':
        return ok(images.delete(name) ? begin(() => ({})) : undefined);
      case 'compute.images.deprecate': {
        const image = images.get(name);
        const body = request.body as ServerImage['deprecated'];
        if (image !== undefined) image.deprecated = Object.keys(body ?? {}).length === 0 ? undefined : body;
        return ok(image === undefined ? undefined : begin(() => ({})));
      }
      case 'compute.images.patch': {
        // "Only the following fields can be modified: family, description, deprecation status."
        const body = request.body as Record<string, unknown>;
        const wrong = Object.keys(body).filter((key) => key !== 'family' && key !== 'description');
        if (wrong.length > 0) problems.push(`${checked.id}: ${wrong.join()} cannot be patched`);
        if (String(body.description ?? '').length > 2048) return fail(400, 'invalid');
        const image = images.get(name);
        if (image !== undefined) Object.assign(image, body);
        return ok(image === undefined ? undefined : begin(() => ({})));
      }
      case 'compute.images.setLabels': {
        const image = images.get(params.resource ?? '');
        const { labels, labelFingerprint } = request.body as {
          labels: Record<string, string>;
          labelFingerprint?: string;
        };
        problems.push(...wrongLabels(labels));
        if (image !== undefined && image.labelFingerprint !== labelFingerprint)
          return fail(412, 'conditionNotMet');
        state.clock += 1;
        if (image !== undefined) Object.assign(image, { labels, labelFingerprint: `print-${state.clock}` });
        return ok(image === undefined ? undefined : begin(() => ({})));
      }
      case 'compute.disks.aggregatedList': {
        const [, id = ''] = /^sourceImageId="(\d+)"$/.exec(params.filter ?? '') ?? [];
        const disks = (manner.disks[id] ?? []).map((disk) => ({ name: disk }));
        return ok({
          items: { 'zones/a': { disks }, 'zones/b': { warning: { code: 'NO_RESULTS_ON_PAGE' } } },
        });
      }
      case 'compute.globalOperations.get':
        return ok(poll(params.operation ?? ''));
      default:
        return ok({ quotas: [{ metric: 'IMAGES', ...manner.quota }] });
    }
  };

  const server = http.createServer(async (request, response) => {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    const text = Buffer.concat(parts).toString();
    const url = new URL(request.url ?? '/', base());
    response.setHeader('content-type', 'application/json');
    if (url.pathname === '/token') {
      state.tokens += 1;
      const token = `ya29.test-${state.tokens}`;
      left.set(token, manner.tokenAnswers);
      response.end(
        JSON.stringify({
          access_token: token,
          issued_token_type: 'urn:ietf:params:oauth:token-type:access_token',
          token_type: 'Bearer',
          expires_in: 3600,
        }),
      );
      return;
    }
    const token = /^Bearer (\S+)$/.exec(request.headers.authorization ?? '')?.[1] ?? '';
    const answers = left.get(token) ?? 0;
    left.set(token, answers - 1);
    if (answers <= 0) {
      response.statusCode = 401;
      response.end(JSON.stringify({ error: { code: 401, message: 'Invalid Credentials', errors: [] } }));
      return;
    }
    const body = text === '' ? undefined : (JSON.parse(text) as unknown);
    const asked = { method: request.method ?? 'GET', url, body };
    const { hold } = manner;
    const isHeld = hold !== undefined && checkRequest(MODEL, asked, '/')?.id === hold.id;
    if (isHeld && (hold.after ?? 0) > 0) hold.after = (hold.after ?? 0) - 1;
    else if (isHeld) {
      if (hold.isDone) answer(base(), asked);
      hold.held = true;
      return;
    }
    const told = answer(base(), asked);
    if (asked.method !== 'GET') manner.onChange();
    response.statusCode = told.status;
    response.end(JSON.stringify(told.body));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const base = () => `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

  const credentials = path.join(dir, 'credentials.json');
  const subject = path.join(dir, 'subject-token');
  writeFileSync(subject, 'a.b.c');
  writeFileSync(
    credentials,
    JSON.stringify({
      type: 'external_account',
      audience: '//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/test/providers/test',
      subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
      token_url: `${base()}/token`,
      credential_source: { file: subject },
    }),
  );
  return {
    url: base(),
    credentials,
    manner,
    images,
    calls,
    problems,
    get tokens() {
      return state.tokens;
    },
    latest: (family) =>
      [...images.values()]
        .filter((i) => i.family === family && i.status === 'READY')
        .filter((i) => (i.deprecated?.state ?? 'ACTIVE') === 'ACTIVE')
        .sort((a, b) => (a.creationTimestamp ?? '').localeCompare(b.creationTimestamp ?? ''))
        .at(-1)?.name,
    close: async () => {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}
