import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { tableLines } from '../../cli/table.ts';
import { FileStore } from '../../drivers/stores/file.ts';
import { runCli } from '../support/cli.ts';
import { putSmallSet } from '../support/small-set.ts';

// each call is a process of its own, and several share the machine
vi.setConfig({ testTimeout: 180_000 });

let dir: string;
let store: FileStore;
const data = (...args: string[]) =>
  runCli(['data', ...args], {
    env: { PORT_IMAGE_STORE: `file:${dir}/store`, PORT_IMAGE_JOBS: `${dir}/jobs` },
  });
beforeEach(async () => {
  dir = await fs.mkdtemp(path.join(os.tmpdir(), 'data-cli-'));
  store = new FileStore(path.join(dir, 'store'));
});
afterEach(() => fs.rm(dir, { recursive: true, force: true }));

/** Makes everything below a folder so many hours old. */
async function age(folder: string, hours: number): Promise<void> {
  const then = Date.now() / 1000 - hours * 3600;
  for (const name of await fs.readdir(folder, { recursive: true })) {
    await fs.utimes(path.join(folder, name), then, then);
  }
}

test('list, show and verify, for people and as JSON', async () => {
  await putSmallSet(store, 'shop', { path: '/srv/\u001b[31mred' });
  await fs.mkdir(path.join(dir, 'store/broken'));
  await fs.writeFile(path.join(dir, 'store/broken/manifest.json'), '{"path":"\u001b[2J"}');
  const list = await data('list');
  expect(list.exitCode).toBe(0);
  expect(list.stdout).toMatch(
    /^ID +STATE +PATH.*\nbroken +damaged.*\nshop +complete +\/srv\/\\x1b\[31mred +6 /,
  );
  expect(list.stdout + list.stderr).not.toContain('\u001b');
  expect((await data('list', '--json')).json()).toMatchObject([
    { id: 'broken', state: 'damaged', complete: false },
    { id: 'shop', state: 'complete', complete: true, files: 6, modified: expect.stringMatching(/^20/) },
  ]);
  const files = await data('show', 'shop', '--files');
  expect(files.stdout).toContain('app/new\\x0aline\\x1b[31m');
  expect(files.stdout).toMatch(/^-0640 \d+:\d+ +8 app\/config$/m);
  expect(files.stdout).toMatch(/^l0777 .* app\/link -> config$/m);
  expect(files.stdout).not.toContain('\u001b');
  expect((await data('show', 'shop', '--files', '--json')).json()).toMatchObject({
    id: 'shop',
    files: expect.arrayContaining([expect.objectContaining({ name: 'app/config', mode: 0o640 })]),
  });
  const verified = await data('verify', '--all', '--json');
  expect(verified.exitCode).toBe(6);
  expect(verified.json()).toMatchObject([
    { id: 'broken', ok: false },
    { id: 'shop', ok: true },
  ]);
  await fs.truncate(path.join(dir, 'store/shop/segments/000001.tar.zst'), 100);
  const damaged = await data('verify', 'shop');
  expect(damaged.exitCode).toBe(6);
  expect(damaged.stderr).toMatch(/segments\/000001\.tar\.zst has 100 bytes.*\[STORE_MISMATCH\]/);
});

describe('one clear line', () => {
  test.each([
    ['no store', ['list', '--store', ''], /no data store named/],
    ['unknown kind of store', ['list', '--store', 'ftp:x'], /not a data store/],
    ['unknown set', ['show', 'shpo'], /no data set shpo.*\n {2}hint: did you mean shop\?/],
    ['no set to verify', ['verify'], /--all/],
    ['minting from a folder', ['mint', 'shop'], /cannot make URLs.*\n {2}hint: only an object store/],
    ['revoking in a folder', ['revoke', 'shop'], /nothing to revoke/],
    ['bad duration', ['mint', 'shop', '--expires', 'tomorrow'], /no duration/],
    ['too long', ['mint', 'shop', '--expires', '400d'], /too long/],
    ['bad address', ['mint', 'shop', '--ip', '10.0.0.0/33'], /no address and no range/],
    ['rm without a terminal', ['rm', 'shop'], /hint: add --yes/],
    [
      'a store and a document',
      ['restore', 'shop', 'x', '--store', 'file:x', '--from-provision', 'x'],
      /exclude/,
    ],
    ['no such document', ['restore', 'shop', 'x', '--from-provision', '/does/not/exist'], /cannot read/],
    ['nothing to revoke', ['revoke'], /name one data set/],
  ])('%s', async (_, args, message) => {
    await putSmallSet(store, 'shop', { tree: { a: 'b' } });
    const result = await data(...args);
    expect(result.stderr).toMatch(message);
    expect(result.stderr).not.toMatch(/^\s+at /m);
    expect(result.exitCode).toBe(2);
    expect(result.stdout).toBe('');
  });
});

test('restore into an empty folder, and nowhere else', async () => {
  await putSmallSet(store, 'shop');
  const back = path.join(dir, 'back');
  const done = await data('restore', 'shop', back, '--json');
  expect(done.json()).toMatchObject({ id: 'shop', path: '/srv', files: 6 });
  expect(await fs.readFile(path.join(back, 'app/config'), 'utf8')).toBe('port=80\n');
  expect((await data('restore', 'shop', back)).exitCode).toBe(2);
});

test('rm takes one set and nothing else', async () => {
  await putSmallSet(store, 'one', { tree: { a: 'b' } });
  await putSmallSet(store, 'one-more', { tree: { a: 'b' } });
  const removed = await data('rm', 'one', '--yes', '--json');
  expect(removed.json()).toMatchObject([{ id: 'one', objects: 5 }]);
  expect(await fs.readdir(path.join(dir, 'store'))).toEqual(['one-more']);
});

test('gc lists, removes with --yes, and only what is old and useless', async () => {
  const at = (name: string) => path.join(dir, 'store', name);
  await putSmallSet(store, 'whole', { tree: { a: 'b' } });
  await fs.writeFile(at('whole/segments/000077.tar.zst'), 'stray');
  await putSmallSet(store, 'aborted', { tree: { a: 'b' } });
  await fs.rm(at('aborted/manifest.json'));
  await fs.writeFile(at(`aborted/segments/.000002.tar.zst.${'0'.repeat(12)}.tmp`), 'half');
  await fs.writeFile(at('foreign.txt'), 'not ours');
  await fs.mkdir(at('Not_ours'));
  await fs.writeFile(at('Not_ours/file'), 'not ours');
  await age(at('.'), 48);
  await putSmallSet(store, 'young', { tree: { a: 'b' } });
  await fs.rm(at('young/manifest.json'));
  const listed = await data('gc', '--json');
  expect(listed.json()).toMatchObject({
    kept: [{ id: 'young' }],
    removed: null,
    garbage: expect.arrayContaining([
      expect.objectContaining({ key: 'whole/segments/000077.tar.zst', bytes: 5 }),
      expect.objectContaining({ hidden: true, bytes: 4 }),
    ]),
  });
  expect((await data('gc', '--dry-run', '--yes')).stdout).toContain('nothing removed');
  expect(await fs.readdir(at('aborted'))).not.toEqual([]);
  expect((await data('gc', '--older-than', '7d')).stdout).toContain('no garbage');
  const removed = await data('gc', '--yes');
  expect(removed.stdout).toMatch(/removed 6 objects/);
  expect(removed.stderr).toContain('left alone: young');
  expect((await fs.readdir(at('.'))).sort()).toEqual(['Not_ours', 'foreign.txt', 'whole', 'young']);
  expect(await fs.readdir(at('whole/segments'))).toEqual(['000001.tar.zst', '000002.tar.zst']);
  expect((await data('verify', 'whole')).exitCode).toBe(0);
});

test('gc and rm leave folders of others alone, whatever they are called', async () => {
  const at = (name: string) => path.join(dir, 'store', name);
  await fs.mkdir(at('alice/docs'), { recursive: true });
  await fs.writeFile(at('alice/docs/thesis.txt'), 'precious');
  await fs.mkdir(at('empty'));
  await age(at('.'), 48);
  const gone = await data('gc', '--older-than', '1s', '--yes');
  expect(gone.stdout).toContain('removed 0 objects');
  expect(gone.stderr).toContain('left alone: alice: port-image did not write docs/thesis.txt');
  const refused = await data('rm', 'alice', '--yes');
  expect(refused.exitCode).toBe(2);
  expect(refused.stderr).toContain('did not write alice/docs/thesis.txt');
  expect(await fs.readFile(at('alice/docs/thesis.txt'), 'utf8')).toBe('precious');
  expect(await fs.readdir(at('empty'))).toEqual([]);
});

test('a line of a table fits the terminal; ids stay whole', () => {
  const rows = [{ id: 'shop01-srv-0123456789', path: `/srv/${'x'.repeat(100)}/end` }];
  const lines = tableLines(
    rows,
    [
      { title: 'ID', value: (r) => r.id },
      { title: 'PATH', value: (r) => r.path, shrinks: true },
    ],
    60,
  );
  expect(lines.every((l) => l.length <= 60)).toBe(true);
  const narrow = tableLines(
    rows,
    [
      { title: 'ID', value: (r) => r.id },
      { title: 'PATH', value: (r) => r.path, shrinks: true },
      { title: 'FILES', value: () => '1', optional: true },
      { title: 'BYTES', value: () => '2' },
      { title: 'MODIFIED', value: () => '2030-01-01', optional: true },
    ],
    50,
  );
  expect(narrow[0]).toMatch(/^ID +PATH +FILES +BYTES$/);
  expect(lines[1]).toMatch(/^shop01-srv-0123456789 {2}\/srv\/x+…x+\/end$/);
});
