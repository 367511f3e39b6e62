import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import * as http from 'node:http';
import type { AddressInfo } from 'node:net';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import {
  type FetchOptions,
  fetchImage,
  type PlanOptions,
  planFetch,
} from '../../../tools/fetch-image/index.ts';
import { type FaultProxy, startFaultProxy } from '../../support/fault-proxy.ts';
import { requires } from '../../support/requires.ts';

const MIB = 2 ** 20;
const content = Buffer.concat([randomBytes(2 * MIB), Buffer.alloc(3 * MIB), randomBytes(MIB + 77)]);
const sha256 = createHash('sha256').update(content).digest('hex');
const sha512 = createHash('sha512').update(content).digest('hex');
let server: http.Server;
let proxy: FaultProxy;
let dir: string;
let home: string;
let target: string;
/** What the server does besides: set by a test. */
let handler: ((req: http.IncomingMessage, res: http.ServerResponse) => boolean) | undefined;
let body = content;
let etag = '"one"';

function serve(req: http.IncomingMessage, res: http.ServerResponse): void {
  if (handler?.(req, res)) return;
  if (req.url === '/SHA256SUMS') {
    res.end(`${'0'.repeat(64)}  other.raw\n${sha256} *disk.raw\n`);
    return;
  }
  if (!req.url?.startsWith('/disk.raw')) {
    res.writeHead(404).end('gone');
    return;
  }
  const from = /^bytes=(\d+)-(\d*)$/.exec(req.headers.range ?? '');
  const isSame = req.headers['if-range'] === undefined || req.headers['if-range'] === etag;
  if (from === null || !isSame) {
    res.writeHead(200, { etag, 'content-length': body.length, 'accept-ranges': 'bytes' }).end(body);
    return;
  }
  const start = Number(from[1]);
  const end = from[2] === '' ? body.length - 1 : Number(from[2]);
  if (start >= body.length) {
    res.writeHead(416, { 'content-range': `bytes */${body.length}` }).end();
    return;
  }
  const part = body.subarray(start, end + 1);
  res
    .writeHead(206, {
      etag,
      'content-length': part.length,
      'content-range': `bytes ${start}-${end}/${body.length}`,
    })
    .end(part);
}

beforeAll(async () => {
  server = http.createServer(serve).listen(0, '127.0.0.1');
  await once(server, 'listening');
  proxy = await startFaultProxy(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
});
beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), 'port-image-fetch-'));
  home = dir;
  target = path.join(dir, 'image');
});
afterEach(() => {
  proxy.reset();
  handler = undefined;
  body = content;
  etag = '"one"';
  rmSync(dir, { recursive: true, force: true });
});
afterAll(async () => {
  await proxy.close();
  server.closeAllConnections();
  server.close();
});

async function fetchIt(plan: PlanOptions = {}, options: FetchOptions = {}, url = `${proxy.url}/disk.raw`) {
  const planned = await planFetch(
    { kind: 'http', url },
    { env: { HOME: home }, stallTimeoutMs: 1000, ...plan },
  );
  try {
    return { planned, ...(await fetchImage(planned, target, options)) };
  } finally {
    await planned.origin.close();
  }
}

const expectWhole = (wanted = content) => {
  expect(readFileSync(target).equals(wanted)).toBe(true);
  expect(existsSync(`${target}.part`)).toBe(false);
  expect(existsSync(`${target}.part.json`)).toBe(false);
};

test('an image arrives whole, private and sparse; a missing checksum is told', async () => {
  const { planned, verified } = await fetchIt();
  expectWhole();
  expect(verified).toBe(false);
  expect(planned.warnings.join()).toContain('no --checksum');
  expect(planned.facts).toEqual({ sizeBytes: content.length, validator: '"one"' });
  expect(statSync(target).mode & 0o777).toBe(0o600);
  expect(statSync(target).blocks * 512).toBeLessThan(content.length - 2 * MIB);
});

test.each([`sha256:${sha256}`, `sha512:${sha512}`, 'list'])('checksum %s', async (checksum) => {
  const text = checksum === 'list' ? `${proxy.url}/SHA256SUMS` : checksum;
  expect((await fetchIt({ checksum: text })).verified).toBe(true);
  expectWhole();
});

test('a wrong checksum is DAMAGED and nothing is left', async () => {
  await expect(fetchIt({ checksum: `sha256:${'0'.repeat(64)}` })).rejects.toMatchObject({ code: 'DAMAGED' });
  for (const name of ['', '.part', '.part.json']) expect(existsSync(target + name)).toBe(false);
});

test.each([0.01, 0.5, 0.99])('cut at %d: goes on there', async (fraction) => {
  proxy.on({ after: 1, times: 1 }, { cutResponse: { fraction } });
  await fetchIt({ checksum: `sha256:${sha256}` });
  expectWhole();
  const bytes = proxy.requests.reduce((sum, one) => sum + one.responseBytes, 0);
  expect(bytes).toBeLessThan(content.length + 512 * 1024);
  // a closed connection may lose all of a small beginning
  if (fraction >= 0.5) expect(proxy.requests[2]?.headers['if-range']).toBe('"one"');
});

test('a stalled body is given up and continued', async () => {
  proxy.on({ after: 1, times: 1 }, { stallResponse: { fraction: 0.5 } });
  await fetchIt();
  expectWhole();
});

test.each([
  [429, { 'retry-after': '1' }, 1],
  [503, {}, 3],
])('status %d heals', async (status, headers, times) => {
  proxy.on({ after: 1, times }, { status, headers });
  await fetchIt();
  expectWhole();
});

test.each([401, 403, 404])(
  'status %d is final, with a hint and without what the server said',
  async (status) => {
    proxy.on({}, { status, body: 'Signature=secret' });
    const error = await fetchIt({}, {}, `${proxy.url}/disk.raw?Signature=secret`).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: 'SOURCE_REMOTE', temporary: false, hint: expect.any(String) });
    expect(String(error)).not.toContain('secret');
    expect(proxy.requests).toHaveLength(1);
  },
);

test('content that changed between attempts starts again', async () => {
  const other = randomBytes(4 * MIB);
  proxy.on({ after: 1, times: 1 }, { cutResponse: { fraction: 0.5 } });
  await fetchIt(
    {},
    {
      onRetry: () => {
        body = other;
        etag = '"two"';
      },
    },
  );
  expectWhole(other);
});

test('416 starts again', async () => {
  proxy.on({ after: 1, times: 1 }, { cutResponse: { fraction: 0.5 } });
  proxy.on({ after: 1, times: 1 }, { status: 416 });
  await fetchIt();
  expectWhole();
});

test('a longer body than announced is refused', async () => {
  handler = (req, res) => {
    if (req.headers.range !== undefined) return false;
    res.writeHead(200, { etag });
    const more = () => {
      while (res.write(Buffer.alloc(65_536)));
    };
    res.on('drain', more);
    more();
    return true;
  };
  await expect(fetchIt()).rejects.toMatchObject({ code: 'SOURCE_REMOTE', temporary: false });
  expect(existsSync(target)).toBe(false);
});

test.each([
  ['another host', 'http://other.example/x?sig=secret', 'other.example'],
  ['itself', '/disk.raw', 'more than 5 redirects'],
  ['a file', 'file:///etc/passwd', 'redirected to file:'],
])('a redirect to %s is refused', async (_, location, told) => {
  proxy.on({}, { status: 302, headers: { location } });
  const error = await fetchIt().catch((e: unknown) => e);
  expect(String(error)).toContain(told);
  expect(String(error)).not.toContain('secret');
});

test('where nobody listens, the user is told what to check', async () => {
  const error = await fetchIt({ retries: 0 }, {}, 'http://127.0.0.1:1/disk.raw?sig=secret').catch(
    (e: unknown) => e,
  );
  expect(error).toMatchObject({ code: 'SOURCE_REMOTE', hint: expect.stringContaining('check the URL') });
  expect(String(error)).not.toContain('secret');
});

test('a redirect on the same host is followed', async () => {
  proxy.on({ path: /^\/latest$/ }, { status: 302, headers: { location: '/disk.raw' } });
  await fetchIt({}, {}, `${proxy.url}/latest`);
  expectWhole();
});

test('SIGKILL in the middle: the next run goes on, the signature is in no file', async () => {
  const url = `${proxy.url}/disk.raw?Signature=secret`;
  const child = spawn(
    process.execPath,
    [path.join(import.meta.dirname, 'fetch-child.ts'), url, target, `${4 * MIB}`],
    {
      env: { HOME: home, PATH: process.env.PATH ?? '' },
    },
  );
  child.stdout.on('data', (told: Buffer) => {
    if (Number(told.toString().trim().split('\n').at(-1)) > 3 * MIB) child.kill('SIGKILL');
  });
  await once(child, 'exit');
  expect(readFileSync(`${target}.part.json`, 'utf8')).not.toContain('secret');
  const { resumedAtBytes, receivedBytes } = await fetchIt({ checksum: `sha256:${sha256}` }, {}, url);
  expectWhole();
  expect(resumedAtBytes).toBeGreaterThan(0);
  expect(receivedBytes).toBe(content.length - resumedAtBytes);
});

test('an interrupted run keeps its part', async () => {
  const stop = new AbortController();
  const onProgress = (done: number) => {
    if (done > 2 * MIB) stop.abort();
  };
  await expect(fetchIt({}, { signal: stop.signal, onProgress })).rejects.toMatchObject({
    code: 'INTERRUPTED',
  });
  // a signature that was renewed meanwhile changes nothing
  const renewed = await fetchIt({}, {}, `${proxy.url}/disk.raw?Signature=renewed`);
  expect(renewed.resumedAtBytes).toBeGreaterThan(MIB);
  expectWhole();
});

test('name and password come from netrc', async () => {
  handler = (req, res) => {
    if (req.headers.authorization === `Basic ${Buffer.from('ann:s3').toString('base64')}`) return false;
    res.writeHead(401).end();
    return true;
  };
  await expect(fetchIt()).rejects.toMatchObject({ code: 'SOURCE_REMOTE' });
  writeFileSync(path.join(home, '.netrc'), 'machine 127.0.0.1 login ann password s3\n', { mode: 0o600 });
  await fetchIt();
  expectWhole();
});

const missing = requires('python3');
test.skipIf(missing)('a server without ranges: started again after a cut', async () => {
  writeFileSync(path.join(dir, 'disk.raw'), content);
  const python = spawn('python3', [
    '-u',
    '-m',
    'http.server',
    '0',
    '--bind',
    '127.0.0.1',
    '--directory',
    dir,
  ]);
  const [line] = (await once(python.stdout, 'data')) as [Buffer];
  const plain = await startFaultProxy(`http://127.0.0.1:${/port (\d+)/.exec(line.toString())?.[1]}`);
  try {
    plain.on({ after: 1, times: 1 }, { cutResponse: { fraction: 0.5 } });
    const { planned } = await fetchIt({}, {}, `${plain.url}/disk.raw`);
    expect(planned.acceptsRanges).toBe(false);
    expectWhole();
  } finally {
    await plain.close();
    python.kill();
  }
});
