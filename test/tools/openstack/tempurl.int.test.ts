import { execFile } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { request } from 'undici';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Provision } from '../../../core/contract.ts';
import type { SwiftStore } from '../../../drivers/stores/swift.ts';
import { chunked, MIB, random, type SwiftWorld, swiftWorld } from '../../drivers/stores/swift-world.ts';

const HOUR_MS = 3_600_000;
let world: SwiftWorld;
let store: SwiftStore;
const big = random(2 * MIB + 7);
beforeAll(async () => {
  world = await swiftWorld('tempurl');
  store = world.store('urls', { partBytes: MIB });
  for (const id of ['one', 'two']) {
    await store.put(`${id}/manifest.json`, chunked(Buffer.from(`{"id":"${id}"}`)).content);
    await store.put(`${id}/segments/000001.tar.zst`, chunked(big).content, { maxBytes: 6 * 2 ** 30 });
  }
});
afterAll(() => world?.close());

async function status(
  url: string,
  method: 'GET' | 'HEAD' | 'PUT' | 'DELETE' | 'POST' = 'GET',
  body?: string,
) {
  const answer = await request(url, { method, ...(body === undefined ? {} : { body }) });
  const content = Buffer.from(await answer.body.arrayBuffer());
  return { code: answer.statusCode, content };
}
/** As the client in the instance does it: the key goes behind the path, before the query. */
const at = (url: string, key: string) => url.replace('?', `${key}?`);
const mint = async (id: string, lifeMs = HOUR_MS, ipRange?: string) => {
  const made = await store.provision([id], { lifeMs, ...(ipRange === undefined ? {} : { ipRange }) });
  return made.document.data[id]?.url ?? '';
};

test('a minted document reads its data set and nothing else', async () => {
  const made = await store.provision(['one', 'two'], { lifeMs: HOUR_MS });
  expect(Provision.parse(made.document)).toEqual(made.document);
  expect(made.upstream).toBe(world.proxy.url);
  const account = new URL(world.project.accountUrl).pathname;
  expect(made.paths).toEqual([`${account}/urls.one/`, `${account}/urls.two/`]);
  const { url = '', expires = '' } = made.document.data.one ?? {};
  expect(Date.parse(expires) - Date.now()).toBeGreaterThan(HOUR_MS - 60_000);
  expect(Date.parse(expires) - Date.now()).toBeLessThan(HOUR_MS + 60_000);
  expect((await status(at(url, 'manifest.json'))).content.toString()).toBe('{"id":"one"}');
  // through the parts of a large object as well
  expect((await status(at(url, 'segments/000001.tar.zst'))).content.equals(big)).toBe(true);
  expect((await status(at(url, 'manifest.json'), 'HEAD')).code).toBe(200);
  expect((await status(at(url, 'missing'))).code).toBe(404);
  expect((await status(at(url, 'new'), 'PUT', 'x')).code).toBe(401);
  expect((await status(at(url, 'manifest.json'), 'POST')).code).toBe(401);
  expect((await status(at(url, 'manifest.json'), 'DELETE')).code).toBe(401);
  expect((await status(url)).code).toBe(401);
  expect((await status(url.replace('/?', '?'))).code).toBe(401);
  expect((await status(at(url.replace('urls.one', 'urls.two'), 'manifest.json'))).code).toBe(401);
  expect((await status(at(url, 'manifest.json').split('?')[0] ?? '')).code).toBe(401);
  expect((await store.head('one/manifest.json'))?.bytes).toBe(12);
});

test('curl reads it with the query as it is written', async () => {
  const url = at(await mint('one'), 'manifest.json');
  // Asynchronous: the proxy lives in this process.
  const running = promisify(execFile)('curl', ['-sS', '--fail', '-K', '-']);
  running.child.stdin?.end(`url = "${url}"\n`);
  const { stdout } = await running;
  expect(stdout).toBe('{"id":"one"}');
});

test('it ends with its time, and a second document leaves the first one good', async () => {
  const short = await mint('one', 3000);
  const long = await mint('one');
  expect((await status(at(short, 'manifest.json'))).code).toBe(200);
  await sleep(4500);
  expect((await status(at(short, 'manifest.json'))).code).toBe(401);
  expect((await status(at(long, 'manifest.json'))).code).toBe(200);
});

test('an address range lets only that network in', async () => {
  expect((await status(at(await mint('one', HOUR_MS, '127.0.0.0/8'), 'manifest.json'))).code).toBe(200);
  const other = await mint('one', HOUR_MS, '192.0.2.0/24');
  expect((await status(at(other, 'manifest.json'))).code).toBe(401);
  // nor without the range it was signed with
  expect((await status(at(other, 'manifest.json').replace(/&temp_url_ip_range=[^&]*/, ''))).code).toBe(401);
});

test('revoke makes old URLs worthless, those of other data sets stay', async () => {
  const old = await mint('one');
  const other = await mint('two');
  const api = await world.api();
  // a second key somebody set by hand opens the container too
  await api.postContainer('urls.one', { 'x-container-meta-temp-url-key-2': 'secret-2' });
  expect((await status(at(old, 'manifest.json'))).code).toBe(200);
  await store.revoke('one');
  expect((await status(at(old, 'manifest.json'))).code).toBe(401);
  expect((await api.headContainer('urls.one'))?.['x-container-meta-temp-url-key-2']).toBeUndefined();
  expect((await status(at(other, 'manifest.json'))).code).toBe(200);
  expect((await status(at(await mint('one'), 'manifest.json'))).code).toBe(200);
  await expect(store.revoke('none')).rejects.toMatchObject({ code: 'STORE' });
  await expect(store.provision(['none'], { lifeMs: HOUR_MS })).rejects.toMatchObject({ code: 'STORE' });
});

test('a single object can be signed too, and no error shows a signature', async () => {
  const api = await world.api();
  const url = await api.tempUrl({
    container: 'urls.one',
    object: 'manifest.json',
    method: 'GET',
    lifeMs: HOUR_MS,
  });
  expect((await status(url)).code).toBe(200);
  expect((await status(url.replace('manifest.json', 'segments/000001.tar.zst'))).code).toBe(401);
  const signature = new URL(url).searchParams.get('temp_url_sig') ?? '';
  expect(signature).toMatch(/^[0-9a-f]{128}$/);
  const bad = new URL(url.replace('/v1/', '/v1/x'));
  const error = await api.session.http.request(bad, { method: 'GET', what: 'test' }).catch((e: Error) => e);
  expect(String((error as Error).message)).not.toContain(signature);
});

test('stores that cannot keep one URL apart from another are refused', async () => {
  for (const limits of [
    { isRgw: true },
    { tempUrl: undefined },
    { tempUrl: { digests: [], methods: ['GET'] } },
  ] as const) {
    const refusing = world.store('urls', { limits });
    await expect(refusing.provision(['one'], { lifeMs: HOUR_MS })).rejects.toMatchObject({
      code: 'CLOUD_REFUSED',
      hint: expect.stringContaining('application credential'),
    });
  }
});

test('a store that ignores signatures, or container keys, is found out', async () => {
  const path = /temp_url_sig=/;
  world.proxy.on({ method: 'GET', path, times: 1 }, { status: 200 });
  await expect(mint('one')).rejects.toMatchObject({ code: 'CLOUD_REFUSED' });
  world.proxy.reset();
});
