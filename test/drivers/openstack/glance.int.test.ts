import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import * as path from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeAll, expect, test } from 'vitest';
import { compareRemote } from '../../../drivers/openstack/upload/compare.ts';
import { uploadImage } from '../../../drivers/openstack/upload/index.ts';
import { stagingContainer } from '../../../drivers/openstack/upload/web-download.ts';
import { GlanceApi } from '../../../tools/openstack/glance.ts';
import type { GlanceImage } from '../../../tools/openstack/glance-types.ts';
import type { CloudSession } from '../../../tools/openstack/session.ts';
import { SwiftApi } from '../../../tools/openstack/swift.ts';
import { type Cloud, startCloud, type TestProject } from '../../support/cloud.ts';
import { digest, imageFile, openSession, uploadInput } from './glance-support.ts';

const run = promisify(execFile);
const MIB = 2 ** 20;
let cloud: Cloud;
let project: TestProject;
let session: CloudSession;
let glance: GlanceApi;

beforeAll(async () => {
  cloud = await startCloud();
});
// A project per test: what one leaves must not be another's older version.
async function begin(): Promise<void> {
  project = await cloud.project('glance');
  session = await openSession(project.cloudsYaml);
  glance = await GlanceApi.open(session);
}
afterEach(async () => {
  await session?.close();
  await project?.cleanup();
});

const client = async (...args: string[]) =>
  (await run(args[0] as string, args.slice(1), { env: project.env })).stdout;
async function all(filters: Record<string, string> = {}): Promise<GlanceImage[]> {
  const images: GlanceImage[] = [];
  for await (const image of glance.list({ owner: project.projectId, ...filters })) images.push(image);
  return images;
}

test('PUT: the openstack client shows and downloads what was sent', async () => {
  await begin();
  const image = imageFile(project.dir, 5 * MIB + 17);
  const input = uploadInput(image);
  const result = await uploadImage(session, input);
  expect(result).toMatchObject({
    method: 'put',
    verified: 'ok',
    bytes: image.content.length,
    visibility: 'private',
    replaced: [],
    hash: { algorithm: 'sha512', value: digest(image.content, 'sha512'), weak: false },
  });
  const shown = JSON.parse(await client('openstack', 'image', 'show', '-f', 'json', result.imageId));
  expect(shown).toMatchObject({
    name: 'shop',
    status: 'active',
    visibility: 'private',
    min_disk: 2,
    min_ram: 512,
    disk_format: 'raw',
    properties: {
      ...input.properties.properties,
      port_image_state: 'complete',
      port_image_sha256: digest(image.content),
    },
  });
  const saved = path.join(project.dir, 'saved');
  await client('openstack', 'image', 'save', '--file', saved, result.imageId);
  expect(digest(readFileSync(saved))).toBe(digest(image.content));
  expect(await client('glance', 'image-list')).toContain(result.imageId);
});

test.each([{ stores: ['slow'] }, { stores: ['fast', 'slow'] }, { stores: 'all' as const }])(
  'import into $stores',
  async ({ stores }) => {
    await begin();
    const image = imageFile(project.dir, MIB);
    const result = await uploadImage(session, uploadInput(image, { stores, method: 'import' }));
    expect(result).toMatchObject({ method: 'import', verified: 'ok' });
    expect(result.stores.toSorted()).toEqual(stores === 'all' ? ['fast', 'slow'] : stores);
  },
);

test('one named store is reached without an import; several are not', async () => {
  await begin();
  const image = imageFile(project.dir, MIB);
  const one = await uploadImage(session, uploadInput(image, { stores: ['slow'] }));
  expect(one).toMatchObject({ method: 'put', stores: ['slow'] });
  const two = await uploadImage(session, uploadInput(image, { stores: ['slow', 'fast'] }));
  expect(two.method).toBe('import');
});

test('web-download: through Swift, and nothing stays there', async () => {
  await begin();
  const image = imageFile(project.dir, MIB * 3);
  const input = uploadInput(image, { method: 'web-download' });
  const result = await uploadImage(session, input);
  expect(result).toMatchObject({ method: 'web-download', verified: 'ok', bytes: 3 * MIB });
  const swift = new SwiftApi(session);
  expect(await swift.headContainer(stagingContainer(input.jobId))).toBeUndefined();
  expect(JSON.stringify(await all())).not.toContain('temp_url_sig');
});

test('a converted image is read back where that is possible, and never called verified where it is not', async () => {
  await begin();
  const image = imageFile(project.dir, MIB);
  const { imageId } = await uploadImage(session, uploadInput(image));
  const kept = await glance.show(imageId);
  if (kept === undefined) throw new Error('no image');
  // As after an import that converts: we sent a qcow2, the cloud keeps raw.
  const sent = uploadInput(image, {}, { format: 'qcow2', bytes: 5, sha256: '0'.repeat(64) });
  expect(
    await compareRemote(glance, kept, { ...sent, rawSha256: async () => digest(image.content) }),
  ).toMatchObject({
    verified: 'ok',
    proof: expect.stringContaining('read back'),
  });
  await expect(
    compareRemote(glance, kept, { ...sent, rawSha256: async () => 'f'.repeat(64) }),
  ).rejects.toMatchObject({ code: 'CLOUD_MISMATCH' });
  expect(await compareRemote(glance, { ...kept, disk_format: 'vmdk' }, sent)).toMatchObject({
    verified: 'unverifiable',
    proof: expect.stringContaining('vmdk'),
  });
});
