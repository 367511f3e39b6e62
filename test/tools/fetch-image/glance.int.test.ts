import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import * as path from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { fetchImage, planFetch } from '../../../tools/fetch-image/index.ts';
import { loadCloud } from '../../../tools/openstack/config.ts';
import { GlanceApi } from '../../../tools/openstack/glance.ts';
import { putContent } from '../../../tools/openstack/glance-content.ts';
import { CloudSession } from '../../../tools/openstack/session.ts';
import { CLOUD_NAME, startCloud, type TestProject } from '../../support/cloud.ts';
import { type FaultProxy, startFaultProxy } from '../../support/fault-proxy.ts';

const content = randomBytes(3 * 2 ** 20 + 5);
const id = randomUUID();
const empty = randomUUID();
let project: TestProject;
let proxy: FaultProxy;
let session: CloudSession;
let env: NodeJS.ProcessEnv;

beforeAll(async () => {
  const cloud = await startCloud();
  proxy = await startFaultProxy(cloud.imageUrl);
  project = await cloud.project('fetch-image', { endpoints: { image: proxy.url } });
  env = { HOME: project.dir, OS_CLIENT_CONFIG_FILE: project.cloudsYaml };
  session = await CloudSession.open(await loadCloud(CLOUD_NAME, env));
  const glance = await GlanceApi.open(session);
  const format = { disk_format: 'raw', container_format: 'bare', visibility: 'private' } as const;
  await glance.create({ id, name: 'whole', ...format });
  await putContent(glance, id, 'file', {
    bytes: content.length,
    body: async function* () {
      yield content;
    },
  });
  await glance.create({ id: empty, name: 'queued', ...format });
});
afterEach(() => proxy.reset());
afterAll(async () => {
  await session?.close();
  await proxy?.close();
  await project?.cleanup();
});

const plan = (image: string) => planFetch({ kind: 'glance', cloud: CLOUD_NAME, id: image }, { env });

test('an image is fetched, continued after a cut and compared with the hash of Glance', async () => {
  const planned = await plan(id);
  expect(planned).toMatchObject({ facts: { sizeBytes: content.length }, diskFormat: 'raw', warnings: [] });
  expect(planned.digests).toEqual([
    { algorithm: 'sha512', hex: createHash('sha512').update(content).digest('hex') },
  ]);
  proxy.on({ path: /\/file$/, times: 1 }, { cutResponse: { bytes: 2 * 2 ** 20 } });
  const target = path.join(project.dir, 'image');
  const fetched = await fetchImage(planned, target);
  await planned.origin.close();
  expect(fetched.verified).toBe(true);
  expect(readFileSync(target).equals(content)).toBe(true);
  const downloads = proxy.requests.filter((one) => one.path.endsWith('/file') && one.method === 'GET');
  expect(downloads.map((one) => one.status)).toEqual([200, 206]);
});

test('a flipped byte is DAMAGED', async () => {
  const planned = await plan(id);
  proxy.on({ path: /\/file$/ }, { flipResponseByte: 4711 });
  await expect(fetchImage(planned, path.join(project.dir, 'bad'))).rejects.toMatchObject({ code: 'DAMAGED' });
  await planned.origin.close();
});

test('an image without content and one that is not there are refused', async () => {
  await expect(plan(empty)).rejects.toThrow('queued, not active');
  await expect(plan(randomUUID())).rejects.toThrow('no such image');
});
