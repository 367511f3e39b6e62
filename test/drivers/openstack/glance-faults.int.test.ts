import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { type UploadInput, uploadImage } from '../../../drivers/openstack/upload/index.ts';
import { GlanceApi } from '../../../tools/openstack/glance.ts';
import { downloadContent } from '../../../tools/openstack/glance-content.ts';
import { CloudSession } from '../../../tools/openstack/session.ts';
import { type Cloud, startCloud, type TestProject } from '../../support/cloud.ts';
import { type FaultProxy, startFaultProxy } from '../../support/fault-proxy.ts';
import { digest, imageFile, imagesNamed, newName, openSession, uploadInput } from './glance-support.ts';

const MIB = 2 ** 20;
const STALL_MS = 1500;
const FILE = /\/file$/;
let cloud: Cloud;
let project: TestProject;
let proxy: FaultProxy;
let session: CloudSession;
let direct: CloudSession;
let glance: GlanceApi;

beforeAll(async () => {
  cloud = await startCloud();
  proxy = await startFaultProxy(cloud.imageUrl);
  project = await cloud.project('glance-faults', { endpoints: { image: proxy.url } });
  session = await openSession(project.cloudsYaml, STALL_MS);
  direct = await openSession(project.writeClouds('direct.yaml', {}));
  glance = await GlanceApi.open(direct);
});
afterEach(() => proxy.reset());
afterAll(async () => {
  await session?.close();
  await direct?.close();
  await proxy?.close();
  await project?.cleanup();
});

const named = (name: string) => imagesNamed(glance, name);

/** One image of that name, with the bytes of the file as Glance gives them. */
async function expectWhole(input: UploadInput, content: Buffer): Promise<void> {
  const images = await named(input.name);
  expect(images.map((i) => [i.status, i.visibility, i.port_image_state])).toEqual([
    ['active', 'private', 'complete'],
  ]);
  const answer = await downloadContent(glance, images[0]?.id ?? '');
  const parts: Buffer[] = [];
  for await (const part of answer.body) parts.push(part as Buffer);
  expect(digest(Buffer.concat(parts))).toBe(digest(content));
}

const whole = (request = {}, fields: Partial<UploadInput> = {}, bytes = 3 * MIB + 5) => {
  const name = newName();
  const image = imageFile(project.dir, bytes, `${name}.raw`);
  return { image, input: uploadInput(image, request, { name, ...fields }) };
};

test.each([
  ['cut at 1 %', { cutRequest: { fraction: 0.01 } }],
  ['cut at 50 %', { cutRequest: { fraction: 0.5 } }],
  ['cut at 99 %', { cutRequest: { fraction: 0.99 } }],
  ['cut before the answer', { cutResponse: { bytes: 0 } }],
  ['stalled half-way', { stallRequest: { fraction: 0.5 } }],
  ['401', { status: 401, early: true }],
  ['409', { status: 409 }],
  ['429 with Retry-After', { status: 429, headers: { 'retry-after': '1' } }],
  ['503', { status: 503 }],
])('the upload survives: %s', async (_, action) => {
  // The rest of a small stalled body fits into socket buffers: then it is the answer that does not come.
  const { image, input } = whole({}, { answerTimeoutMs: 5000 });
  proxy.on({ method: 'PUT', path: FILE, times: 1 }, action);
  const result = await uploadImage(session, input);
  expect(result).toMatchObject({ verified: 'ok', method: 'put' });
  expect(proxy.requests.filter((r) => r.faulty)).toHaveLength(1);
  await expectWhole(input, image.content);
});

test('bursts of 503 and cut answers on every kind of request', async () => {
  const { image, input } = whole();
  for (const [method, path] of [
    ['GET', /\/v2\/info\//],
    ['GET', /\/v2\/images\?/],
    ['POST', /\/v2\/images$/],
    ['PATCH', /\/v2\/images\//],
    ['GET', /\/v2\/images\/[0-9a-f-]{36}$/],
  ] as const) {
    proxy.on({ method, path, times: 2 }, { status: 503 });
    proxy.on({ method, path, times: 1 }, { cutResponse: { bytes: 0 } });
    proxy.on({ method, path, times: 1 }, { cutResponse: { fraction: 0.5 } });
  }
  await uploadImage(session, input);
  expect(proxy.requests.filter((r) => r.faulty).length).toBeGreaterThanOrEqual(16);
  await expectWhole(input, image.content);
});

test('a damaged byte on the way: refused, and nothing stays', async () => {
  const { input } = whole();
  proxy.on({ method: 'PUT', path: FILE }, { flipRequestByte: MIB + 3 });
  await expect(uploadImage(session, input)).rejects.toMatchObject({
    code: 'CLOUD_MISMATCH',
    message: expect.stringContaining('sha512'),
  });
  expect(await named(input.name)).toEqual([]);
});

test('the file changed since it was encoded: refused, and nothing stays', async () => {
  const { input } = whole({}, { sha256: '0'.repeat(64) });
  await expect(uploadImage(session, input)).rejects.toMatchObject({ code: 'JOB_TAMPERED' });
  expect(await named(input.name)).toEqual([]);
});

test('too large for the cloud: said at once, not tried again, nothing stays', async () => {
  const { input } = whole();
  proxy.on({ method: 'PUT', path: FILE }, { status: 413, early: true, body: 'Image exceeds the limit' });
  await expect(uploadImage(session, input)).rejects.toMatchObject({
    code: 'CLOUD_REFUSED',
    message: expect.stringContaining('larger than this cloud takes'),
  });
  expect(proxy.count({ method: 'PUT', path: FILE })).toBe(1);
  expect(await named(input.name)).toEqual([]);
});

test('refused properties: the bytes stay, private and marked, and the next run sends none', async () => {
  const { input } = whole();
  proxy.on({ method: 'PATCH' }, { status: 403 });
  await expect(uploadImage(session, input)).rejects.toMatchObject({ code: 'CLOUD_REFUSED' });
  // The bytes are right, so they are kept for the next run, private and marked.
  expect((await named(input.name)).map((i) => [i.visibility, i.port_image_state])).toEqual([
    ['private', 'in-progress'],
  ]);
  proxy.reset();
  const result = await uploadImage(session, input);
  expect(proxy.count({ method: 'PUT', path: FILE })).toBe(0);
  expect((await named(input.name)).map((i) => i.id)).toEqual([result.imageId]);
});

test('an interrupt in the middle of the upload takes the image away', async () => {
  const abort = new AbortController();
  const { input } = whole({}, { signal: abort.signal }, 8 * MIB);
  proxy.on({ method: 'PUT', path: FILE }, { bytesPerS: 2 * MIB });
  input.onProgress = ({ doneBytes }) => {
    if ((doneBytes ?? 0) > 2 * MIB) abort.abort();
  };
  await expect(uploadImage(session, input)).rejects.toMatchObject({ code: 'INTERRUPTED' });
  expect(await named(input.name)).toEqual([]);
});

test('an import whose staging is cut, and whose start is not answered', async () => {
  const { image, input } = whole({ method: 'import', stores: ['fast', 'slow'] });
  proxy.on({ method: 'PUT', path: /\/stage$/, times: 1 }, { cutRequest: { fraction: 0.5 } });
  proxy.on({ method: 'POST', path: /\/import$/, times: 1 }, { cutResponse: { bytes: 0 } });
  const result = await uploadImage(session, input);
  expect(result.stores.toSorted()).toEqual(['fast', 'slow']);
  await expectWhole(input, image.content);
});

test('a failed web-download falls back to queued: that is a failure, with the reason', async () => {
  const swiftProxy = await startFaultProxy(cloud.objectStoreUrl);
  const clouds = project.writeClouds('swift.yaml', { objectStore: swiftProxy.url });
  const through = await openSession(clouds);
  try {
    // Our requests carry a token, Glance's have the signature in the URL.
    swiftProxy.on({ method: 'GET', path: /temp_url_sig/ }, { status: 404 });
    const { input } = whole({ method: 'web-download' });
    await expect(uploadImage(through, input)).rejects.toMatchObject({
      code: 'CLOUD',
      message: expect.stringMatching(/could not import/),
    });
    expect(await named(input.name)).toEqual([]);
  } finally {
    await through.close();
    await swiftProxy.close();
  }
});

test('a token that is refused after the content is renewed', async () => {
  const config = { ...session.config };
  const short = await CloudSession.open(config);
  try {
    const { image, input } = whole();
    // Every request after the content meets a token that is not valid any more.
    proxy.on({ method: 'PATCH', times: 1 }, { status: 401 });
    proxy.on({ method: 'GET', path: /\/v2\/images\/[0-9a-f-]{36}$/, times: 1 }, { status: 401 });
    await uploadImage(short, input);
    await expectWhole(input, image.content);
  } finally {
    await short.close();
  }
});
