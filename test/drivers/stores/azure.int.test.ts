import { createHash, randomBytes } from 'node:crypto';
import { BlobServiceClient, StorageSharedKeyCredential } from '@azure/storage-blob';
import { afterAll, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import { MIB } from '../../../core/sizes.ts';
import { AzureStore } from '../../../drivers/stores/azure.ts';
import { HttpStore } from '../../../drivers/stores/http.ts';
import { openStore } from '../../../drivers/stores/index.ts';
import { type Azurite, hasAzurite, startAzurite } from '../../support/azurite.ts';
import { type FaultProxy, startFaultProxy } from '../../support/fault-proxy.ts';

const missing = !(await hasAzurite());
let azurite: Azurite;
let proxy: FaultProxy;

beforeAll(async () => {
  if (missing) return;
  azurite = await startAzurite();
  proxy = await startFaultProxy(azurite.origin);
});
beforeEach(() => {
  proxy?.reset();
  vi.unstubAllEnvs();
  vi.stubEnv('AZURE_STORAGE_KEY', azurite?.key ?? '');
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await proxy?.close();
  await azurite?.close();
});

const open = (prefix: string, blockBytes = MIB, origin = proxy.url) =>
  new AzureStore(`${azurite.account}/${prefix}?endpoint=${origin}/${azurite.account}`, { blockBytes });
const sha256 = (data: Uint8Array) => createHash('sha256').update(data).digest('hex');
/** In odd chunks, from one buffer that is used again. */
const chunked = (data: Buffer) =>
  async function* () {
    const buffer = Buffer.alloc(70_001);
    for (let at = 0; at < data.length; at += buffer.length) {
      const piece = buffer.subarray(0, Math.min(buffer.length, data.length - at));
      data.copy(piece, 0, at);
      yield piece;
    }
  };
const bytesOf = async (body: AsyncIterable<Uint8Array>) => {
  const all: Uint8Array[] = [];
  for await (const chunk of body) all.push(chunk);
  return Buffer.concat(all);
};
const keys = async (list: AsyncIterable<{ key: string } | string>) => {
  const all: string[] = [];
  for await (const item of list) all.push(typeof item === 'string' ? item : item.key);
  return all;
};
const staged = (seen: { path: string }) =>
  seen.path.includes('comp=block&') || seen.path.endsWith('comp=block');

test.skipIf(missing)('puts, gets with ranges, heads, lists and removes (azurite)', async () => {
  const store = open('basic');
  await store.check();
  const data = randomBytes(3 * MIB + 7);
  const put = await store.put('a/segments/1.tar', chunked(data), { bytes: data.length });
  expect(put).toMatchObject({ bytes: data.length, sha256: sha256(data), kept: false });
  expect((await bytesOf(await store.get('a/segments/1.tar'))).equals(data)).toBe(true);
  const part = await store.get('a/segments/1.tar', { offsetBytes: 1000, lengthBytes: 5 });
  expect((await bytesOf(part)).equals(data.subarray(1000, 1005))).toBe(true);
  expect(await bytesOf(await store.get('a/segments/1.tar', { offsetBytes: data.length }))).toHaveLength(0);
  expect(await store.head('a/segments/1.tar')).toMatchObject({ bytes: data.length, etag: put.etag });
  expect(await store.head('a/nothing')).toBeUndefined();
  expect(await store.head('none/nothing')).toBeUndefined();
  await expect(store.get('a/nothing')).rejects.toMatchObject({ code: 'STORE', temporary: false });
  await store.put('a/manifest.json', chunked(Buffer.from('{}')));
  await store.put('a.b_c/x', chunked(Buffer.from('x')), { maxBytes: 10 });
  await store.put('a/empty', chunked(Buffer.alloc(0)), { bytes: 0 });
  expect(await keys(store.list(''))).toEqual(['a.b_c/x', 'a/empty', 'a/manifest.json', 'a/segments/1.tar']);
  expect(await keys(store.list('a/seg'))).toEqual(['a/segments/1.tar']);
  expect(await keys(store.ids())).toEqual(['a', 'a.b_c']);
  for (const key of ['a/segments/1.tar', 'a/segments/1.tar', 'a/manifest.json', 'a/empty'])
    await store.remove(key);
  expect(await keys(store.ids())).toEqual(['a.b_c']);
  await expect(store.put('b/x', chunked(data), { bytes: 5 })).rejects.toMatchObject({ code: 'STORE' });
});

test.skipIf(missing)('what is there already is not sent again; what changed is (azurite)', async () => {
  const store = open('kept');
  const data = randomBytes(2 * MIB);
  await store.put('a/x', chunked(data));
  proxy.reset();
  expect(await store.put('a/x', chunked(data))).toMatchObject({ kept: true, sha256: sha256(data) });
  expect(proxy.requests.filter(staged)).toEqual([]);
  const other = randomBytes(2 * MIB);
  expect(await store.put('a/x', chunked(other))).toMatchObject({ kept: false });
  expect((await bytesOf(await store.get('a/x'))).equals(other)).toBe(true);
});

test.skipIf(missing)('cuts, 503 and broken downloads are gone on after (azurite)', async () => {
  const store = open('faults');
  const data = randomBytes(4 * MIB);
  const path = /comp=block(&|$)/;
  proxy.on({ method: 'PUT', path, times: 1 }, { cutRequest: { fraction: 0.5 } });
  proxy.on({ method: 'PUT', path, times: 1 }, { cutResponse: { bytes: 0 } });
  proxy.on({ method: 'PUT', path, times: 1 }, { status: 503, headers: { 'x-ms-error-code': 'ServerBusy' } });
  proxy.on({ method: 'PUT', path: /comp=blocklist/, times: 1 }, { cutResponse: { bytes: 0 } });
  await store.put('a/x', chunked(data));
  proxy.on({ method: 'GET', path: /\/x/, times: 2 }, { cutResponse: { bytes: 300_000 } });
  expect((await bytesOf(await store.get('a/x'))).equals(data)).toBe(true);
});

test.skipIf(missing)(
  'blocks a stopped put staged are used again, and swept when nobody goes on (azurite)',
  async () => {
    const store = open('resume');
    const data = randomBytes(5 * MIB);
    const stop = new AbortController();
    const stopping = async function* () {
      yield* chunked(data.subarray(0, 3 * MIB + 5))();
      stop.abort();
      yield* chunked(data.subarray(3 * MIB + 5))();
    };
    await expect(store.put('a/x', stopping, { signal: stop.signal })).rejects.toMatchObject({
      code: 'INTERRUPTED',
    });
    expect(await store.head('a/x')).toBeUndefined();
    proxy.reset();
    expect(await store.sweep('a', { keepResumable: true })).toBe(0);
    await store.put('a/x', chunked(data));
    expect(proxy.requests.filter(staged)).toHaveLength(2);
    expect((await bytesOf(await store.get('a/x'))).equals(data)).toBe(true);
    const again = new AbortController();
    const stopSoon = async function* () {
      yield* chunked(data.subarray(0, 2 * MIB))();
      again.abort();
      yield Buffer.from('x');
    };
    await expect(store.put('a/y', stopSoon, { signal: again.signal })).rejects.toMatchObject({
      code: 'INTERRUPTED',
    });
    expect(await store.sweep('a')).toBe(1);
    expect(await store.sweep('a')).toBe(0);
    expect(await keys(store.list('a/'))).toEqual(['a/x']);
  },
);

test.skipIf(missing)(
  'content that is not the same at the second reading is refused, not mixed (azurite)',
  async () => {
    const store = open('mixed');
    proxy.on(
      { method: 'PUT', path: /comp=block(&|$)/, after: 1, times: 1 },
      { status: 429, headers: { 'x-ms-error-code': 'TooManyRequests' } },
    );
    const changing = async function* () {
      for (let n = 0; n < 3; n += 1) yield randomBytes(MIB);
    };
    await expect(store.put('a/x', changing)).rejects.toMatchObject({ code: 'SOURCE_CHANGED' });
    expect(await store.head('a/x')).toBeUndefined();
  },
);

test.skipIf(missing)('a container of somebody else is neither used nor listed (azurite)', async () => {
  const store = open('mine');
  await azurite.container('mine-a');
  await expect(store.put('a/x', chunked(Buffer.from('x')))).rejects.toMatchObject({ code: 'CLOUD_CONFLICT' });
  expect(await keys(store.ids())).toEqual([]);
  await store.remove('a/x');
  expect(await store.sweep('a')).toBe(0);
});

test.skipIf(missing)(
  'a signed address reads one data set and nothing else, until it is revoked (azurite)',
  async () => {
    const store = open('signed', MIB, azurite.origin);
    const data = randomBytes(MIB);
    for (const id of ['a', 'b']) {
      await store.put(`${id}/manifest.json`, chunked(Buffer.from('{}')));
      await store.put(`${id}/segments/1.tar`, chunked(data));
    }
    const { document, upstream, paths } = await store.provision(['a'], { lifeMs: 3_600_000 });
    expect(document.data.a?.url.startsWith(upstream)).toBe(true);
    expect(paths).toEqual([`/${azurite.account}/signed-a/`]);
    expect(Object.keys(document.data)).toEqual(['a']);
    const reader = await HttpStore.open(document);
    expect(
      (await bytesOf(await reader.get('a/segments/1.tar', { offsetBytes: 5 }))).equals(data.subarray(5)),
    ).toBe(true);
    const url = new URL(document.data.a?.url ?? '');
    const ask = async (path: string, method = 'GET', query = url.search, body?: string) => {
      const init = {
        method,
        headers: { 'x-ms-blob-type': 'BlockBlob' },
        ...(body === undefined ? {} : { body }),
      };
      return (await fetch(`${url.origin}${path}${query}`, init)).status;
    };
    const base = url.pathname;
    expect(await ask(`${base}manifest.json`)).toBe(200);
    expect(await ask(base.replace('signed-a', 'signed-b').concat('manifest.json'))).toBe(403);
    expect(await ask(`${base}new`, 'PUT', url.search, 'x')).toBe(403);
    expect(await ask(`${base}manifest.json`, 'DELETE')).toBe(403);
    expect(await ask(base.slice(0, -1), 'GET', `${url.search}&restype=container&comp=list`)).toBe(403);
    await store.revoke('a');
    expect(await ask(`${base}manifest.json`)).toBe(403);
    const fresh = await store.provision(['a'], { lifeMs: 60_000 });
    expect(await ask(`${base}manifest.json`, 'GET', new URL(fresh.document.data.a?.url ?? '').search)).toBe(
      200,
    );
    expect(await ask(`${base}manifest.json`)).toBe(403);
    await reader.close();
  },
);

test.skipIf(missing)(
  'wrong keys, SAS that are over and SAS without rights are told, secrets are not (azurite)',
  async () => {
    const wrong = randomBytes(64).toString('base64');
    vi.stubEnv('AZURE_STORAGE_KEY', wrong);
    await expect(open('keys').check()).rejects.toMatchObject({ code: 'CLOUD_LOGIN' });
    const failure: unknown = await open('keys')
      .put('a/x', chunked(Buffer.from('x')))
      .catch((error: unknown) => error);
    expect(String(failure)).not.toContain(wrong);
    vi.stubEnv('AZURE_STORAGE_KEY', '');
    const owner = new BlobServiceClient(
      azurite.url,
      new StorageSharedKeyCredential(azurite.account, azurite.key),
    );
    const sas = (ms: number) => new URL(owner.generateAccountSasUrl(new Date(Date.now() + ms))).search;
    vi.stubEnv('AZURE_STORAGE_SAS_TOKEN', sas(-60_000));
    await expect(open('keys').check()).rejects.toMatchObject({
      code: expect.stringMatching(/CLOUD_LOGIN|CLOUD_REFUSED/),
    });
    vi.stubEnv('AZURE_STORAGE_SAS_TOKEN', sas(3_600_000));
    // an account SAS may read and no more by default
    await expect(open('keys').put('a/x', chunked(Buffer.from('x')))).rejects.toMatchObject({
      code: 'CLOUD_REFUSED',
    });
  },
);

test('URLs: what is named, and what is refused', () => {
  expect(openStore('azure:shopdata/web').url).toBe('azure:shopdata/web');
  expect(openStore('azure:shopdata').url).toBe('azure:shopdata/port-image');
  for (const bad of [
    'azure:',
    'azure:A/b',
    'azure:shopdata/UP',
    'azure:shopdata/a--b',
    'azure:shopdata/a/b',
    'azure:shopdata/a?sig=x',
  ])
    expect(() => openStore(bad)).toThrow(expect.objectContaining({ code: 'USAGE' }));
  const store = new AzureStore('shopdata/web');
  expect(store.containerOf('shop01-srv')).toBe('web-shop01-srv');
  expect(store.containerOf('a.b')).toMatch(/^web-x[0-9a-f]{31}$/);
});
