import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { FileStore } from '../../../drivers/stores/file.ts';
import { restoreFromStore } from '../../../pipeline/data/restore.ts';
import { listSets, nearestIds, requireManifest } from '../../../pipeline/data/sets.ts';
import { verifySet } from '../../../pipeline/data/verify.ts';
import { listTree, putSmallSet, SMALL_TREE } from '../../support/small-set.ts';

let dir: string;
let store: FileStore;
beforeEach(async () => {
  dir = await fs.mkdtemp(path.join(os.tmpdir(), 'sets-'));
  store = new FileStore(path.join(dir, 'store'));
});
afterEach(() => fs.rm(dir, { recursive: true, force: true }));

const at = (key: string) => path.join(dir, 'store', key);

test('list: complete, incomplete and broken sets side by side', async () => {
  const { manifest } = await putSmallSet(store, 'good');
  await putSmallSet(store, 'aborted');
  await fs.rm(at('aborted/manifest.json'));
  await putSmallSet(store, 'lost');
  await fs.rm(at('lost/segments/000002.tar.zst'));
  await putSmallSet(store, 'short');
  await fs.truncate(at('short/segments/000001.tar.zst'), 5);
  await fs.mkdir(at('garbled'));
  await fs.writeFile(at('garbled/manifest.json'), '{"id":"garbled","bytes":1e400}');
  await fs.mkdir(at('stranger'));
  await fs.copyFile(at('good/manifest.json'), at('stranger/manifest.json'));
  const rows = await listSets(store);
  expect(rows.map((r) => [r.id, r.state])).toEqual([
    ['aborted', 'incomplete'],
    ['garbled', 'damaged'],
    ['good', 'complete'],
    ['lost', 'damaged'],
    ['short', 'damaged'],
    ['stranger', 'damaged'],
  ]);
  const good = rows.find((r) => r.id === 'good');
  expect(manifest.segments.length).toBeGreaterThan(2);
  expect(good).toMatchObject({ path: '/srv', files: 6, segments: manifest.segments.length });
  expect(good?.storedBytes).toBeGreaterThan(2_300_000);
  expect(rows.find((r) => r.id === 'lost')?.reason).toBe('segments/000002.tar.zst is missing');
  expect(rows.find((r) => r.id === 'short')?.reason).toMatch(/000001.*has 5 bytes/);
  expect(rows.find((r) => r.id === 'stranger')?.reason).toContain('belongs to good');
});

test('an unknown id is told with the nearest ones', async () => {
  await putSmallSet(store, 'shop01-srv-0123456789', { tree: { x: 'y' } });
  await expect(requireManifest(store, 'shop01-srv-0123456780')).rejects.toMatchObject({
    code: 'USAGE',
    hint: 'did you mean shop01-srv-0123456789?',
  });
  await expect(requireManifest(store, 'shop01')).rejects.toMatchObject({
    hint: expect.stringContaining('did you'),
  });
  await expect(requireManifest(store, '../../etc\u001b[2J')).rejects.toMatchObject({
    code: 'USAGE',
    message: expect.not.stringContaining('\u001b'),
  });
  expect(nearestIds('zzz', ['shop01-srv-0123456789'])).toEqual([]);
  expect(nearestIds('', ['shop01-srv-0123456789'])).toEqual([]);
});

test('verify proves a whole set, and a sample of it', async () => {
  const { manifest, sha256 } = await putSmallSet(store, 'x');
  const seen: string[] = [];
  const result = await verifySet(store, 'x', { onProgress: (p) => seen.push(p.text) });
  expect(result).toMatchObject({ manifestSha256: sha256, entries: Object.keys(SMALL_TREE).length + 1 });
  expect(result.readSegments).toBe(manifest.segments.length);
  expect(result.readBytes).toBe(manifest.segments.reduce((sum, s) => sum + s.bytes, 0));
  expect(seen).toEqual(manifest.segments.map((s) => `x/${s.key}`));
  expect((await verifySet(store, 'x', { sampled: true })).readSegments).toBeGreaterThanOrEqual(2);
  await expect(verifySet(store, 'x', { manifestSha256: 'f'.repeat(64) })).rejects.toMatchObject({
    code: 'STORE_MISMATCH',
  });
});

test.each([
  ['a flipped bit', 'segments/000002.tar.zst'],
  ['a changed list of entries', 'entries.jsonl.zst'],
  ['changed digests', 'segments.sha256'],
])('verify names the object with %s', async (_, key) => {
  await putSmallSet(store, 'x');
  const bytes = await fs.readFile(at(`x/${key}`));
  const middle = bytes.length >> 1;
  bytes[middle] = (bytes[middle] ?? 0) ^ 1;
  await fs.writeFile(at(`x/${key}`), bytes);
  await expect(verifySet(store, 'x')).rejects.toMatchObject({
    code: 'STORE_MISMATCH',
    message: expect.stringContaining(`x/${key}`),
  });
});

test('verify sees a segment that is whole but holds something else, with the manifest fitted to it', async () => {
  await putSmallSet(store, 'x');
  await putSmallSet(store, 'y', { tree: { ...SMALL_TREE, 'app/config': 'port=81\n' } });
  const edit = async (change: (manifest: { segments: unknown[]; segmentsSha256: string }) => void) => {
    const manifest = JSON.parse(await fs.readFile(at('x/manifest.json'), 'utf8'));
    change(manifest);
    await fs.writeFile(at('x/manifest.json'), JSON.stringify(manifest));
  };
  const other = JSON.parse(await fs.readFile(at('y/manifest.json'), 'utf8'));
  await fs.copyFile(at('y/segments/000001.tar.zst'), at('x/segments/000001.tar.zst'));
  const sums = (await fs.readFile(at('x/segments.sha256'), 'utf8')).split('\n');
  sums[0] = `${other.segments[0].sha256}  segments/000001.tar.zst`;
  await fs.writeFile(at('x/segments.sha256'), sums.join('\n'));
  await edit((manifest) => {
    manifest.segments[0] = other.segments[0];
    manifest.segmentsSha256 = createHash('sha256').update(sums.join('\n')).digest('hex');
  });
  await expect(verifySet(store, 'x')).rejects.toMatchObject({
    code: 'STORE_MISMATCH',
    message: expect.stringMatching(/x\/segments\/000001\.tar\.zst: member app\/config came back different/),
  });
});

test('restore: the same tree again, and never outside the folder whatever the manifest says', async () => {
  const { sha256 } = await putSmallSet(store, 'x');
  const back = path.join(dir, 'back');
  let bytes = 0;
  await restoreFromStore(store, {
    id: 'x',
    dir: back,
    manifestSha256: `sha256:${sha256}`,
    onProgress: (p) => {
      bytes = p.doneBytes;
    },
  });
  expect(bytes).toBeGreaterThan(2_300_000);
  for (const [name, content] of Object.entries(SMALL_TREE)) {
    if (name.endsWith('/') || name === 'app/link') continue;
    expect((await fs.readFile(path.join(back, name))).equals(Buffer.from(content)), name).toBe(true);
  }
  expect(listTree(back)).toContain('config app/link');
  await expect(restoreFromStore(store, { id: 'x', dir: back })).rejects.toMatchObject({ code: 'USAGE' });
  await expect(
    restoreFromStore(store, { id: 'x', dir: path.join(dir, 'no'), manifestSha256: 'f'.repeat(64) }),
  ).rejects.toMatchObject({ code: 'STORE_MISMATCH' });
  await expect(restoreFromStore(store, { id: 'x', dir: path.join(dir, 'no', 'no') })).rejects.toMatchObject({
    code: 'USAGE',
  });
  const manifest = JSON.parse(await fs.readFile(at('x/manifest.json'), 'utf8'));
  manifest.segments[0].key = '../../outside';
  await fs.writeFile(at('x/manifest.json'), JSON.stringify(manifest));
  await expect(restoreFromStore(store, { id: 'x', dir: path.join(dir, 'evil') })).rejects.toMatchObject({
    code: 'UNSAFE_PATH',
  });
});

test.each([
  ['a folder that is a link', { x: '-> OUT', 'x/evil': 'data' }],
  ['a link up', { 'd/': '', 'd/x': '-> ../../outside', 'd/x/evil': 'data' }],
  ['a file that is a link', { 'a/': '', 'a/x': '-> OUT/evil' }],
])('a hostile set cannot write outside the folder: %s', async (_, tree) => {
  const outside = path.join(dir, 'outside');
  await fs.mkdir(outside);
  const placed = Object.fromEntries(Object.entries(tree).map(([k, v]) => [k, v.replace('OUT', outside)]));
  // a segment for each entry, so that the link is there before what goes through it
  await putSmallSet(store, 'x', { tree: placed, segmentBytes: 1 });
  await restoreFromStore(store, { id: 'x', dir: path.join(dir, 'back') }).catch(() => {});
  expect(await fs.readdir(outside)).toEqual([]);
});

test('a restore that cannot write ends with the cause, and leaves no scratch folder', async () => {
  await putSmallSet(store, 'x');
  const back = path.join(dir, 'back');
  const parent = await fs.readdir(dir);
  // no file system takes such a name, whoever runs this
  await putSmallSet(store, 'long', {
    tree: { 'd/': '', [`d/${'n'.repeat(300)}`]: 'x', 'e/': '' },
    segmentBytes: 1,
  });
  await expect(restoreFromStore(store, { id: 'long', dir: back })).rejects.toMatchObject({
    code: 'PROGRAM_FAILED',
    message: expect.stringMatching(/tar could not restore long\/segments\/.*File name too long/),
  });
  expect((await fs.readdir(dir)).sort()).toEqual([...parent, 'back'].sort());
});
