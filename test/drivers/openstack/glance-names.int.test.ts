import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { GlanceRequest } from '../../../drivers/openstack/options.ts';
import { uploadImage } from '../../../drivers/openstack/upload/index.ts';
import { type PlanInput, planUpload } from '../../../drivers/openstack/upload/plan.ts';
import { clearStaging, stagingContainer } from '../../../drivers/openstack/upload/web-download.ts';
import { GlanceApi } from '../../../tools/openstack/glance.ts';
import type { CloudSession } from '../../../tools/openstack/session.ts';
import { SwiftApi } from '../../../tools/openstack/swift.ts';
import { CLOUD_NAME, type Cloud, startCloud, type TestProject } from '../../support/cloud.ts';
import { startFaultProxy } from '../../support/fault-proxy.ts';
import { imageFile, imagesNamed, newName, openSession, uploadInput } from './glance-support.ts';

const MIB = 2 ** 20;
let cloud: Cloud;
let project: TestProject;
let session: CloudSession;
let glance: GlanceApi;

beforeAll(async () => {
  cloud = await startCloud();
  project = await cloud.project('glance-names');
  session = await openSession(project.cloudsYaml);
  glance = await GlanceApi.open(session);
});
afterAll(async () => {
  await session?.close();
  await project?.cleanup();
});

const named = (name: string) => imagesNamed(glance, name);

/** An upload of its own job; fresh bytes each time. */
async function upload(name: string, request: Partial<GlanceRequest> = {}) {
  const input = uploadInput(imageFile(project.dir, MIB / 2, `${name}.raw`), request, { name });
  return uploadImage(session, input);
}

function plan(request: Partial<GlanceRequest> = {}, fields: Partial<PlanInput> = {}, by = session) {
  const warnings: string[] = [];
  const planned = planUpload(by, {
    name: newName(),
    request: GlanceRequest.parse({ cloud: CLOUD_NAME, ...request }),
    jobId: 'plan',
    bytes: 0,
    signal: new AbortController().signal,
    warn: (text) => warnings.push(text),
    ...fields,
  });
  return planned.then((done) => ({ ...done, warnings }));
}

async function foreign(name: string): Promise<string> {
  const { id } = await glance.create({
    id: crypto.randomUUID(),
    name,
    disk_format: 'raw',
    container_format: 'bare',
    visibility: 'private',
  });
  return id;
}

test('new-version hides the older one and leaves strangers alone', async () => {
  const name = newName();
  const stranger = await foreign(name);
  const first = await upload(name, { protected: true });
  const planned = await plan({}, { name });
  expect(planned.replaces).toEqual([first.imageId]);
  expect(planned.warnings.join()).toContain(stranger);
  const second = await upload(name);
  expect(second.replaced).toEqual([{ id: first.imageId, action: 'hidden' }]);
  const images = await named(name);
  expect(Object.fromEntries(images.map((i) => [i.id, i.os_hidden]))).toEqual({
    [stranger]: false,
    [first.imageId]: true,
    [second.imageId]: false,
  });
});

test('replace removes the older one, and a protected one is refused in the plan', async () => {
  const name = newName();
  const first = await upload(name);
  const second = await upload(name, { onExists: 'replace', protected: true });
  expect(second.replaced).toEqual([{ id: first.imageId, action: 'deleted' }]);
  expect((await named(name)).map((i) => i.id)).toEqual([second.imageId]);
  await expect(plan({ onExists: 'replace' }, { name })).rejects.toMatchObject({
    code: 'CLOUD_REFUSED',
    message: expect.stringContaining(second.imageId),
  });
});

test('fail refuses in the plan and, for one made since, before anything is published', async () => {
  const name = newName();
  const first = await upload(name);
  await expect(plan({ onExists: 'fail' }, { name })).rejects.toMatchObject({ code: 'CLOUD_CONFLICT' });
  await expect(upload(name, { onExists: 'fail' })).rejects.toMatchObject({ code: 'CLOUD_CONFLICT' });
  const complete = (await named(name)).filter((i) => i.port_image_state === 'complete');
  expect(complete.map((i) => i.id)).toEqual([first.imageId]);
});

test('the same job again finds its image and sends nothing', async () => {
  const name = newName();
  const input = uploadInput(imageFile(project.dir, MIB, `${name}.raw`), {}, { name });
  const first = await uploadImage(session, input);
  const progress: number[] = [];
  input.onProgress = ({ doneBytes }) => progress.push(doneBytes ?? 0);
  const second = await uploadImage(session, input);
  expect(second.imageId).toBe(first.imageId);
  expect(progress).toEqual([]);
  expect((await named(name)).map((i) => i.id)).toEqual([first.imageId]);
});

test('shared with another project, and that one sees it', async () => {
  const other = await cloud.project('glance-member');
  const theirs = await openSession(other.cloudsYaml);
  try {
    const name = newName();
    const made = await upload(name, { visibility: 'shared', members: [other.projectId] });
    expect(made.visibility).toBe('shared');
    expect((await (await GlanceApi.open(theirs)).show(made.imageId))?.name).toBe(name);
  } finally {
    await theirs.close();
    await other.cleanup();
  }
});

test('what the plan refuses, by name, and it leaves no image', async () => {
  const name = newName();
  await expect(plan({ stores: ['nowhere'] }, { name })).rejects.toMatchObject({
    code: 'CLOUD_REFUSED',
    message: expect.stringContaining('nowhere'),
    hint: expect.stringContaining('fast, slow'),
  });
  await expect(plan({ method: 'put', stores: 'all' }, { name })).rejects.toMatchObject({ code: 'USAGE' });
  await expect(plan({ visibility: 'public' }, { name })).rejects.toMatchObject({
    code: 'CLOUD_REFUSED',
    message: expect.stringContaining('public'),
    hint: expect.stringContaining('member'),
  });
  await expect(
    plan({ signKey: '/nowhere/key.pem', signCertificate: randomUUID() }, { name }),
  ).rejects.toMatchObject({ code: 'CONFIG' });
  expect(await named(name)).toEqual([]);
});

test('what the plan allows leaves no image either', async () => {
  const name = newName();
  expect(await plan({ visibility: 'community' }, { name })).toMatchObject({ method: 'put', replaces: [] });
  expect(await plan({ stores: 'all' }, { name })).toMatchObject({ method: 'import' });
  expect(await plan({ method: 'web-download' }, { name })).toMatchObject({ method: 'web-download' });
  expect(await plan({}, { name, bytes: 20 * 2 ** 30 })).toMatchObject({ method: 'web-download' });
  expect(await named(name)).toEqual([]);
});

test('a login without a role to write, and a quota of properties, are refused in the plan', async () => {
  // Glance's own defaults still let every role write, so its refusals are put in between.
  const proxy = await startFaultProxy(cloud.imageUrl);
  const theirs = await openSession(project.writeClouds('proxy.yaml', { image: proxy.url }));
  try {
    const match = { method: 'POST', path: /\/v2\/images$/, times: 1 };
    proxy.on(match, { status: 403, body: 'You are not authorized to complete add_image action.' });
    await expect(plan({}, {}, theirs)).rejects.toMatchObject({
      code: 'CLOUD_REFUSED',
      message: expect.stringContaining('add_image'),
      hint: expect.stringContaining('member'),
    });
    proxy.reset();
    proxy.on(match, {
      status: 413,
      body: 'The limit has been exceeded on the number of allowed image properties.',
    });
    await expect(plan({}, {}, theirs)).rejects.toMatchObject({
      code: 'CLOUD_REFUSED',
      hint: expect.stringContaining('image_property_quota'),
    });
  } finally {
    await theirs.close();
    await proxy.close();
  }
});

test('what refuses the plan is told, also when the image it tried with cannot be removed', async () => {
  const proxy = await startFaultProxy(cloud.imageUrl);
  const theirs = await openSession(project.writeClouds('proxy.yaml', { image: proxy.url }));
  const warnings: string[] = [];
  try {
    proxy.on(
      { method: 'DELETE', path: /\/v2\/images\//, times: 1 },
      { status: 403, body: 'not authorized to complete delete_image action.' },
    );
    const refused = plan(
      { visibility: 'public' },
      { jobId: newName(), warn: (text) => warnings.push(text) },
      theirs,
    );
    await expect(refused).rejects.toMatchObject({ message: expect.stringContaining('public') });
    expect(warnings.join()).toContain('may be left behind');
  } finally {
    await theirs.close();
    await proxy.close();
  }
});

test('a container of the staging name that is not ours keeps its content', async () => {
  const swift = new SwiftApi(session);
  const input = uploadInput(imageFile(project.dir, MIB / 2, `${newName()}.raw`));
  const container = stagingContainer(input.jobId);
  await swift.send(swift.url(container), { method: 'PUT', what: 'container' });
  await swift.putFile(container, 'theirs', input.file);
  await clearStaging(swift, input, input.signal);
  expect((await swift.headObject(container, 'theirs'))?.bytes).toBe(input.bytes);
  expect(input.warnings).toEqual([]);
});

test('a used up quota is refused in the plan', async () => {
  const proxy = await startFaultProxy(cloud.imageUrl);
  const theirs = await openSession(project.writeClouds('proxy.yaml', { image: proxy.url }));
  const usage = (body: object) =>
    proxy.on(
      { method: 'GET', path: /info\/usage$/, times: 1 },
      { status: 200, body: JSON.stringify({ usage: body }) },
    );
  try {
    usage({ image_size_total: { limit: 1000, usage: 900 } });
    await expect(plan({}, { bytes: 200 * MIB }, theirs)).rejects.toThrow('900 of 1000 MiB');
    usage({ image_count_total: { limit: 10, usage: 10 } });
    await expect(plan({}, {}, theirs)).rejects.toThrow('10 of 10');
    usage({ image_count_total: { limit: -1, usage: 10 }, image_size_total: { limit: -1, usage: 5 } });
    expect(await plan({}, {}, theirs)).toMatchObject({ method: 'put' });
  } finally {
    await theirs.close();
    await proxy.close();
  }
});
