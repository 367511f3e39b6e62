import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { FileStore } from '../../../drivers/stores/file.ts';
import { verifySet } from '../../../pipeline/data/verify.ts';
import { carryDataSets } from '../../../pipeline/sync/carry.ts';
import { type SwiftWorld, swiftWorld } from '../../drivers/stores/swift-world.ts';
import { putSmallSet } from '../../support/small-set.ts';
import { syncContext } from '../../support/sync-context.ts';

let world: SwiftWorld;
let dir: string;
let home: FileStore;

beforeAll(async () => {
  world = await swiftWorld('carry');
  dir = await fs.mkdtemp(path.join(os.tmpdir(), 'sync-carry-'));
  home = new FileStore(path.join(dir, 'home'));
  await putSmallSet(home, 'shop-1', { segmentBytes: 300_000 });
});
beforeEach(() => world.proxy.reset());
afterAll(async () => {
  await world?.close();
  if (dir !== undefined) await fs.rm(dir, { recursive: true });
});

test('file to Swift and back: the same bytes, and an unchanged night is a few calls', async () => {
  const swift = world.store('carry');
  const back = new FileStore(path.join(dir, 'back'));
  const ctx = syncContext();
  expect(await carryDataSets(['shop-1'], home, swift, ctx)).toMatchObject([{ result: 'done' }]);
  expect(await carryDataSets(['shop-1'], swift, back, ctx)).toMatchObject([{ result: 'done' }]);
  expect(execFileSync('diff', ['-r', home.dir, back.dir], { encoding: 'utf8' })).toBe('');
  await verifySet(swift, 'shop-1');
  world.proxy.reset();
  const again = await carryDataSets(['shop-1'], home, swift, ctx);
  expect(again).toMatchObject([{ result: 'skipped', sentBytes: 0 }]);
  const sent = world.proxy.requests.filter(({ method }) => method === 'PUT');
  expect(sent).toEqual([]);
  expect(world.proxy.requests.length).toBeLessThanOrEqual(4);
});

test('connections that break in the middle heal', async () => {
  const swift = world.store('breaks');
  world.proxy.on({ method: 'PUT', path: /000002\.tar\.zst/, times: 1 }, { cutRequest: { fraction: 0.5 } });
  world.proxy.on({ method: 'PUT', path: /000003\.tar\.zst/, times: 1 }, { status: 503 });
  expect(await carryDataSets(['shop-1'], home, swift, syncContext())).toMatchObject([{ result: 'done' }]);
  world.proxy.on({ method: 'GET', path: /000001\.tar\.zst/, times: 1 }, { cutResponse: { fraction: 0.5 } });
  const back = new FileStore(path.join(dir, 'broken'));
  expect(await carryDataSets(['shop-1'], swift, back, syncContext())).toMatchObject([{ result: 'done' }]);
  expect(execFileSync('diff', ['-r', home.dir, back.dir], { encoding: 'utf8' })).toBe('');
});
