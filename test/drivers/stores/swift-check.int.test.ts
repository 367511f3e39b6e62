import { afterAll, beforeAll, expect, test } from 'vitest';
import { SwiftStore } from '../../../drivers/stores/swift.ts';
import { loadCloud } from '../../../tools/openstack/config.ts';
import { CloudSession } from '../../../tools/openstack/session.ts';
import { CLOUD_NAME } from '../../support/cloud.ts';
import { type SwiftWorld, swiftWorld } from './swift-world.ts';

let world: SwiftWorld;
beforeAll(async () => {
  world = await swiftWorld('check');
});
afterAll(() => world?.close());

test('a login that may write passes and leaves nothing', async () => {
  await world.store('checked').check(2 ** 40);
  const api = await world.api();
  for await (const name of api.listContainers('')) expect(name).toBe('none');
});

test('a role that may not write is refused before anything is sent', async () => {
  const reader = await world.cloud.project('reader', { roles: ['reader'] });
  const env = { OS_CLIENT_CONFIG_FILE: reader.cloudsYaml };
  const store = new SwiftStore('', { open: async () => CloudSession.open(await loadCloud(CLOUD_NAME, env)) });
  try {
    await expect(store.check(1)).rejects.toMatchObject({
      code: 'CLOUD_REFUSED',
      hint: expect.stringContaining('reader'),
    });
  } finally {
    await store.close();
    await reader.cleanup();
  }
});

test('a quota of the project is named', async () => {
  const headers = { 'x-account-meta-quota-bytes': '1048576' };
  world.proxy.on({ method: 'HEAD', path: /AUTH_[0-9a-f]+$/ }, { headers });
  await world.store('checked').check(1000);
  await expect(world.store('checked').check(2 ** 30)).rejects.toMatchObject({
    code: 'CLOUD_REFUSED',
    message: expect.stringContaining('quota of 1.0 MiB'),
  });
});

test('an interrupt ends a call that has no signal of its own, though the service is silent', async () => {
  const env = { OS_CLIENT_CONFIG_FILE: world.project.cloudsYaml };
  const stop = new AbortController();
  const store = new SwiftStore('', {
    open: async () => CloudSession.open(await loadCloud(CLOUD_NAME, env), { signal: stop.signal }),
  });
  try {
    await store.check(1);
    world.proxy.reset();
    world.proxy.on({ method: 'HEAD' }, { stall: true });
    const asked = store.head('a/manifest.json');
    setTimeout(() => stop.abort(), 200);
    await expect(asked).rejects.toMatchObject({ code: 'INTERRUPTED' });
  } finally {
    world.proxy.reset();
    await store.close();
  }
});
