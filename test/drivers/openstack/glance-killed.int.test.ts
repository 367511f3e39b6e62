import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import * as path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { uploadImage } from '../../../drivers/openstack/upload/index.ts';
import { stagingContainer } from '../../../drivers/openstack/upload/web-download.ts';
import { GlanceApi } from '../../../tools/openstack/glance.ts';
import type { CloudSession } from '../../../tools/openstack/session.ts';
import { SwiftApi } from '../../../tools/openstack/swift.ts';
import { type Cloud, startCloud, type TestProject } from '../../support/cloud.ts';
import { type Action, type FaultProxy, startFaultProxy } from '../../support/fault-proxy.ts';
import { imageFile, imagesNamed, openSession, uploadInput } from './glance-support.ts';

const MIB = 2 ** 20;
const CHILD = fileURLToPath(new URL('./glance-child.ts', import.meta.url));
const ONE = /\/v2\/images\/[0-9a-f-]{36}$/;
let cloud: Cloud;
let project: TestProject;
let proxy: FaultProxy;
let swiftProxy: FaultProxy;
let session: CloudSession;
let glance: GlanceApi;
let through = '';

beforeAll(async () => {
  cloud = await startCloud();
  proxy = await startFaultProxy(cloud.imageUrl);
  swiftProxy = await startFaultProxy(cloud.objectStoreUrl);
  project = await cloud.project('glance-killed');
  through = project.writeClouds('proxy.yaml', { image: proxy.url, objectStore: swiftProxy.url });
  session = await openSession(project.cloudsYaml);
  glance = await GlanceApi.open(session);
});
afterEach(() => {
  proxy.reset();
  swiftProxy.reset();
});
afterAll(async () => {
  await session?.close();
  await proxy?.close();
  await swiftProxy?.close();
  await project?.cleanup();
});

const named = (name: string) => imagesNamed(glance, name);

const HOLD_ANSWER: Action = { stallResponse: { bytes: 0 } };
/** Where the process hangs when it is killed; the service has done what `HOLD_ANSWER` holds back. */
const STEPS: readonly {
  step: string;
  on: 'image' | 'swift';
  match: { method: string; path: RegExp };
  action: Action;
  method?: 'put' | 'import' | 'web-download';
}[] = [
  {
    step: 'after the creation',
    on: 'image',
    match: { method: 'POST', path: /\/v2\/images$/ },
    action: HOLD_ANSWER,
  },
  {
    step: 'in the middle of the content',
    on: 'image',
    match: { method: 'PUT', path: /\/file$/ },
    action: { stallRequest: { fraction: 0.5 } },
  },
  { step: 'after the content', on: 'image', match: { method: 'PUT', path: /\/file$/ }, action: HOLD_ANSWER },
  {
    step: 'before the properties',
    on: 'image',
    match: { method: 'PATCH', path: ONE },
    action: { stall: true },
  },
  { step: 'after the properties', on: 'image', match: { method: 'PATCH', path: ONE }, action: HOLD_ANSWER },
  {
    step: 'in the middle of staging',
    method: 'import',
    on: 'image',
    match: { method: 'PUT', path: /\/stage$/ },
    action: { stallRequest: { fraction: 0.5 } },
  },
  {
    step: 'after the start of the import',
    method: 'import',
    on: 'image',
    match: { method: 'POST', path: /\/import$/ },
    action: HOLD_ANSWER,
  },
  {
    step: 'on the way into Swift',
    method: 'web-download',
    on: 'swift',
    match: { method: 'PUT', path: /port-image-upload.*raw/ },
    action: { stallRequest: { fraction: 0.5 } },
  },
  {
    step: 'after Swift has it',
    method: 'web-download',
    on: 'image',
    match: { method: 'POST', path: /\/v2\/images$/ },
    action: HOLD_ANSWER,
  },
];

test.each(STEPS)('killed $step: nothing is public, the next run completes it', async (row) => {
  const { step, on, match, action, method = 'put' } = row;
  const name = `img-${STEPS.indexOf(row)}`;
  const image = imageFile(project.dir, 4 * MIB, `${name}.raw`);
  const request = { method, visibility: 'community' as const };
  const jobId = `job${STEPS.indexOf(row)}`;
  const job = path.join(project.dir, `${name}.json`);
  writeFileSync(
    job,
    JSON.stringify({ cloudsYaml: through, file: image.file, request, fields: { name, jobId } }),
  );
  const at = on === 'image' ? proxy : swiftProxy;
  at.on({ ...match, times: 1 }, action);
  const child = spawn(process.execPath, [CHILD, job], { stdio: ['ignore', 'ignore', 'pipe'] });
  const errors: string[] = [];
  child.stderr.on('data', (text) => errors.push(String(text)));
  while (!at.requests.some((r) => r.faulty)) {
    if (child.exitCode !== null) throw new Error(`the child ended before ${step}: ${errors.join('')}`);
    await sleep(20);
  }
  // The service does what it was asked for: its answer is at the proxy, or it hangs in the middle like us.
  while (action === HOLD_ANSWER && at.requests.some((r) => r.faulty && r.status === undefined))
    await sleep(20);
  if (action !== HOLD_ANSWER) await sleep(500);
  expect(child.exitCode, errors.join('')).toBeNull();
  child.kill('SIGKILL');
  await once(child, 'close');
  at.reset();
  for (const left of await named(name)) expect(left.visibility).toBe('private');

  const result = await uploadImage(session, uploadInput(image, request, { name, jobId }));
  expect(result.verified).toBe('ok');
  expect(
    (await named(name)).map((i) => [i.id, i.status, i.visibility, i.port_image_state, i.os_hidden]),
  ).toEqual([[result.imageId, 'active', 'community', 'complete', false]]);
  expect(await new SwiftApi(session).headContainer(stagingContainer(jobId))).toBeUndefined();
});

test('what another job left is left alone', async () => {
  const image = imageFile(project.dir, MIB, 'other.raw');
  const other = await glance.create({
    id: randomUUID(),
    name: 'other',
    disk_format: 'raw',
    container_format: 'bare',
    visibility: 'private',
    port_image_job: 'somebody-else',
    port_image_id: 'other-1',
    port_image_state: 'in-progress',
  });
  const result = await uploadImage(session, uploadInput(image, {}, { name: 'other' }));
  expect((await named('other')).map((i) => i.id).toSorted()).toEqual([other.id, result.imageId].toSorted());
});
