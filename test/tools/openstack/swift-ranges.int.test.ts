import { createHash, randomBytes } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { loadCloud } from '../../../tools/openstack/config.ts';
import { CloudSession } from '../../../tools/openstack/session.ts';
import { SwiftApi } from '../../../tools/openstack/swift.ts';
import { putObject } from '../../../tools/openstack/swift-put.ts';
import { joinRanges, type RangePart } from '../../../tools/openstack/swift-ranges.ts';
import { CLOUD_NAME, startCloud, type TestProject } from '../../support/cloud.ts';

const CONTAINER = 'ranges';
const content = randomBytes(100_000);
let project: TestProject;
let session: CloudSession;
let swift: SwiftApi;
let whole: RangePart;

beforeAll(async () => {
  project = await (await startCloud()).project('swift-ranges');
  session = await CloudSession.open(
    await loadCloud(CLOUD_NAME, { OS_CLIENT_CONFIG_FILE: project.cloudsYaml }),
  );
  swift = new SwiftApi(session, { limits: { slo: { maxManifestSegments: 3, minSegmentBytes: 1 } } });
  await swift.ensureContainer(CONTAINER, 'test');
  const etag = createHash('md5').update(content).digest('hex');
  await putObject(swift, {
    container: CONTAINER,
    name: 'pack',
    bytes: content.length,
    content: async function* () {
      yield content;
    },
  });
  whole = { name: 'pack', bytes: content.length, etag };
});
afterAll(async () => {
  await session?.close();
  await project?.cleanup();
});

async function read(name: string): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const chunk of await swift.getObject(CONTAINER, name)) parts.push(chunk as Buffer);
  return Buffer.concat(parts);
}

test('ranges of one object in any order, in manifests over manifests', async () => {
  const ranges = Array.from({ length: 11 }, (_, n) => ({ offset: (10 - n) * 9000, length: 1 + n * 700 }));
  const parts = [whole, ...ranges.map((range) => ({ ...whole, range }))];
  const inner = await joinRanges(swift, CONTAINER, 'joined', parts);
  expect(inner.length).toBeGreaterThan(4);
  const wanted = [content, ...ranges.map(({ offset, length }) => content.subarray(offset, offset + length))];
  expect((await read('joined')).equals(Buffer.concat(wanted))).toBe(true);
  for (const name of inner) expect(await swift.headObject(CONTAINER, name)).toBeDefined();
});

test('a part that is not what was said is refused', async () => {
  const other = { ...whole, etag: createHash('md5').update('other').digest('hex') };
  const range = { offset: 0, length: 10 };
  await expect(joinRanges(swift, CONTAINER, 'wrong', [{ ...other, range }])).rejects.toThrow(
    /manifest of wrong/,
  );
});
