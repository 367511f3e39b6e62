/**
 * The image calls of Alibaba's ECS API, for tests: there is no emulator of them. Every signature is computed again from
 * what arrived and every parameter checked with Alibaba's own API metadata; what it does with images is this file's.
 */
import { createHash, createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import * as http from 'node:http';
import type { AddressInfo } from 'node:net';
import * as path from 'node:path';

interface Parameter {
  name: string;
  type: string;
  required: boolean;
  sub?: Parameter[];
}
const MODEL = JSON.parse(
  readFileSync(
    path.join(import.meta.dirname, '../../../fixtures/api-models/alibaba-ecs-20140526.json'),
    'utf8',
  ),
) as {
  version: string;
  operations: Record<string, Parameter[]>;
  values: Record<string, Record<string, string[]>>;
};

function checkParameters(action: string, given: URLSearchParams): string[] {
  const known = MODEL.operations[action];
  if (known === undefined) return [`${action} is not in the model`];
  const problems = known.filter((p) => p.required && !given.has(p.name)).map((p) => `${p.name} is missing`);
  for (const [name, value] of given) {
    const [first = '', second, third] = name.split('.');
    const top = known.find((p) => p.name === first);
    const isList = top?.type === 'RepeatList';
    const leaf = top?.sub === undefined ? top : top.sub.find((p) => p.name === (isList ? third : second));
    if (leaf === undefined || (isList && !/^[1-9]\d*$/.test(second ?? '')))
      problems.push(`${name} is not in the model`);
    else if (/Integer|Long/.test(leaf.type) && !/^\d+$/.test(value)) problems.push(`${name} is no number`);
    const allowed = MODEL.values[action]?.[isList ? `${first}.${third}` : first];
    if (allowed !== undefined && !allowed.includes(value)) problems.push(`${name} is none of its values`);
  }
  return problems;
}

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');

function isSigned(request: http.IncomingMessage, query: string, keys: ReadonlyMap<string, string>): boolean {
  const { headers } = request;
  const [, id = '', names = '', signature] =
    /^ACS3-HMAC-SHA256 Credential=([^,]+),SignedHeaders=([^,]+),Signature=(\w+)$/.exec(
      headers.authorization ?? '',
    ) ?? [];
  const list = names.split(';');
  const acs = Object.keys(headers).filter((name) => name.startsWith('x-acs-'));
  const lines = list.map((name) => `${name}:${headers[name]}\n`).join('');
  const canonical = `POST\n/\n${query}\n${lines}\n${names}\n${headers['x-acs-content-sha256']}`;
  const wanted = createHmac('sha256', keys.get(id) ?? '')
    .update(`ACS3-HMAC-SHA256\n${sha256(canonical)}`)
    .digest('hex');
  return (
    keys.has(id) &&
    ['host', ...acs].every((name) => list.includes(name)) &&
    headers['x-acs-content-sha256'] === sha256('') &&
    Math.abs(Date.parse(String(headers['x-acs-date'])) - Date.now()) < 900_000 &&
    query === query.split('&').sort().join('&') &&
    wanted === signature
  );
}

/** An image as the server keeps it. */
export interface ServerImage {
  ImageId: string;
  ImageName: string;
  Status: string;
  CreationTime: string;
  Tags: { Tag: { TagKey: string; TagValue: string }[] };
  /** Parameters of its import. */
  given: Record<string, string>;
}

/** Starts it; the key `test` has the secret `secret`. */
export async function startEcsServer() {
  const keys = new Map([['test', 'secret']]);
  const manner = {
    /** Answers of DescribeTasks before an import ends. */
    polls: 2,
    end: 'Finished',
    failing: undefined as { status: number; code: string; times: number; action?: string } | undefined,
  };
  const images = new Map<string, ServerImage>();
  const tasks = new Map<string, { image: ServerImage; polls: number }>();
  const tokens = new Map<string, object>();
  const calls: string[] = [];
  const problems: string[] = [];

  const importImage = (given: Record<string, string>): object | undefined => {
    const known = tokens.get(given.ClientToken ?? '');
    if (known !== undefined) return known;
    if ([...images.values()].some((i) => i.ImageName === given.ImageName)) return undefined;
    const number = images.size + 1;
    const Tag = [1, 2, 3].map((n) => ({
      TagKey: given[`Tag.${n}.Key`] ?? '',
      TagValue: given[`Tag.${n}.Value`] ?? '',
    }));
    const image: ServerImage = {
      ImageId: `m-test${number}`,
      ImageName: given.ImageName ?? '',
      Status: 'Waiting',
      CreationTime: new Date(1_700_000_000_000 + number * 1000).toISOString(),
      Tags: { Tag },
      given,
    };
    images.set(image.ImageId, image);
    tasks.set(`t-test${number}`, { image, polls: manner.polls });
    const answer = { ImageId: image.ImageId, TaskId: `t-test${number}`, RegionId: given.RegionId };
    tokens.set(given.ClientToken ?? '', answer);
    return answer;
  };

  const describeTask = (id: string): object => {
    const task = tasks.get(id);
    if (task === undefined) return { TaskSet: { Task: [] } };
    task.polls -= 1;
    if (task.polls >= 0)
      return { TaskSet: { Task: [{ TaskId: id, TaskStatus: 'Processing', TaskProcess: '50%' }] } };
    task.image.Status = manner.end === 'Finished' ? 'Available' : 'CreateFailed';
    return { TaskSet: { Task: [{ TaskId: id, TaskStatus: manner.end, TaskProcess: '100%' }] } };
  };

  const answer = (request: http.IncomingMessage): { status: number; body: object } => {
    const fail = (status: number, Code: string) => ({ status, body: { Code, Message: `told: ${Code}` } });
    const query = (request.url ?? '').replace(/^\/\?/, '');
    if (!isSigned(request, query, keys)) return fail(403, 'SignatureDoesNotMatch');
    if (request.headers['x-acs-version'] !== MODEL.version) problems.push('another version of the API');
    const action = String(request.headers['x-acs-action']);
    const parameters = new URLSearchParams(query);
    problems.push(...checkParameters(action, parameters).map((p) => `${action}: ${p}`));
    const given = Object.fromEntries(parameters);
    const { failing } = manner;
    if (failing !== undefined && failing.times > 0 && (failing.action ?? action) === action) {
      failing.times -= 1;
      return fail(failing.status, failing.code);
    }
    calls.push(action);
    switch (action) {
      case 'ImportImage': {
        const made = importImage(given);
        return made === undefined ? fail(400, 'InvalidImageName.Duplicated') : { status: 200, body: made };
      }
      case 'DescribeTasks':
        return { status: 200, body: describeTask(given.TaskIds ?? '') };
      case 'DescribeImages': {
        const found = [...images.values()].filter(
          (i) =>
            (given.ImageId === undefined || i.ImageId === given.ImageId) &&
            (given.ImageName === undefined || i.ImageName === given.ImageName) &&
            (given['Tag.1.Key'] === undefined ||
              i.Tags.Tag.some((t) => t.TagKey === given['Tag.1.Key'] && t.TagValue === given['Tag.1.Value'])),
        );
        return { status: 200, body: { TotalCount: found.length, Images: { Image: found } } };
      }
      default:
        images.delete(given.ImageId ?? '');
        return { status: 200, body: {} };
    }
  };

  const server = http.createServer((request, response) => {
    request.resume();
    const { status, body } = answer(request);
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(JSON.stringify(body));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    keys,
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
