import { createHash } from 'node:crypto';
import * as http from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { type FaultProxy, startFaultProxy } from './fault-proxy.ts';

/** What the service received. */
let received: { method: string; url: string; host: string; digest: string; bytes: number }[] = [];
let cutBodies: number[] = [];
let service: http.Server;
let proxy: FaultProxy;
const ANSWER = Buffer.alloc(200_000, 'answer');
const BODY = Buffer.alloc(1_000_000, 'request');
const digest = (data: Buffer) => createHash('md5').update(data).digest('hex');

beforeAll(async () => {
  service = http.createServer((request, response) => {
    const hash = createHash('md5');
    let bytes = 0;
    request.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      hash.update(chunk);
    });
    request.on('error', () => cutBodies.push(bytes));
    request.on('end', () => {
      const { method = '', url = '', headers } = request;
      received.push({ method, url, host: headers.host ?? '', digest: hash.digest('hex'), bytes });
      response.writeHead(200, { 'content-length': ANSWER.length, etag: 'right' }).end(ANSWER);
    });
  });
  await new Promise<void>((resolve) => service.listen(0, '127.0.0.1', resolve));
  proxy = await startFaultProxy(`http://127.0.0.1:${(service.address() as AddressInfo).port}`);
});
afterEach(() => {
  proxy.reset();
  received = [];
  cutBodies = [];
});
afterAll(async () => {
  await proxy.close();
  service.closeAllConnections();
  service.close();
});

interface Got {
  status: number;
  headers: http.IncomingHttpHeaders;
  body: Buffer;
  complete: boolean;
}

/** One request of its own connection; rejects when no answer begins. */
function send(method: string, path: string, body?: Buffer, signal?: AbortSignal): Promise<Got> {
  return new Promise((resolve, reject) => {
    const headers = body === undefined ? {} : { 'content-length': body.length };
    const options = { method, headers, agent: false, ...(signal === undefined ? {} : { signal }) };
    const request = http.request(proxy.url + path, options, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', () => undefined);
      response.on('close', () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body: Buffer.concat(chunks),
          complete: response.complete,
        }),
      );
    });
    request.on('error', reject);
    request.end(body);
  });
}

test('passes everything through and counts it', async () => {
  const got = await send('PUT', '/v1/a%20b?x=1', BODY);
  expect(got).toMatchObject({ status: 200, complete: true });
  expect(got.body.equals(ANSWER)).toBe(true);
  const target = `127.0.0.1:${(service.address() as AddressInfo).port}`;
  expect(received).toEqual([
    { method: 'PUT', url: '/v1/a%20b?x=1', host: target, digest: digest(BODY), bytes: BODY.length },
  ]);
  expect(proxy.requests).toMatchObject([
    { method: 'PUT', path: '/v1/a%20b?x=1', status: 200, requestBytes: 1_000_000, responseBytes: 200_000 },
  ]);
  expect(proxy.sentBytes({ method: 'PUT' })).toBe(1_000_000);
});

test('a status hits only the matching requests it is meant for', async () => {
  proxy.on(
    { method: 'PUT', path: /seg/, after: 1, times: 2 },
    { status: 429, headers: { 'retry-after': '7' } },
  );
  const statuses: number[] = [];
  for (let i = 0; i < 5; i++) statuses.push((await send('PUT', '/c/seg', BODY)).status);
  expect(statuses).toEqual([200, 429, 429, 200, 200]);
  expect((await send('GET', '/c/seg')).status).toBe(200);
  expect(received).toHaveLength(4);
  expect(proxy.requests[1]?.requestBytes).toBe(1_000_000);
});

test('the next rule takes over when one is used up', async () => {
  proxy.on({ times: 1 }, { status: 500 });
  proxy.on({ times: 1 }, { status: 503, early: true, headers: { 'Retry-After': '1' }, body: 'busy' });
  expect((await send('GET', '/')).status).toBe(500);
  const second = await send('GET', '/');
  expect([second.status, second.headers['retry-after'], second.body.toString()]).toEqual([503, '1', 'busy']);
  expect((await send('GET', '/')).status).toBe(200);
});

test.each([
  [{ fraction: 0.5 }, 500_000],
  [{ bytes: 10_000 }, 10_000],
  [{ fraction: 0.99 }, 990_000],
] as const)('cuts the request at %o', async (cutRequest, bytes) => {
  proxy.on({ times: 1 }, { cutRequest });
  await expect(send('PUT', '/o', BODY)).rejects.toThrow();
  expect(proxy.requests[0]).toMatchObject({ requestBytes: bytes, status: undefined });
  await expect.poll(() => cutBodies).toEqual([bytes]);
  expect((await send('PUT', '/o', BODY)).status).toBe(200);
  expect(received).toHaveLength(1);
});

test('cuts the answer: it is shorter than its Content-Length', async () => {
  proxy.on({}, { cutResponse: { fraction: 0.25 } });
  const got = await send('GET', '/o');
  expect(got.complete).toBe(false);
  expect(got.headers['content-length']).toBe('200000');
  expect(got.body.length).toBe(50_000);
});

test('an answer cut at zero is lost though the work is done', async () => {
  proxy.on({}, { cutResponse: { bytes: 0 } });
  await expect(send('PUT', '/o', BODY)).rejects.toThrow();
  expect(received).toHaveLength(1);
});

test.each([
  ['at once', { stall: true }, 0],
  ['in the request', { stallRequest: { bytes: 1000 } }, 1000],
] as const)('stalls %s until the client gives up', async (_name, action, bytes) => {
  proxy.on({}, action);
  const abort = new AbortController();
  const answer = send('PUT', '/o', BODY, abort.signal);
  answer.catch(() => undefined);
  await expect.poll(() => proxy.requests[0]?.requestBytes).toBe(bytes);
  abort.abort();
  await expect(answer).rejects.toThrow();
  expect(received).toEqual([]);
});

test('stalls in the answer', async () => {
  proxy.on({}, { stallResponse: { bytes: 3000 } });
  const abort = new AbortController();
  const answer = send('GET', '/o', undefined, abort.signal);
  answer.catch(() => undefined);
  await expect.poll(() => proxy.requests[0]?.responseBytes).toBe(3000);
  abort.abort();
  await expect(answer).rejects.toThrow();
});

test('replaces headers of the answer', async () => {
  proxy.on({}, { headers: { ETag: 'wrong' } });
  expect((await send('GET', '/o')).headers.etag).toBe('wrong');
});

test('flips one byte each way', async () => {
  proxy.on({}, { flipRequestByte: 70_000, flipResponseByte: 199_999 });
  const got = await send('PUT', '/o', BODY);
  const sent = Buffer.from(BODY);
  sent[70_000] = (sent[70_000] ?? 0) ^ 0xff;
  expect(received[0]?.digest).toBe(digest(sent));
  expect(got.body.subarray(0, -1).equals(ANSWER.subarray(0, -1))).toBe(true);
  expect(got.body.at(-1)).not.toBe(ANSWER.at(-1));
});

test('a delay and a speed limit change nothing but the time', async () => {
  proxy.on({}, { delayMs: 20, bytesPerS: 50_000_000 });
  const got = await send('PUT', '/o', BODY);
  expect(got.body.equals(ANSWER)).toBe(true);
  expect(received[0]?.digest).toBe(digest(BODY));
});

test('a service that is gone is a broken connection, not an answer', async () => {
  const dead = await startFaultProxy('http://127.0.0.1:1');
  const answer = new Promise((resolve, reject) =>
    http.get(dead.url, { agent: false }, resolve).on('error', reject),
  );
  await expect(answer).rejects.toThrow();
  await dead.close();
});
