import { createHash, randomBytes } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { MIB } from '../../../core/sizes.ts';
import { GcsStore } from '../../../drivers/stores/gcs.ts';
import { openStore } from '../../../drivers/stores/index.ts';
import { type FaultProxy, startFaultProxy } from '../../support/fault-proxy.ts';
import { serviceProgram } from '../../support/services.ts';
import { startFakeGcs } from '../gcp/fake-gcs.ts';
import { bytesOf, keysOf, oddChunks } from './streams.ts';

const program = await serviceProgram('fake-gcs');
const sha256 = (data: Uint8Array) => createHash('sha256').update(data).digest('hex');

describe.skipIf(program === undefined)('a store in Cloud Storage (fake-gcs-server)', () => {
  let gcs: Awaited<ReturnType<typeof startFakeGcs>>;
  let proxy: FaultProxy;
  let count = 0;
  const store = (options: { partBytes?: number } = {}) =>
    new GcsStore(`data-sets/p${count}/x?endpoint=${proxy.url}`, options);

  beforeAll(async () => {
    gcs = await startFakeGcs(program ?? '', 'data-sets');
    proxy = await startFaultProxy(gcs.url);
  });
  afterAll(async () => {
    await proxy?.close();
    await gcs?.stop();
  });
  beforeEach(() => {
    proxy.reset();
    count += 1;
  });

  test('puts, gets with ranges, heads, lists and removes', async () => {
    const s = store();
    await s.check();
    const data = randomBytes(300_000);
    const put = await s.put('a/segments/1.tar', oddChunks(data), { bytes: data.length });
    expect(put).toMatchObject({ bytes: data.length, sha256: sha256(data), kept: false });
    expect((await bytesOf(await s.get('a/segments/1.tar'))).equals(data)).toBe(true);
    const part = await s.get('a/segments/1.tar', { offsetBytes: 1000, lengthBytes: 5 });
    expect((await bytesOf(part)).equals(data.subarray(1000, 1005))).toBe(true);
    expect(await bytesOf(await s.get('a/segments/1.tar', { offsetBytes: 300_000 }))).toHaveLength(0);
    expect(await s.head('a/segments/1.tar')).toMatchObject({ bytes: data.length, sha256: sha256(data) });
    expect(await s.head('a/nothing')).toBeUndefined();
    await expect(s.get('a/nothing')).rejects.toMatchObject({ code: 'STORE', temporary: false });
    await s.put('a/manifest.json', oddChunks(Buffer.from('{}')));
    await s.put('a-b/x', oddChunks(Buffer.alloc(0)), { maxBytes: 10 });
    expect(await bytesOf(await s.get('a-b/x'))).toHaveLength(0);
    expect(await keysOf(s.list(''))).toEqual(['a-b/x', 'a/manifest.json', 'a/segments/1.tar']);
    expect(await keysOf(s.list('a/seg'))).toEqual(['a/segments/1.tar']);
    expect(await keysOf(s.ids())).toEqual(['a', 'a-b']);
    for (const key of ['a/segments/1.tar', 'a/segments/1.tar', 'a/manifest.json']) await s.remove(key);
    expect(await keysOf(s.list(''))).toEqual(['a-b/x']);
    await s.close();
  });

  test('the same content is not sent twice, other content replaces it', async () => {
    const s = store({ partBytes: MIB });
    const data = randomBytes(3 * MIB + 1);
    expect(await s.put('a/x', oddChunks(data))).toMatchObject({ kept: false });
    const before = proxy.sentBytes({ path: /upload/ });
    expect(await s.put('a/x', oddChunks(data))).toMatchObject({ kept: true, sha256: sha256(data) });
    expect(proxy.sentBytes({ path: /upload/ })).toBe(before);
    const other = randomBytes(2 * MIB + 1);
    expect(await s.put('a/x', oddChunks(other))).toMatchObject({ kept: false, sha256: sha256(other) });
    expect((await bytesOf(await s.get('a/x'))).equals(other)).toBe(true);
    expect(await keysOf(s.list(''))).toEqual(['a/x']);
    await s.close();
  });

  test('a put that broke off goes on with its parts; a sweep removes them', async () => {
    const s = store({ partBytes: MIB });
    const data = randomBytes(40 * MIB);
    const refused = proxy.on({ method: 'POST', path: /upload/, after: 35 }, { status: 403 });
    await expect(s.put('a/x', oddChunks(data))).rejects.toMatchObject({ code: 'CLOUD_REFUSED' });
    expect(await keysOf(s.list(''))).toEqual([]);
    expect(await s.head('a/x')).toBeUndefined();
    refused();
    const before = proxy.sentBytes({ path: /upload/ });
    await s.put('a/x', oddChunks(data));
    expect(proxy.sentBytes({ path: /upload/ }) - before).toBeLessThan(6 * MIB);
    expect((await bytesOf(await s.get('a/x'))).equals(data)).toBe(true);
    proxy.on({ method: 'POST', path: /upload/, after: 2 }, { status: 403 });
    await s.put('a/y', oddChunks(data)).catch(() => {});
    expect(await s.sweep('a', { keepResumable: true })).toBe(0);
    expect(await s.sweep('a')).toBe(2);
    expect(await keysOf(s.list(''))).toEqual(['a/x']);
    await s.close();
  });

  test('cut connections, throttling and damage on the way', async () => {
    const s = store();
    const data = randomBytes(2 * MIB);
    proxy.on({ method: 'POST', path: /upload/, times: 1 }, { cutRequest: { fraction: 0.5 } });
    proxy.on({ method: 'POST', path: /upload/, times: 1 }, { flipRequestByte: MIB });
    proxy.on({ method: 'POST', path: /upload/, times: 1 }, { status: 429 });
    await s.put('a/x', oddChunks(data), { bytes: data.length });
    proxy.on({ method: 'GET', path: /alt=media/, times: 2 }, { cutResponse: { fraction: 0.3 } });
    proxy.on({ method: 'GET', path: /alt=media/, times: 1 }, { status: 503 });
    expect((await bytesOf(await s.get('a/x'))).equals(data)).toBe(true);
    await expect(s.put('a/y', oddChunks(data), { bytes: 5 })).rejects.toMatchObject({ code: 'STORE' });
    await s.close();
  });

  test('places and keys that are none', async () => {
    for (const bad of ['A', 'b', 'bucket/../x', 'bucket/x?y=1', 'bucket//x']) {
      expect(() => new GcsStore(bad)).toThrow(expect.objectContaining({ code: 'USAGE' }));
    }
    expect(openStore('gs:bucket').url).toBe('gs:bucket/port-image');
    await expect(store().put('a', oddChunks(Buffer.alloc(1)))).rejects.toMatchObject({ code: 'UNSAFE_PATH' });
    await expect(store().head('a/.parts/x')).rejects.toMatchObject({ code: 'UNSAFE_PATH' });
    const none = new GcsStore(`no-such-bucket?endpoint=${proxy.url}`);
    await expect(none.check()).rejects.toMatchObject({ code: 'CLOUD_REFUSED' });
    await none.close();
  });
});
