import { createHmac } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import * as http from 'node:http';
import * as https from 'node:https';
import { type AddressInfo, connect } from 'node:net';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { run } from '../../../core/command.ts';
import {
  isAllowed,
  type Relay,
  relayedProvision,
  relayStore,
  upstreamOf,
} from '../../../stages/verify/relay-store.ts';
import { requires } from '../../support/requires.ts';

const missing = requires('openssl');
const KEY = 'secret';
const DIR = '/v1/AUTH_x/set/';
const sign = (method: string, target: string, expires: number) =>
  createHmac('sha256', KEY).update(`${method}\n${expires}\n${target}`).digest('hex');

let closers: (() => unknown)[] = [];
let seen: { method: string; url: string; host: string; headers: http.IncomingHttpHeaders }[] = [];
beforeEach(() => {
  closers = [];
  seen = [];
});
afterEach(async () => {
  for (const close of closers.reverse()) await close();
});

/** A store that checks signatures over method, path and expiry as Swift's TempURL does. */
function handler(request: http.IncomingMessage, response: http.ServerResponse): void {
  const url = new URL(request.url ?? '', 'http://x');
  const { method = '', headers } = request;
  seen.push({ method, url: request.url ?? '', host: headers.host ?? '', headers });
  if (url.pathname.endsWith('/moved')) {
    response.writeHead(302, { location: 'http://127.0.0.1:1/' }).end();
    return;
  }
  if (url.pathname.endsWith('/cut')) {
    response.writeHead(200, { 'content-length': 100 }).write('short');
    setTimeout(() => response.destroy(), 20);
    return;
  }
  const expires = Number(url.searchParams.get('temp_url_expires'));
  if (url.searchParams.get('temp_url_sig') !== sign('GET', DIR, expires)) {
    response.writeHead(401, { 'www-authenticate': 'Swift', 'x-trans-id': 'tx1' }).end('Unauthorized');
    return;
  }
  const body = Buffer.from('0123456789');
  const range = /^bytes=(\d+)-$/.exec(headers.range ?? '');
  const part = body.subarray(Number(range?.[1] ?? 0));
  response.writeHead(range === null ? 200 : 206, {
    'content-length': part.length,
    'x-trans-id': 'tx2',
    etag: 'e',
  });
  response.end(method === 'HEAD' ? undefined : part);
}

async function listen(server: http.Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closers.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

async function start(upstream: string, ca?: string): Promise<Relay> {
  const relay = await relayStore({ upstream, allowed: [DIR], ca });
  closers.push(() => relay.close());
  return relay;
}

/** Sends a path exactly as given; fetch would clean it. */
function raw(port: number, target: string, method = 'GET'): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () =>
      socket.write(`${method} ${target} HTTP/1.1\r\nHost: 10.0.2.100\r\nConnection: close\r\n\r\n`),
    );
    let text = '';
    socket.on('data', (chunk) => {
      text += chunk;
    });
    socket.on('close', () => resolve(text));
  });
}

test('a minted document works through the relay: signature, ranges, HEAD, and nothing but the object', async () => {
  const upstream = `http://127.0.0.1:${await listen(http.createServer(handler))}`;
  const relay = await start(upstream);
  const url = `${upstream}${DIR}?temp_url_sig=${sign('GET', DIR, 99)}&temp_url_expires=99&temp_url_prefix=set`;
  const minted = relayedProvision(
    { version: 1, data: { set: { url } }, prefetch: ['set'] },
    upstream,
    `http://127.0.0.1:${relay.port}`,
  );
  expect(minted.allowed).toEqual([DIR]);
  expect(minted.document.prefetch).toBeUndefined();
  const at = minted.document.data.set?.url ?? '';
  const get = (key: string, init?: RequestInit) => fetch(at.replace('?', `${key}?`), init);
  const whole = await get('segments/1');
  expect([whole.status, await whole.text(), whole.headers.get('etag')]).toEqual([200, '0123456789', 'e']);
  expect(whole.headers.get('x-trans-id')).toBeNull();
  const part = await get('segments/1', { headers: { range: 'bytes=4-', cookie: 'guest' } });
  expect([part.status, await part.text()]).toEqual([206, '456789']);
  expect((await get('segments/1', { method: 'HEAD' })).headers.get('content-length')).toBe('10');
  expect(seen[0]).toMatchObject({ host: upstream.slice('http://'.length) });
  expect(seen[0]?.url).toContain('segments/1?temp_url_sig=');
  expect(seen.some((s) => 'cookie' in s.headers)).toBe(false);
  expect(relay.sentBytes()).toBe(16);
  const refused = await fetch(at.replace('temp_url_sig=', 'temp_url_sig=0'));
  expect([refused.status, refused.headers.get('www-authenticate')]).toEqual([401, null]);
});

test('nothing else gets out', async () => {
  const upstream = `http://127.0.0.1:${await listen(http.createServer(handler))}`;
  const relay = await start(upstream);
  const outside = [
    '/',
    '/v1/AUTH_x/other/a',
    '/v1/AUTH_x/set',
    `${DIR}../other/a`,
    `${DIR}%2e%2e/other/a`,
    `${DIR}a/..%2f..%2fother`,
    `${DIR}.%2E/x`,
    `${DIR}a\\..\\b`,
    `${DIR}%zz`,
    `http://127.0.0.1:1${DIR}a`,
  ];
  for (const target of outside) expect(await raw(relay.port, target)).toContain(' 404 ');
  for (const method of ['PUT', 'POST', 'DELETE', 'OPTIONS', 'COPY'])
    expect(await raw(relay.port, `${DIR}a`, method)).toMatch(/^HTTP\/1.1 (405|400) /);
  expect(seen).toEqual([]);
  expect(await raw(relay.port, `${DIR}moved`)).toMatch(/^HTTP\/1.1 502 /);
  expect(isAllowed('/a/b', ['/a'])).toBe(false);
});

test('a store that is down or cuts the answer is an error to the guest, not to us', async () => {
  const relay = await start('http://127.0.0.1:1');
  expect((await fetch(`http://127.0.0.1:${relay.port}${DIR}a`)).status).toBe(502);
  const cutting = await start(`http://127.0.0.1:${await listen(http.createServer(handler))}`);
  await expect(fetch(`http://127.0.0.1:${cutting.port}${DIR}cut`).then((r) => r.text())).rejects.toThrow();
});

test.skipIf(missing)('the certificate of the store is verified', async () => {
  const dir = await mkdtemp(path.join(tmpdir(), 'relay-test-'));
  closers.push(() => rm(dir, { recursive: true, force: true }));
  const [key, cert] = [path.join(dir, 'key'), path.join(dir, 'cert')];
  const subject = ['-subj', '/CN=store', '-addext', 'subjectAltName=IP:127.0.0.1'];
  const args = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  await run('openssl', [...args, '-keyout', key, '-out', cert, '-days', '2', ...subject]);
  const [keyPem, ca] = [await readFile(key, 'utf8'), await readFile(cert, 'utf8')];
  const upstream = `https://127.0.0.1:${await listen(https.createServer({ key: keyPem, cert: ca }, handler))}`;
  const ask = async (relay: Relay) => (await fetch(`http://127.0.0.1:${relay.port}${DIR}a`)).status;
  expect(await ask(await start(upstream, ca))).toBe(401);
  expect(await ask(await start(upstream))).toBe(502);
  expect(seen.length).toBe(1);
});

test('documents that cannot be relayed', () => {
  const auth = { type: 'v3applicationcredential', authUrl: 'http://k', id: 'i', secret: 's' } as const;
  const one = { version: 1, data: { a: { url: 'https://s/v1/x/', auth } } } as const;
  expect(() => relayedProvision(one, 'https://s', 'http://g')).toThrow(/application credential/);
  const other = { version: 1, data: { a: { url: 'https://s/x' }, b: { url: 'https://t/x' } } } as const;
  expect(() => upstreamOf(other)).toThrow(/it names 2/);
  expect(() => relayedProvision(other, 'https://s', 'http://g')).toThrow(/another store for b/);
  expect(upstreamOf({ version: 1, data: { a: { url: 'https://s:443/x' } } })).toBe('https://s');
  for (const upstream of ['https://s/path', 'https://u:p@s', 'ftp://s', '']) {
    expect(() => relayedProvision(other, upstream, 'http://g')).toThrow(/http\(s\):\/\/host:port/);
  }
});
