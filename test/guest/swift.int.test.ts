/** The client of the instance against the real Swift and Keystone: minted URLs, through the relay, and signing in. */
import { spawn } from 'node:child_process';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Provision } from '../../core/contract.ts';
import type { SwiftStore } from '../../drivers/stores/swift.ts';
import { relayedProvision, relayStore } from '../../stages/verify/relay-store.ts';
import { dataSetConf, type GuestDataSet } from '../../tools/guest-side.ts';
import { MIB, type SwiftWorld, swiftWorld } from '../drivers/stores/swift-world.ts';
import { storeSet } from '../support/instance-image.ts';
import { describeTree, makeOddTree } from '../support/odd-tree.ts';
import { requires } from '../support/requires.ts';

const missing =
  requires('curl', 'tar', 'zstd', 'setfattr', 'setfacl', 'awk', 'mknod') ??
  (process.getuid?.() === 0 ? undefined : 'needs root');
const LIFE_MS = 3_600_000;

let world: SwiftWorld;
let store: SwiftStore;
let set: GuestDataSet;
let dir = '';
beforeAll(async () => {
  if (missing !== undefined) return;
  dir = await fs.mkdtemp(path.join(os.tmpdir(), 'guest-swift-'));
  makeOddTree(dir);
  world = await swiftWorld('guest');
  store = world.store('guest', { partBytes: MIB });
  set = await storeSet(store, dir, 'app', { mode: 'eager', neededBy: [] });
});
afterAll(async () => {
  await world?.close();
  if (dir !== '') await fs.rm(dir, { recursive: true, force: true });
});

/** A fresh instance with this document; what the client left. */
async function fetchInto(
  document: Provision,
): Promise<{ root: string; status: number | null; text: string }> {
  const root = await fs.mkdtemp(path.join(dir, 'root-'));
  const lib = path.join(root, 'usr/lib/port-image');
  await fs.mkdir(path.join(lib, 'data.d'), { recursive: true });
  for (const file of ['json-get.awk', 'provision.sh'])
    await fs.copyFile(`guest/${file}`, path.join(lib, file));
  await fs.writeFile(path.join(lib, 'data.d/app.conf'), dataSetConf(set));
  await fs.writeFile(path.join(lib, 'provision.json'), JSON.stringify(document));
  const child = spawn('sh', [path.resolve('guest/port-image-data'), 'fetch', 'app'], {
    env: { PATH: process.env.PATH ?? '', PORT_IMAGE_ROOT: root, PORT_IMAGE_WAIT: '5' },
  });
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      text += chunk;
    });
  }
  const status = await new Promise<number | null>((resolve) => child.on('close', resolve));
  return { root, status, text };
}

const expectEqual = (root: string) =>
  expect(describeTree(path.join(root, 'srv/app'))).toBe(describeTree(path.join(dir, 'app')));

test.skipIf(missing)('minted URLs restore every property, straight and through the relay', async () => {
  const { document, upstream, paths } = await store.provision(['app'], { lifeMs: LIFE_MS });
  const straight = await fetchInto(document);
  expect(straight).toMatchObject({ status: 0 });
  expectEqual(straight.root);

  const relay = await relayStore({ upstream, allowed: paths });
  try {
    const relayed = relayedProvision(document, upstream, `http://127.0.0.1:${relay.port}`);
    expect(relayed.allowed).toEqual(paths);
    const through = await fetchInto(relayed.document);
    expect(through).toMatchObject({ status: 0 });
    expectEqual(through.root);
    expect(relay.sentBytes()).toBeGreaterThan(9 * MIB);
    // Nothing of the account, not even with a good signature for the data set.
    const query = document.data.app?.url.split('?')[1] ?? '';
    const account = new URL(world.project.accountUrl).pathname;
    expect((await fetch(`http://127.0.0.1:${relay.port}${account}/other/x?${query}`)).status).toBe(404);
  } finally {
    await relay.close();
  }
});

test.skipIf(missing)('an expired URL is named as such', async () => {
  const { document } = await store.provision(['app'], { lifeMs: LIFE_MS });
  const { url = '' } = document.data.app ?? {};
  const late = {
    ...document,
    data: { app: { url: url.replace(/temp_url_expires=[^&]*/, 'temp_url_expires=1') } },
  };
  const result = await fetchInto(late);
  expect(result.status).toBe(77);
  expect(result.text).toContain('expired or revoked');
  expect(result.text).not.toContain('temp_url_sig');
});

test.skipIf(missing)(
  'an application credential that may only read: signs in at the real Keystone',
  async () => {
    const { document } = await store.provision(['app'], { lifeMs: LIFE_MS });
    const prefix = (document.data.app?.url ?? '').split('?')[0] ?? '';
    const credential = await world.project.applicationCredential({
      access_rules: [{ service: 'object-store', method: 'GET', path: `${new URL(prefix).pathname}**` }],
    });
    const auth = { type: 'v3applicationcredential' as const, authUrl: world.project.authUrl, ...credential };
    const signed = await fetchInto({ version: 1, data: { app: { url: prefix, auth } } });
    expect(signed).toMatchObject({ status: 0 });
    expectEqual(signed.root);
    const wrong = await fetchInto({
      version: 1,
      data: { app: { url: prefix, auth: { ...auth, secret: 'wrong' } } },
    });
    expect(wrong.status).toBe(77);
    expect(wrong.text).toContain('Keystone refuses the application credential');
  },
);
