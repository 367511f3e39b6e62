import { afterAll, beforeAll, expect, test } from 'vitest';
import { bytesOf, chunked, MIB, random, type SwiftWorld, sha256, swiftWorld } from './swift-world.ts';

const LIFE_S = 10;
let world: SwiftWorld;
beforeAll(async () => {
  world = await swiftWorld('token', { state: 'short-tokens', portsBase: 15200, tokenLifeS: LIFE_S });
});
afterAll(async () => {
  await world?.close();
  await world?.cloud.down({ forget: true });
});

test('an upload outlives its token', async () => {
  const store = world.store('long', { partBytes: MIB });
  const data = random(5 * MIB);
  world.proxy.on({ method: 'PUT', path: /parts/ }, { bytesPerS: MIB / 4 });
  const started = performance.now();
  const put = await store.put('a/k', chunked(data).content);
  expect(performance.now() - started).toBeGreaterThan(LIFE_S * 1000);
  expect(put.sha256).toBe(sha256(data));
  const tokens = new Set(world.proxy.requests.map((r) => r.headers['x-auth-token']));
  expect(tokens.size).toBeGreaterThan(1);
  world.proxy.reset();
  expect((await bytesOf(await store.get('a/k'))).equals(data)).toBe(true);
});
