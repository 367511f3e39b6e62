import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { PortError } from '../../../core/errors.ts';
import { openStore } from '../../../drivers/stores/index.ts';
import { bytesOf, chunked, MIB, md5, random, type SwiftWorld, sha256, swiftWorld } from './swift-world.ts';

let world: SwiftWorld;
beforeAll(async () => {
  world = await swiftWorld('store');
});
afterAll(() => world?.close());
beforeEach(() => world.proxy.reset());

async function keys(list: AsyncIterable<{ key: string } | string>): Promise<string[]> {
  const all: string[] = [];
  for await (const item of list) all.push(typeof item === 'string' ? item : item.key);
  return all;
}
const names = async (container: string) => {
  const all: string[] = [];
  for await (const object of (await world.api()).listObjects(container, '')) all.push(object.name);
  return all;
};

describe('a Swift store', () => {
  test('puts, gets with ranges, heads, lists and removes', async () => {
    const store = world.store('basic');
    await store.check(1);
    const data = random(300_000);
    const put = await store.put('a/segments/1.tar', chunked(data).content, { bytes: data.length });
    expect(put).toMatchObject({ bytes: data.length, sha256: sha256(data), etag: md5(data), kept: false });
    expect((await bytesOf(await store.get('a/segments/1.tar'))).equals(data)).toBe(true);
    const part = await store.get('a/segments/1.tar', { offsetBytes: 1000, lengthBytes: 5 });
    expect((await bytesOf(part)).equals(data.subarray(1000, 1005))).toBe(true);
    const tail = await store.get('a/segments/1.tar', { offsetBytes: 299_990 });
    expect((await bytesOf(tail)).equals(data.subarray(299_990))).toBe(true);
    expect(await bytesOf(await store.get('a/segments/1.tar', { offsetBytes: 300_000 }))).toHaveLength(0);
    expect(await store.head('a/segments/1.tar')).toMatchObject({ bytes: data.length, etag: md5(data) });
    expect(await store.head('a/nothing')).toBeUndefined();
    expect(await store.head('none/nothing')).toBeUndefined();
    await expect(store.get('a/nothing')).rejects.toMatchObject({ code: 'STORE', temporary: false });
    await store.put('a/manifest.json', chunked(Buffer.from('{}')).content);
    await store.put('a-b/x', chunked(Buffer.from('x')).content, { maxBytes: 10 });
    expect(await keys(store.list(''))).toEqual(['a-b/x', 'a/manifest.json', 'a/segments/1.tar']);
    expect(await keys(store.list('a/seg'))).toEqual(['a/segments/1.tar']);
    expect(await keys(store.ids())).toEqual(['a', 'a-b']);
    for (const key of ['a/segments/1.tar', 'a/segments/1.tar', 'a/manifest.json']) await store.remove(key);
    expect(await keys(store.list(''))).toEqual(['a-b/x']);
    expect(await keys(store.ids())).toEqual(['a-b']);
  });

  test('puts an empty object', async () => {
    const store = world.store('empty');
    for (const options of [{}, { bytes: 0 }, { maxBytes: 5 }]) {
      await store.put('a/x', chunked(Buffer.alloc(0)).content, options);
      expect(await store.head('a/x')).toMatchObject({ bytes: 0 });
      expect(await bytesOf(await store.get('a/x'))).toHaveLength(0);
    }
  });

  test('content that is not the same at the second reading is refused, not mixed', async () => {
    const store = world.store('mixed', { partBytes: MIB });
    world.proxy.on({ method: 'PUT', path: /x\.parts/, after: 1, times: 1 }, { cutRequest: { bytes: 1000 } });
    const changing = async function* () {
      for (let n = 0; n < 3; n += 1) yield random(MIB);
    };
    await expect(store.put('a/x', changing)).rejects.toMatchObject({ code: 'SOURCE_CHANGED' });
    expect(await store.head('a/x')).toBeUndefined();
  });

  test('sends what is there already not again', async () => {
    const store = world.store('kept');
    const data = random(2 * MIB);
    await store.put('a/x', chunked(data).content, { maxBytes: 3 * MIB });
    const sent = world.proxy.sentBytes({ method: 'PUT' });
    expect(await store.put('a/x', chunked(data).content, { maxBytes: 3 * MIB })).toMatchObject({
      kept: true,
      sha256: sha256(data),
    });
    expect(world.proxy.sentBytes({ method: 'PUT' })).toBe(sent);
    const other = random(2 * MIB);
    expect(await store.put('a/x', chunked(other).content, { maxBytes: 3 * MIB })).toMatchObject({
      kept: false,
    });
    expect((await bytesOf(await store.get('a/x'))).equals(other)).toBe(true);
  });

  test('joins parts when the length is unknown or too large, in the same container', async () => {
    const store = world.store('parts', { partBytes: 2 * MIB });
    const data = random(7 * MIB + 5);
    const put = await store.put('a/big', chunked(data).content);
    expect(put).toMatchObject({ bytes: data.length, sha256: sha256(data), kept: false });
    expect((await bytesOf(await store.get('a/big'))).equals(data)).toBe(true);
    expect(await store.head('a/big')).toMatchObject({ bytes: data.length, etag: put.etag });
    for await (const listed of store.list('a/'))
      expect(listed).toMatchObject({ key: 'a/big', bytes: data.length });
    expect(await keys(store.list('a/'))).toEqual(['a/big']);
    expect(await names('parts.a')).toHaveLength(5);
    // the same again, then less: parts that are not used any more go
    expect(await store.put('a/big', chunked(data).content)).toMatchObject({ kept: true, etag: put.etag });
    const shorter = Buffer.concat([data.subarray(0, 4 * MIB), random(100)]);
    world.proxy.reset();
    expect(await store.put('a/big', chunked(shorter).content)).toMatchObject({ kept: false });
    expect(world.proxy.sentBytes({ method: 'PUT', path: /big\.parts/ })).toBe(100);
    expect((await bytesOf(await store.get('a/big'))).equals(shorter)).toBe(true);
    expect(await names('parts.a')).toHaveLength(4);
    const small = Buffer.from('small now');
    await store.put('a/big', chunked(small).content, { bytes: small.length });
    expect(await names('parts.a')).toEqual(['big']);
    expect((await bytesOf(await store.get('a/big'))).equals(small)).toBe(true);
    await store.put('a/big', chunked(data).content);
    await store.remove('a/big');
    expect(await (await world.api()).headContainer('parts.a')).toBeUndefined();
  });

  test('nests manifests past the limit of one', async () => {
    const limits = { slo: { maxManifestSegments: 3, minSegmentBytes: 1 } };
    const store = world.store('nested', { partBytes: MIB, limits });
    const data = random(10 * MIB + 1);
    const put = await store.put('a/deep', chunked(data).content);
    expect((await bytesOf(await store.get('a/deep'))).equals(data)).toBe(true);
    expect(await store.head('a/deep')).toMatchObject({ bytes: data.length, etag: put.etag });
    expect(await store.put('a/deep', chunked(data).content)).toMatchObject({ kept: true });
    // 11 parts, 4 manifests of 3, 2 of those, and the object
    const all = await names('nested.a');
    expect(all.filter((n) => n.includes('.parts/list-')).length).toBe(5);
    const api = await world.api();
    const body = random(10);
    await api.send(api.url('nested.a', 'deep.parts/000003.deadbeef'), {
      method: 'PUT',
      body,
      what: 'orphan',
    });
    expect(await store.sweep('a')).toBe(1);
    expect(await names('nested.a')).toEqual(all);
    await store.remove('a/deep');
    expect(await names('nested.a')).toEqual([]);
  });

  test('refuses containers of others, public ones, and what is no key', async () => {
    const api = await world.api();
    await api.send(api.url('mine.x'), { method: 'PUT', what: 'foreign container' });
    const store = world.store('mine');
    const content = chunked(Buffer.from('x')).content;
    await expect(store.put('x/k', content)).rejects.toMatchObject({ code: 'CLOUD_CONFLICT' });
    expect(await keys(store.ids())).toEqual([]);
    await store.remove('x/k');
    expect(await api.headContainer('mine.x')).toBeDefined();
    // a + b.x and a.b + x would be the same name
    await world.store('a.b').put('x/k', content);
    await expect(world.store('a').put('b.x/k', content)).rejects.toMatchObject({ code: 'CLOUD_CONFLICT' });
    expect(await keys(world.store('a').ids())).toEqual([]);
    await api.postContainer('a.b.x', { 'x-container-read': '.r:*' });
    await expect(world.store('a.b').put('x/k', content)).rejects.toMatchObject({ code: 'CLOUD_REFUSED' });
    for (const key of ['x', 'X/y', 'a/../b', 'a/x.parts/1', 'a/x.parts'])
      await expect(store.put(key, content)).rejects.toMatchObject({ code: 'UNSAFE_PATH' });
    expect(() => openStore('swift:a/b')).toThrow(/prefix/);
    expect(openStore('swift:').url).toBe('swift:port-image');
  });

  test('a wrong announcement or a broken source leaves nothing', async () => {
    const store = world.store('broken');
    const content = chunked(Buffer.from('four')).content;
    for (const bytes of [3, 5])
      await expect(store.put('a/k', content, { bytes })).rejects.toMatchObject({ code: 'STORE' });
    async function* broken() {
      yield Buffer.from('x');
      throw new PortError('HOST_IO', 'cut');
    }
    for (const options of [{ maxBytes: 9 }, {}])
      await expect(store.put('a/k', broken, options)).rejects.toMatchObject({ code: 'HOST_IO' });
    const parts = world.store('broken', { partBytes: 1 << 20 });
    async function* late() {
      yield random(3 * MIB);
      throw new PortError('HOST_IO', 'cut');
    }
    await expect(parts.put('a/k', late)).rejects.toMatchObject({ code: 'HOST_IO' });
    expect(await keys(store.list('a/'))).toEqual([]);
  });
});
