import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { bytesOf, chunked, MIB, random, type SwiftWorld, sha256, swiftWorld } from './swift-world.ts';

let world: SwiftWorld;
beforeAll(async () => {
  world = await swiftWorld('faults');
});
afterAll(() => world?.close());
beforeEach(() => world.proxy.reset());

const data = random(3 * MIB + 11);
let number = 0;
/** A store whose container is there already, so that faults hit what is meant. */
async function ready(stallTimeoutMs?: number) {
  number += 1;
  const store = world.store(`f${number}`, {
    partBytes: MIB,
    ...(stallTimeoutMs === undefined ? {} : { open: () => world.open(stallTimeoutMs) }),
  });
  await store.put('a/first', chunked(Buffer.from('x')).content, { bytes: 1 });
  world.proxy.reset();
  return store;
}
const object = /\.a\/k$/;
const part2 = /k\.parts\/000002/;

describe('one object comes through', () => {
  test.each([
    ['409', { status: 409 }],
    ['429 with Retry-After', { status: 429, headers: { 'retry-after': '1' } }],
    ['500', { status: 500 }],
    ['503 before the body is read', { status: 503, early: true }],
    ['404 of a container that is not everywhere yet', { status: 404 }],
    ['507', { status: 507 }],
    ['401', { status: 401 }],
    ['401 before the body is read', { status: 401, early: true }],
    ['a cut at 1 %', { cutRequest: { bytes: 31_457 } }],
    ['a cut at 50 %', { cutRequest: { bytes: 1_572_869 } }],
    ['a cut at 99 %', { cutRequest: { bytes: 3_114_281 } }],
    ['an answer that is lost', { cutResponse: { bytes: 0 } }],
    ['a byte damaged on the way', { flipRequestByte: 2_000_000 }],
    ['a wrong etag in the answer', { headers: { etag: '00000000000000000000000000000000' } }],
  ])('past %s', async (_name, action) => {
    const store = await ready();
    const source = chunked(data);
    world.proxy.on({ method: 'PUT', path: object, times: 1 }, action);
    const put = await store.put('a/k', source.content, { maxBytes: 4 * MIB });
    expect(put).toMatchObject({ bytes: data.length, sha256: sha256(data) });
    expect(world.proxy.requests.filter((r) => r.faulty)).toHaveLength(1);
    expect(source.reads()).toBe(2);
    world.proxy.reset();
    expect((await bytesOf(await store.get('a/k'))).equals(data)).toBe(true);
  });

  test('past a burst of 503, and past a stalled connection', async () => {
    const store = await ready(1500);
    world.proxy.on({ method: 'PUT', path: object, times: 3 }, { status: 503 });
    await store.put('a/k', chunked(data).content, { maxBytes: 4 * MIB });
    // more than the buffers of both sockets hold, so that the sender notices
    const large = random(20 * MIB);
    world.proxy.on({ method: 'PUT', path: /\.a\/s$/, times: 1 }, { stallRequest: { bytes: MIB } });
    await store.put('a/s', chunked(large).content, { maxBytes: large.length });
    expect((await bytesOf(await store.get('a/s'))).equals(large)).toBe(true);
  });

  test('413 is refused at once and says which limit', async () => {
    const store = await ready();
    world.proxy.on({ method: 'PUT', path: object }, { status: 413 });
    const putting = store.put('a/k', chunked(data).content, { maxBytes: 4 * MIB });
    await expect(putting).rejects.toMatchObject({ code: 'CLOUD_REFUSED', temporary: false });
    expect(world.proxy.count({ method: 'PUT', path: object })).toBe(1);
  });

  test('a real quota of the container is named', async () => {
    const store = await ready();
    const api = await world.api();
    await api.postContainer(store.containerOf('a'), { 'x-container-meta-quota-bytes': '1000' });
    const putting = store.put('a/k', chunked(data).content, { bytes: data.length });
    await expect(putting).rejects.toMatchObject({
      code: 'CLOUD_REFUSED',
      message: expect.stringContaining('quota of 1000 B'),
    });
  });
});

describe('parts go on where they were', () => {
  test.each([
    ['500', { status: 500 }],
    ['401', { status: 401 }],
    ['a cut', { cutRequest: { bytes: 500_000 } }],
    ['a damaged byte', { flipRequestByte: 500_000 }],
    ['an answer that is lost', { cutResponse: { bytes: 0 } }],
  ])('past %s in the second', async (_name, action) => {
    const store = await ready();
    world.proxy.on({ method: 'PUT', path: part2, times: 1 }, action);
    const put = await store.put('a/k', chunked(data).content);
    expect(put.sha256).toBe(sha256(data));
    expect(world.proxy.count({ method: 'PUT', path: /k\.parts\/000001/ })).toBe(1);
    expect(world.proxy.count({ method: 'PUT', path: part2 })).toBe(2);
    world.proxy.reset();
    expect((await bytesOf(await store.get('a/k'))).equals(data)).toBe(true);
  });

  test('past faults of the manifest', async () => {
    const store = await ready();
    const path = /multipart-manifest=put/;
    world.proxy.on({ method: 'PUT', path, times: 1 }, { status: 503 });
    world.proxy.on({ method: 'PUT', path, times: 1 }, { cutResponse: { bytes: 0 } });
    await store.put('a/k', chunked(data).content);
    expect((await bytesOf(await store.get('a/k'))).equals(data)).toBe(true);
  });

  test('of a run that gave up: the next one sends the rest', async () => {
    const store = await ready();
    world.proxy.on({ method: 'PUT', path: /k\.parts\/000003/ }, { status: 403 });
    await expect(store.put('a/k', chunked(data).content)).rejects.toMatchObject({ code: 'CLOUD_REFUSED' });
    expect(await store.head('a/k')).toBeUndefined();
    expect(await store.sweep('a', { keepResumable: true })).toBe(0);
    world.proxy.reset();
    await store.put('a/k', chunked(data).content);
    expect(world.proxy.sentBytes({ method: 'PUT', path: /k\.parts/ })).toBe(MIB + 11);
    expect((await bytesOf(await store.get('a/k'))).equals(data)).toBe(true);
  });
});

describe('reading goes on where it was', () => {
  test.each([
    ['cut at 1 %', { cutResponse: { fraction: 0.01 } }],
    ['cut at 50 %', { cutResponse: { fraction: 0.5 } }],
    ['cut at 99 %', { cutResponse: { fraction: 0.99 } }],
    ['503', { status: 503 }],
    ['401', { status: 401 }],
    ['stalled', { stallResponse: { fraction: 0.5 } }],
  ])('when it is %s', async (_name, action) => {
    const store = await ready(1500);
    await store.put('a/k', chunked(data).content);
    // a login is renewed once for a request
    const times = 'status' in action && action.status === 401 ? 1 : 2;
    world.proxy.on({ method: 'GET', path: object, times }, action);
    expect((await bytesOf(await store.get('a/k'))).equals(data)).toBe(true);
    world.proxy.on({ method: 'GET', path: object, times: 1 }, action);
    const part = await store.get('a/k', { offsetBytes: 100, lengthBytes: 2 * MIB });
    expect((await bytesOf(part)).equals(data.subarray(100, 100 + 2 * MIB))).toBe(true);
  });

  test('but not when the object changed meanwhile', async () => {
    const store = await ready();
    await store.put('a/k', chunked(data).content, { bytes: data.length });
    world.proxy.on({ method: 'GET', path: object, times: 1 }, { cutResponse: { fraction: 0.5 } });
    const reading = await store.get('a/k');
    await store.put('a/k', chunked(random(data.length)).content, { bytes: data.length });
    await expect(bytesOf(reading)).rejects.toMatchObject({ code: 'STORE_MISMATCH' });
  });
});
