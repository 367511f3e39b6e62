/** Reading with nothing but a provision document, over a connection that does what connections do. */
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { buffer } from 'node:stream/consumers';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Provision } from '../../../core/contract.ts';
import { FileStore } from '../../../drivers/stores/file.ts';
import { HttpStore } from '../../../drivers/stores/http.ts';
import { restoreFromProvision } from '../../../pipeline/data/restore.ts';
import { type DataServer, serveFolder } from '../../support/data-server.ts';
import { listTree, putSmallSet } from '../../support/small-set.ts';

const SIGNATURE = 'temp_url_sig=5ec2e7&temp_url_expires=1900000000';
let dir: string;
let server: DataServer;
let provision: Provision;
let store: HttpStore;
beforeEach(async () => {
  dir = await fs.mkdtemp(path.join(os.tmpdir(), 'http-store-'));
  await putSmallSet(new FileStore(path.join(dir, 'store')), 'x');
  server = await serveFolder(path.join(dir, 'store'));
  provision = {
    version: 1,
    data: { x: { url: `${server.url}/x/?${SIGNATURE}`, expires: '2030-01-01T00:00:00Z' } },
  };
  store = await HttpStore.open(provision);
});
afterEach(async () => {
  await store.close();
  await server.close();
  await fs.rm(dir, { recursive: true, force: true });
});

const segment = 'x/segments/000002.tar.zst';
const onDisk = () => fs.readFile(path.join(dir, 'store', segment));

test('content, ranges and sizes; every request carries the signature', async () => {
  const whole = await onDisk();
  expect((await buffer(await store.get(segment))).equals(whole)).toBe(true);
  expect((await buffer(await store.get(segment, { offsetBytes: 1000 }))).equals(whole.subarray(1000))).toBe(
    true,
  );
  const part = await buffer(await store.get(segment, { offsetBytes: 1000, lengthBytes: 77 }));
  expect(part.equals(whole.subarray(1000, 1077))).toBe(true);
  expect(await store.head(segment)).toEqual({ key: segment, bytes: whole.length });
  expect(await store.head('x/nothing')).toBeUndefined();
  await expect(store.get('x/nothing')).rejects.toMatchObject({ code: 'STORE' });
  expect(server.requests.every((r) => r.endsWith(`?${SIGNATURE}`))).toBe(true);
});

test('a connection that is cut goes on where it was cut', async () => {
  const whole = await onDisk();
  server.fault = (key, count) => (key === segment && count <= 3 ? { cutAfterBytes: 100_000 } : undefined);
  expect((await buffer(await store.get(segment))).equals(whole)).toBe(true);
  expect(server.requests).toHaveLength(4);
  expect(server.sentBytes).toBeLessThan(whole.length + 400_000);
});

test('a server in trouble is asked again; one that refuses is not, and nothing tells the signature', async () => {
  server.fault = (_, count) => (count <= 2 ? { status: 503 } : undefined);
  expect((await buffer(await store.get(segment))).length).toBeGreaterThan(0);
  server.fault = () => ({ status: 401 });
  const before = server.requests.length;
  const error = await store.get(segment).catch((e: unknown) => e as Error & { hint: string });
  expect(error).toMatchObject({
    code: 'STORE',
    temporary: false,
    hint: expect.stringContaining('data mint x'),
  });
  expect(JSON.stringify([error, String((error as Error).cause)])).not.toContain('5ec2e7');
  expect(server.requests.length).toBe(before + 1);
});

test('a body that never gets further is given up', async () => {
  server.fault = (key) => (key === segment ? { cutAfterBytes: 0 } : undefined);
  await expect(store.get(segment).then((body) => buffer(body))).rejects.toMatchObject({ code: 'STORE' });
});

test('a reader that stops early causes no further request', async () => {
  const body = await store.get(segment);
  for await (const _ of body) break;
  const stopped = await store.get(segment);
  stopped.on('error', () => {});
  await new Promise((resolve) => stopped.once('data', resolve));
  stopped.destroy(new Error('enough'));
  await new Promise((resolve) => stopped.once('close', resolve));
  expect(server.requests).toHaveLength(2);
});

test('nothing but reading, and only what the document names', async () => {
  await expect(store.put()).rejects.toMatchObject({ code: 'STORE' });
  await expect(store.remove()).rejects.toMatchObject({ code: 'STORE' });
  await expect(store.get('y/manifest.json')).rejects.toMatchObject({ code: 'STORE' });
  await expect(store.get('x/../y/manifest.json')).rejects.toMatchObject({ code: 'UNSAFE_PATH' });
  expect(server.requests).toEqual([]);
});

test('restore from the document alone', async () => {
  server.fault = (_, count) => (count === 1 ? { cutAfterBytes: 60_000 } : undefined);
  const back = path.join(dir, 'back');
  const manifest = await restoreFromProvision(provision, { id: 'x', dir: back });
  expect(manifest.path).toBe('/srv');
  expect(listTree(back)).toContain('app/data/deep/big3');
  await expect(restoreFromProvision(provision, { id: 'z', dir: back })).rejects.toMatchObject({
    code: 'USAGE',
  });
});
