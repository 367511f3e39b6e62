import { spawn } from 'node:child_process';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Manifest } from '../../core/data-set.ts';
import { FileStore } from '../../drivers/stores/file.ts';
import { writeDataSet } from '../../stages/strip/write-set.ts';
import { dataSetConf, type GuestDataSet, STUB_NAME, stubText } from '../../tools/guest-side.ts';
import { openContent } from '../../tools/tree-content.ts';
import { walkTree } from '../../tools/tree-walk.ts';
import { type DataServer, serveFolder } from '../support/data-server.ts';
import { DiskSession } from '../support/disk-guest.ts';
import { describeTree, makeOddTree } from '../support/odd-tree.ts';
import { requires } from '../support/requires.ts';

const missing =
  requires('curl', 'tar', 'zstd', 'setfattr', 'setfacl', 'awk', 'mknod') ??
  (process.getuid?.() === 0 ? undefined : 'needs root');
const SHELLS = [['dash'], ['bash', '--posix'], ['busybox', 'sh']].filter(
  ([program = '']) => requires(program) === undefined,
);
const ID = 'shop-srv-app-0123456789';
const SECRET = 'temp_url_sig=c0ffee';

let dir: string;
let server: DataServer;
let manifest: Manifest;
let manifestSha256: string;
let original: string;

beforeAll(async () => {
  if (missing !== undefined) return;
  dir = await fs.mkdtemp(path.join(os.tmpdir(), 'client-'));
  const source = path.join(dir, 'source');
  await fs.mkdir(source);
  makeOddTree(source);
  const guest = new DiskSession(source, '/dev/null');
  const tree = await walkTree(guest, '/app', dir);
  const store = new FileStore(path.join(dir, 'store'));
  const written = await writeDataSet({
    store,
    id: ID,
    path: '/srv/app',
    entries: tree.entries,
    openContent: () => openContent({ guest, root: '/app', map: undefined, tmpDir: dir }),
    signal: new AbortController().signal,
    segmentBytes: 1 << 20,
  });
  manifest = written.manifest;
  manifestSha256 = written.sha256;
  original = describeTree(path.join(source, 'app'));
  server = await serveFolder(path.join(dir, 'store'));
}, 60_000);

afterAll(async () => {
  await server?.close();
  if (dir !== undefined) await fs.rm(dir, { recursive: true, force: true });
});

beforeEach(() => {
  if (server === undefined) return;
  server.fault = () => undefined;
  server.requests.length = 0;
  server.sentBytes = 0;
});

/** A fresh guest root with the client, the emptied folder and a provision document. */
async function makeRoot(change: Partial<GuestDataSet> = {}, url = `${server.url}/${ID}/?${SECRET}&x=1`) {
  const root = await fs.mkdtemp(path.join(dir, 'root-'));
  const set: GuestDataSet = {
    id: ID,
    path: '/srv/app',
    mode: 'eager',
    neededBy: ['nginx.service'],
    keep: [],
    bytes: manifest.bytes,
    files: manifest.files,
    neededBytes: manifest.allocatedBytes,
    segments: manifest.segments.length,
    manifestSha256,
    segmentsSha256: manifest.segmentsSha256,
    ...change,
  };
  await fs.mkdir(path.join(root, 'usr/lib/port-image/data.d'), { recursive: true });
  await fs.mkdir(path.join(root, 'run/port-image'), { recursive: true });
  await fs.mkdir(path.join(root, 'srv/app'), { recursive: true });
  for (const file of ['json-get.awk', 'provision.sh'])
    await fs.copyFile(`guest/${file}`, path.join(root, 'usr/lib/port-image', file));
  await fs.writeFile(path.join(root, `usr/lib/port-image/data.d/${ID}.conf`), dataSetConf(set));
  await fs.writeFile(path.join(root, 'srv/app', STUB_NAME), stubText(set));
  const document = { version: 1, data: { [ID]: { url, expires: '2030-01-01T00:00:00Z' } } };
  await fs.writeFile(path.join(root, 'run/port-image/provision.json'), JSON.stringify(document));
  return root;
}

interface Outcome {
  status: number | null;
  text: string;
}

function start(shell: readonly string[], root: string, args: string[], env: Record<string, string> = {}) {
  const [program = '', ...rest] = shell;
  const child = spawn(program, [...rest, path.resolve('guest/port-image-data'), ...args], {
    env: {
      PATH: process.env.PATH ?? '',
      PORT_IMAGE_ROOT: root,
      PORT_IMAGE_WAIT: '4',
      PORT_IMAGE_PAUSE: '1',
      ...env,
    },
    detached: true,
  });
  let text = '';
  child.stdout.on('data', (chunk) => {
    text += chunk;
  });
  child.stderr.on('data', (chunk) => {
    text += chunk;
  });
  const ended = new Promise<Outcome>((resolve) => child.on('close', (status) => resolve({ status, text })));
  return { child, ended };
}

const client = (shell: readonly string[], root: string, ...args: string[]) => start(shell, root, args).ended;

describe.skipIf(missing).each(SHELLS.map((s) => [s.join(' '), s] as const))(
  'port-image-data in %s',
  (_n, shell) => {
    test('restores every property, tells its state, does nothing the second time', async () => {
      const root = await makeRoot();
      const before = JSON.parse((await client(shell, root, 'status', '--json')).text);
      expect(before.sets[0]).toMatchObject({ id: ID, path: '/srv/app', state: 'pending', verified: false });
      const first = await client(shell, root, 'fetch', ID);
      expect(first).toMatchObject({ status: 0 });
      expect(first.text).not.toContain('c0ffee');
      expect(describeTree(path.join(root, 'srv/app'))).toBe(original);
      expect(await fs.readdir(path.join(root, 'srv'))).toEqual(['app']);
      expect(server.requests.every((r) => r.endsWith(`?${SECRET}&x=1`))).toBe(true);
      const after = JSON.parse((await client(shell, root, 'status', '--json')).text);
      expect(after.sets[0]).toMatchObject({ state: 'done', verified: true, files: manifest.files });
      server.requests.length = 0;
      expect(await client(shell, root, 'fetch', '/srv/app')).toEqual({ status: 0, text: '' });
      expect(server.requests).toEqual([]);
    });

    test('503 bursts and a connection cut again and again: continues where it was', async () => {
      const root = await makeRoot();
      server.fault = (key, count) =>
        key.endsWith('segments.sha256') && count <= 2
          ? { status: 503 }
          : key.endsWith('.zst') && count <= 3
            ? { cutAfterBytes: 3_000_000 }
            : undefined;
      expect(await client(shell, root, 'fetch', ID)).toMatchObject({ status: 0 });
      expect(describeTree(path.join(root, 'srv/app'))).toBe(original);
      const stored = manifest.segments.reduce((sum, s) => sum + s.bytes, 0);
      expect(server.sentBytes).toBeLessThan(stored * 1.15 + 10_000);
    });

    test('wrong digest is refused and nothing reaches the folder', async () => {
      const root = await makeRoot();
      const broken = path.join(dir, 'store', ID, manifest.segments[0]?.key ?? '');
      const good = await fs.readFile(broken);
      const bad = Buffer.from(good);
      bad[100] = (bad[100] ?? 0) ^ 1;
      await fs.writeFile(broken, bad);
      try {
        const result = await client(shell, root, 'fetch', ID);
        expect(result.status).toBe(65);
        expect(result.text).toContain('wrong digest');
        expect(await fs.readdir(path.join(root, 'srv/app'))).toEqual([STUB_NAME]);
      } finally {
        await fs.writeFile(broken, good);
      }
      expect(await client(shell, root, 'fetch', ID)).toMatchObject({ status: 0 });
      expect(describeTree(path.join(root, 'srv/app'))).toBe(original);
    });

    test('another list of segments than the image was made for', async () => {
      const root = await makeRoot({ segmentsSha256: '0'.repeat(64) });
      expect((await client(shell, root, 'fetch', ID)).status).toBe(65);
    });

    test('an expired URL is named, without the URL', async () => {
      const root = await makeRoot();
      server.fault = () => ({ status: 401 });
      const result = await client(shell, root, 'fetch', ID);
      expect(result.status).toBe(77);
      expect(result.text).toMatch(/401.*expired or revoked.*2030-01-01/);
      expect(result.text).not.toMatch(/c0ffee|127\.0\.0\.1/);
      const status = JSON.parse((await client(shell, root, 'status', '--json')).text);
      expect(status.sets[0].state).toBe('failed');
    });

    test('waits for a document and for the store, then says why it gave up', async () => {
      const root = await makeRoot({}, 'http://127.0.0.1:1/x/');
      const result = await client(shell, root, 'fetch', ID);
      expect(result.status).toBe(75);
      expect(result.text).toContain('cannot be reached (curl error 7)');
      await fs.rm(path.join(root, 'run/port-image/provision.json'));
      const running = start(shell, root, ['fetch', ID], { PORT_IMAGE_WAIT: '30' });
      await sleep(1500);
      const waiting = JSON.parse((await client(shell, root, 'status', '--json')).text);
      expect(waiting.sets[0]).toMatchObject({ state: 'waiting' });
      const document = { version: 1, data: { [ID]: { url: `${server.url}/${ID}` } } };
      await fs.writeFile(path.join(root, 'run/port-image/provision.json'), JSON.stringify(document));
      expect(await running.ended).toMatchObject({ status: 0 });
      expect(describeTree(path.join(root, 'srv/app'))).toBe(original);
    });

    test('killed half-way: goes on with the next run', async () => {
      const root = await makeRoot();
      for (const delay of [60, 150, 300, 450]) {
        const running = start(shell, root, ['fetch', ID]);
        await sleep(delay);
        try {
          process.kill(-(running.child.pid ?? 0), 'SIGKILL');
        } catch {
          // it was faster
        }
        await running.ended;
      }
      expect(await client(shell, root, 'fetch', ID)).toMatchObject({ status: 0 });
      expect(describeTree(path.join(root, 'srv/app'))).toBe(original);
      expect(await fs.readdir(path.join(root, 'srv'))).toEqual(['app']);
    });

    test('keeps what was made in the folder since, and the kept paths of the image', async () => {
      const root = await makeRoot({ keep: ['with space', 'not there'] });
      await fs.mkdir(path.join(root, 'srv/app/newcomer'));
      await fs.mkdir(path.join(root, 'srv/app/with space'));
      await fs.writeFile(path.join(root, 'srv/app/with space/mine'), 'image');
      await fs.writeFile(path.join(root, 'srv/app/plain'), 'stood in the way');
      expect(await client(shell, root, 'fetch', ID)).toMatchObject({ status: 0 });
      expect(await fs.readFile(path.join(root, 'srv/app/with space/mine'), 'utf8')).toBe('image');
      expect(await fs.readdir(path.join(root, 'srv/app/newcomer'))).toEqual([]);
      expect(await fs.readFile(path.join(root, 'srv/app/plain'), 'utf8')).toBe('hello');
      const beside = (await fs.readdir(path.join(root, 'srv'))).find((n) =>
        n.startsWith('app.before-restore.'),
      );
      expect(await fs.readFile(path.join(root, 'srv', beside ?? '', 'plain'), 'utf8')).toBe(
        'stood in the way',
      );
    });

    test('lazy: the tree waits beside the folder for its mount unit', async () => {
      const root = await makeRoot({ mode: 'lazy' });
      expect(await client(shell, root, 'fetch', ID)).toMatchObject({ status: 0 });
      expect(describeTree(path.join(root, `srv/.port-image-data.${ID}/tree`))).toBe(original);
      expect(await client(shell, root, 'fetch', ID)).toEqual({ status: 0, text: '' });
    });

    test('a full disk is named', async () => {
      const root = await makeRoot({ neededBytes: 2 ** 60 });
      const result = await client(shell, root, 'fetch', ID);
      expect(result.status).toBe(73);
      expect(result.text).toContain('no space left');
    });

    test.each([
      [[], 64],
      [['fetch', 'nope'], 64],
      [['fetch', '../x'], 64],
      [['fetch', '/nowhere'], 64],
      [['--help'], 0],
    ] as [string[], number][])('arguments %j end with %d', async (args, status) => {
      const root = await makeRoot();
      expect((await client(shell, root, ...args)).status).toBe(status);
    });
  },
);
