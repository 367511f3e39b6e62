import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { AzureStore } from '../../../drivers/stores/azure.ts';
import { FileStore } from '../../../drivers/stores/file.ts';
import { GcsStore } from '../../../drivers/stores/gcs.ts';
import { S3Store } from '../../../drivers/stores/s3.ts';
import type { Store } from '../../../drivers/stores/store.ts';
import { verifySet } from '../../../pipeline/data/verify.ts';
import { carryDataSets } from '../../../pipeline/sync/carry.ts';
import { startFakeGcs } from '../../drivers/gcp/fake-gcs.ts';
import { type Azurite, hasAzurite, startAzurite } from '../../support/azurite.ts';
import { type FaultProxy, startFaultProxy } from '../../support/fault-proxy.ts';
import { startMotoS3 } from '../../support/moto-s3.ts';
import { serviceProgram } from '../../support/services.ts';
import { putSmallSet } from '../../support/small-set.ts';
import { syncContext } from '../../support/sync-context.ts';

const program = await serviceProgram('moto');
const gcsProgram = await serviceProgram('fake-gcs');
const missing = program === undefined || !(await hasAzurite());
const BUCKET = 'carry';

let dir: string;
let moto: Awaited<ReturnType<typeof startMotoS3>>;
let azurite: Azurite;
let s3Proxy: FaultProxy;
let azureProxy: FaultProxy;
let home: FileStore;
let s3: S3Store;
let azure: AzureStore;

beforeAll(async () => {
  if (missing) return;
  dir = await fs.mkdtemp(path.join(os.tmpdir(), 'sync-carry-'));
  moto = await startMotoS3(program, BUCKET);
  azurite = await startAzurite();
  vi.stubEnv('AWS_ACCESS_KEY_ID', 'test');
  vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'test');
  vi.stubEnv('AZURE_STORAGE_KEY', azurite.key);
  s3Proxy = await startFaultProxy(moto.url);
  azureProxy = await startFaultProxy(azurite.origin);
  home = new FileStore(path.join(dir, 'home'));
  s3 = new S3Store(`${BUCKET}/sets?endpoint=${s3Proxy.url}`);
  azure = new AzureStore(`${azurite.account}/sets?endpoint=${azureProxy.url}/${azurite.account}`);
  await putSmallSet(home, 'shop-1', { segmentBytes: 300_000 });
  await putSmallSet(home, 'shop-2', { tree: { 'a/': '', 'a/b': 'text\n' } });
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await s3?.close();
  await s3Proxy?.close();
  await azureProxy?.close();
  await moto?.stop();
  await azurite?.close();
  if (dir !== undefined) await fs.rm(dir, { recursive: true });
});

const IDS = ['shop-1', 'shop-2'];
const done = (list: { result: string }[]) => list.map((outcome) => outcome.result);

test.skipIf(missing)(
  'file to S3 to Azure and back: the same bytes, and an unchanged night is a few calls',
  async () => {
    const ctx = syncContext();
    const back = new FileStore(path.join(dir, 'back'));
    const ways: [Store, Store][] = [
      [home, s3],
      [s3, azure],
      [azure, back],
    ];
    for (const [from, to] of ways)
      expect(done(await carryDataSets(IDS, from, to, ctx))).toEqual(['done', 'done']);
    expect(execFileSync('diff', ['-r', home.dir, back.dir], { encoding: 'utf8' })).toBe('');
    for (const store of [s3, azure]) for (const id of IDS) await verifySet(store, id);

    s3Proxy.reset();
    azureProxy.reset();
    const again = await carryDataSets(IDS, s3, azure, ctx);
    expect(again).toMatchObject([
      { result: 'skipped', sentBytes: 0 },
      { result: 'skipped', sentBytes: 0 },
    ]);
    const seen = [...s3Proxy.requests, ...azureProxy.requests];
    expect(seen.filter(({ method }) => method !== 'GET' && method !== 'HEAD')).toEqual([]);
    expect(seen.filter(({ path: at }) => at.includes('segment'))).toEqual([]);
    // Of each set: the manifest on both sides, a listing of the target.
    expect(seen.length).toBeLessThanOrEqual(IDS.length * 6);
  },
);

test.skipIf(missing)('stopped while it goes into S3, it is gone on with and whole at the end', async () => {
  const target = new S3Store(`${BUCKET}/other?endpoint=${s3Proxy.url}`);
  const stopped = syncContext();
  let puts = 0;
  const stopping = new Proxy(target, {
    get(store, name) {
      const value: unknown = Reflect.get(store, name, store);
      if (typeof value !== 'function') return value;
      return (...args: unknown[]) => {
        if (name === 'put' && ++puts === 4) stopped.abort();
        return Reflect.apply(value, store, args) as unknown;
      };
    },
  });
  await expect(carryDataSets(['shop-1'], home, stopping, stopped)).rejects.toMatchObject({
    code: 'INTERRUPTED',
  });
  expect(await target.head('shop-1/manifest.json')).toBeUndefined();
  const [outcome] = await carryDataSets(['shop-1'], home, target, syncContext());
  expect(outcome?.result).toBe('done');
  await verifySet(target, 'shop-1');
  await target.close();
});

test.skipIf(missing)(
  'a byte that is flipped on the way heals, one that is flipped in the store is told',
  async () => {
    const back = new FileStore(path.join(dir, 'flipped'));
    const key = 'shop-1/segments/000002.tar.zst';
    const other = new AzureStore(`${azurite.account}/flips?endpoint=${azureProxy.url}/${azurite.account}`);
    expect(done(await carryDataSets(['shop-1'], home, other, syncContext()))).toEqual(['done']);
    azureProxy.reset();
    azureProxy.on({ method: 'GET', path: /000002\.tar\.zst/, times: 1 }, { flipResponseByte: 5000 });
    expect(done(await carryDataSets(['shop-1'], other, back, syncContext()))).toEqual(['done']);
    await verifySet(back, 'shop-1');

    const bytes = await fs.readFile(home.pathOf(key));
    bytes[5000] = (bytes[5000] ?? 0) ^ 1;
    await other.put(key, async function* () {
      yield bytes;
    });
    const empty = new FileStore(path.join(dir, 'empty'));
    const [outcome] = await carryDataSets(['shop-1'], other, empty, syncContext());
    expect(outcome).toMatchObject({ result: 'failed', code: 'STORE_MISMATCH' });
    expect(outcome?.message).toContain(key);
    expect(await empty.head('shop-1/manifest.json')).toBeUndefined();
  },
);

describe.skipIf(missing || gcsProgram === undefined)('Cloud Storage', () => {
  let gcs: Awaited<ReturnType<typeof startFakeGcs>>;
  let proxy: FaultProxy;
  beforeAll(async () => {
    gcs = await startFakeGcs(gcsProgram ?? '', BUCKET);
    proxy = await startFaultProxy(gcs.url);
  });
  afterAll(async () => {
    await proxy?.close();
    await gcs?.stop();
  });

  test('S3 to it and back: the same bytes; a flipped byte heals, an unchanged night sends nothing', async () => {
    const back = new FileStore(path.join(dir, 'from-gcs'));
    const from = new S3Store(`${BUCKET}/for-gcs?endpoint=${s3Proxy.url}`);
    const store = new GcsStore(`${BUCKET}/sets?endpoint=${proxy.url}`);
    expect(done(await carryDataSets(IDS, home, from, syncContext()))).toEqual(['done', 'done']);
    expect(done(await carryDataSets(IDS, from, store, syncContext()))).toEqual(['done', 'done']);
    for (const id of IDS) await verifySet(store, id);
    proxy.on({ method: 'GET', path: /000002\.tar\.zst/, times: 1 }, { flipResponseByte: 5000 });
    expect(done(await carryDataSets(IDS, store, back, syncContext()))).toEqual(['done', 'done']);
    expect(proxy.requests.some(({ faulty }) => faulty)).toBe(true);
    expect(execFileSync('diff', ['-r', home.dir, back.dir], { encoding: 'utf8' })).toBe('');

    proxy.reset();
    expect(await carryDataSets(IDS, from, store, syncContext())).toMatchObject([
      { result: 'skipped', sentBytes: 0 },
      { result: 'skipped', sentBytes: 0 },
    ]);
    expect(proxy.requests.filter(({ method }) => method !== 'GET' && method !== 'HEAD')).toEqual([]);
    await from.close();
    await store.close();
  });
});
