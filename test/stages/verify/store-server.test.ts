import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openStore } from '../../../drivers/stores/index.ts';
import { parseRange, type StoreServer, serveStore } from '../../../stages/verify/store-server.ts';

let dir = '';
let server: StoreServer;
const url = (key: string) => `http://127.0.0.1:${server.port}/${server.prefix}/${key}`;

beforeAll(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'store-server-test-'));
  const store = openStore(`file:${dir}/store`);
  await store.put('app-1/segments/000001.tar.zst', async function* () {
    yield Buffer.from('0123456789');
  });
  await store.put('other/manifest.json', async function* () {
    yield Buffer.from('{}');
  });
  await writeFile(path.join(dir, 'secret'), 'secret');
  await symlink('../../secret', path.join(dir, 'store', 'app-1', 'link'));
  server = await serveStore(store, ['app-1']);
});
afterAll(async () => {
  await server.close();
  await rm(dir, { recursive: true, force: true });
});

/** Sends a path exactly as given; fetch would clean it. */
function raw(target: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(server.port, '127.0.0.1', () =>
      socket.write(`GET ${target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`),
    );
    let text = '';
    socket.on('data', (chunk) => {
      text += chunk;
    });
    socket.on('close', () => resolve(text));
  });
}

test('serves objects of its data sets whole, in ranges and by HEAD', async () => {
  const whole = await fetch(url('app-1/segments/000001.tar.zst'));
  expect([whole.status, await whole.text()]).toEqual([200, '0123456789']);
  const part = await fetch(url('app-1/segments/000001.tar.zst'), { headers: { range: 'bytes=4-' } });
  expect([part.status, await part.text()]).toEqual([206, '456789']);
  expect(part.headers.get('content-range')).toBe('bytes 4-9/10');
  const beyond = await fetch(url('app-1/segments/000001.tar.zst'), { headers: { range: 'bytes=10-' } });
  expect(beyond.status).toBe(416);
  const head = await fetch(url('app-1/segments/000001.tar.zst'), { method: 'HEAD' });
  expect(head.headers.get('content-length')).toBe('10');
  expect(server.sentBytes()).toBe(16);
});

test('serves nothing else', async () => {
  expect((await fetch(url('other/manifest.json'))).status).toBe(404);
  expect((await fetch(url('app-1/nothing'))).status).toBe(404);
  expect((await fetch(url('app-1/link'))).status).not.toBe(200);
  expect((await fetch(`http://127.0.0.1:${server.port}/app-1/segments/000001.tar.zst`)).status).toBe(404);
  expect((await fetch(url('app-1/x'), { method: 'PUT', body: 'x' })).status).toBe(405);
  for (const key of ['app-1/../../secret', 'app-1/%2e%2e/%2e%2e/secret', 'app-1//etc/passwd', '']) {
    expect(await raw(`/${server.prefix}/${key}`)).toContain(' 404 ');
  }
});

test('ranges', () => {
  expect(parseRange('bytes=-3', 10)).toEqual({ start: 7, end: 9 });
  expect(parseRange('bytes=0-99', 10)).toEqual({ start: 0, end: 9 });
  expect(parseRange('bytes=0-1,4-5', 10)).toBeUndefined();
  expect(parseRange(undefined, 10)).toBeUndefined();
});
