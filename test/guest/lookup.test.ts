/** Which document counts, how a pointer is followed, how the client signs in. */
import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as http from 'node:http';
import type { AddressInfo } from 'node:net';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { pointerMeta } from '../../tools/config-drive.ts';
import { dataSetConf, type GuestDataSet } from '../../tools/guest-side.ts';
import { requires } from '../support/requires.ts';

const missing =
  requires('curl', 'tar', 'zstd', 'awk') ?? (process.getuid?.() === 0 ? undefined : 'needs root');
const SHELLS = [['dash'], ['bash', '--posix'], ['busybox', 'sh']].filter(
  ([program = '']) => requires(program) === undefined,
);
const CLIENT = path.resolve('guest/port-image-data');
const ID = 'set';

interface Seen {
  method: string;
  url: string;
  token: string | undefined;
  body: string;
  /** Arguments of every curl that ran at that moment. */
  argv: string;
}

let dir: string;
let url: string;
let server: http.Server;
let seen: Seen[] = [];
/** What to answer instead of the object; undefined serves it. */
let fault: (seen: Seen) => { status: number; headers?: Record<string, string>; body?: string } | undefined;
const objects = new Map<string, Buffer>();
let conf: GuestDataSet;

/** Arguments of each curl that a run of this file started: other tests have theirs. */
async function curlArguments(): Promise<string> {
  let all = '';
  for (const pid of (await fs.readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const environment = await fs.readFile(`/proc/${pid}/environ`, 'latin1').catch(() => '');
    if (!environment.includes(`PORT_IMAGE_ROOT=${dir}`)) continue;
    const line = await fs.readFile(`/proc/${pid}/cmdline`, 'latin1').catch(() => '');
    if (/^[^\0]*curl\0/.test(line)) all += `${line}\n`;
  }
  return all;
}

beforeAll(async () => {
  if (missing !== undefined) return;
  dir = await fs.mkdtemp(path.join(os.tmpdir(), 'lookup-'));
  await fs.mkdir(path.join(dir, 'tree'));
  await fs.writeFile(path.join(dir, 'tree/proof'), 'here');
  const segment = execFileSync('sh', ['-c', `tar -C '${dir}/tree' -c . | zstd -q`]);
  const sha256 = (data: Buffer) => createHash('sha256').update(data).digest('hex');
  const list = Buffer.from(`${sha256(segment)}  segments/000001.tar.zst\n`);
  objects.set('segments/000001.tar.zst', segment).set('segments.sha256', list);
  conf = {
    id: ID,
    path: '/srv/set',
    mode: 'eager',
    neededBy: [],
    keep: [],
    bytes: 4,
    files: 1,
    neededBytes: 4096,
    segments: 1,
    manifestSha256: '0'.repeat(64),
    segmentsSha256: sha256(list),
  };
  server = http.createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const one: Seen = {
      method: request.method ?? '',
      url: request.url ?? '',
      token: request.headers['x-auth-token'] as string | undefined,
      body: Buffer.concat(chunks).toString(),
      argv: await curlArguments(),
    };
    seen.push(one);
    const other = fault(one);
    const key = (one.url.split('?')[0] ?? '').replace(/^\/[^/]*\//, '');
    const object = objects.get(key);
    if (other !== undefined) response.writeHead(other.status, other.headers).end(other.body);
    else if (object === undefined) response.writeHead(404).end();
    else response.end(object);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(async () => {
  server?.closeAllConnections();
  server?.close();
  if (dir !== undefined) await fs.rm(dir, { recursive: true, force: true });
});
beforeEach(() => {
  seen = [];
  fault = () => undefined;
});

/** An instance without any document, and its metadata disk. */
class Root {
  readonly root: string;
  readonly metadata: string;
  constructor(root: string) {
    this.root = root;
    this.metadata = path.join(root, 'metadata');
  }

  async put(name: string, content: unknown): Promise<void> {
    const file = path.join(this.root, name);
    await fs.mkdir(path.dirname(file), { recursive: true });
    await fs.writeFile(file, JSON.stringify(content));
  }

  run(shell: readonly string[], ...args: string[]): Promise<{ status: number | null; text: string }> {
    const [program = '', ...rest] = shell;
    const child = spawn(program, [...rest, CLIENT, ...args], {
      env: {
        PATH: process.env.PATH ?? '',
        PORT_IMAGE_ROOT: this.root,
        PORT_IMAGE_METADATA: this.metadata,
        PORT_IMAGE_WAIT: '1',
        PORT_IMAGE_PAUSE: '1',
        CREDENTIALS_DIRECTORY: path.join(this.root, 'credentials'),
      },
    });
    let text = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk) => {
        text += chunk;
      });
    }
    return new Promise((resolve) => child.on('close', (status) => resolve({ status, text })));
  }
}

async function makeRoot(sets: readonly GuestDataSet[] = [conf]): Promise<Root> {
  const root = await fs.mkdtemp(path.join(dir, 'root-'));
  const lib = path.join(root, 'usr/lib/port-image');
  await fs.mkdir(path.join(lib, 'data.d'), { recursive: true });
  for (const file of ['json-get.awk', 'provision.sh'])
    await fs.copyFile(`guest/${file}`, path.join(lib, file));
  for (const set of sets) await fs.writeFile(path.join(lib, `data.d/${set.id}.conf`), dataSetConf(set));
  return new Root(root);
}

const document = (place: string, more: object = {}) => ({
  version: 1,
  data: { [ID]: { url: `${url}/${place}/`, ...more } },
});
/** The first part of the path of the first object asked for. */
const placeUsed = () => seen.find((s) => s.url.endsWith('segments.sha256'))?.url.split('/')[1];

/** The fixed order, and how a document gets to each place. */
const PLACES: [string, (root: Root) => Promise<void>][] = [
  ['credential', (r) => r.put('credentials/port-image.provision', document('credential'))],
  ['system', (r) => r.put('run/credentials/@system/port-image.provision', document('system'))],
  [
    'vendor2',
    (r) => r.put('metadata/openstack/latest/vendor_data2.json', { port_image: document('vendor2') }),
  ],
  ['vendor', (r) => r.put('metadata/openstack/latest/vendor_data.json', { port_image: document('vendor') })],
  ['seed', (r) => r.put('metadata/port-image.json', document('seed'))],
  ['user', (r) => r.put('run/port-image/provision.json', document('user'))],
  [
    'pointed',
    async (r) => {
      objects.set('pointed.json', Buffer.from(JSON.stringify(document('pointed'))));
      const meta = pointerMeta(`${url}/doc/pointed.json?sig=${'s'.repeat(600)}`);
      expect(Object.keys(meta)).toEqual(['port_image', 'port_image_2', 'port_image_3']);
      await r.put('metadata/openstack/latest/meta_data.json', { uuid: 'x', meta });
    },
  ],
  ['etc', (r) => r.put('etc/port-image/provision.json', document('etc'))],
  ['image', (r) => r.put('usr/lib/port-image/provision.json', document('image'))],
];

describe.skipIf(missing).each(SHELLS.map((s) => [s.join(' '), s] as const))(
  'documents in %s',
  (_n, shell) => {
    test.each(PLACES.map(([place], n) => [place, n] as const))(
      '%s wins over all that come after it',
      async (place, n) => {
        const root = await makeRoot();
        for (const [, put] of PLACES.slice(n)) await put(root);
        expect(await root.run(shell, 'fetch', ID)).toMatchObject({ status: 0 });
        expect(placeUsed()).toBe(place);
        expect(await fs.readFile(path.join(root.root, 'srv/set/proof'), 'utf8')).toBe('here');
      },
    );

    test('a document without this data set is passed over, one of another version too', async () => {
      const root = await makeRoot();
      await root.put('credentials/port-image.provision', {
        version: 1,
        data: { other: { url: `${url}/x/` } },
      });
      await root.put('run/port-image/provision.json', { ...document('user'), version: 2 });
      await root.put('etc/port-image/provision.json', document('etc'));
      expect(await root.run(shell, 'fetch', ID)).toMatchObject({ status: 0 });
      expect(placeUsed()).toBe('etc');
    });

    test('the pointer: its URL is no argument, its copy is private and fetched once', async () => {
      const root = await makeRoot();
      await PLACES.find(([place]) => place === 'pointed')?.[1](root);
      const result = await root.run(shell, 'fetch', ID);
      expect(result.status).toBe(0);
      const asked = seen.filter((s) => s.url.startsWith('/doc/'));
      expect(asked.length).toBe(1);
      expect(asked[0]?.url).toBe(`/doc/pointed.json?sig=${'s'.repeat(600)}`);
      expect(asked[0]?.argv).toMatch(/curl/);
      expect(asked[0]?.argv + result.text).not.toContain('sig=');
      const run = path.join(root.root, 'run/port-image');
      const [copy = ''] = (await fs.readdir(run)).filter((name) => name.startsWith('pointed-'));
      expect((await fs.stat(path.join(run, copy))).mode & 0o777).toBe(0o600);
    });

    test.each([
      ['refused', { status: 401 }, '401'],
      ['no document', { status: 200, body: '{"version":2}' }, 'not a provision document'],
      ['too large', { status: 200, body: 'x'.repeat((1 << 20) + 1) }, ''],
      [
        'too large without a length',
        { status: 200, headers: { 'transfer-encoding': 'chunked' }, body: ' '.repeat(3 << 20) },
        '',
      ],
    ] as const)(
      'a pointer to something %s is told, and the image default serves',
      async (_what, answer, told) => {
        const root = await makeRoot();
        await root.put('metadata/openstack/latest/meta_data.json', {
          meta: { port_image: `${url}/doc/x?sig=1` },
        });
        fault = (s) =>
          s.url.startsWith('/doc/')
            ? { ...answer, headers: { ...('headers' in answer ? answer.headers : {}) } }
            : undefined;
        const alone = await root.run(shell, 'fetch', ID);
        expect(alone.status).toBe(75);
        expect(alone.text).toContain(`meta.port_image(${told}`);
        expect(alone.text).not.toContain('sig=');
        await root.put('etc/port-image/provision.json', document('etc'));
        expect(await root.run(shell, 'fetch', ID)).toMatchObject({ status: 0 });
        expect(await fs.readdir(path.join(root.root, 'run/port-image'))).toEqual([`data-${ID}.state`]);
      },
    );

    test('a refused URL: what the pointer says now is tried', async () => {
      const root = await makeRoot();
      await root.put('metadata/openstack/latest/meta_data.json', { meta: { port_image: `${url}/doc/x` } });
      let old = true;
      fault = (s) => {
        if (s.url.startsWith('/doc/'))
          return { status: 200, body: JSON.stringify(document(old ? 'old' : 'new')) };
        if (!s.url.startsWith('/old/')) return undefined;
        old = false;
        return { status: 401 };
      };
      expect(await root.run(shell, 'fetch', ID)).toMatchObject({ status: 0 });
      expect(seen.map((s) => s.url.split('/')[1])).toEqual(['doc', 'old', 'doc', 'new', 'new']);
    });

    test('a user-data document survives the reboot and goes when everything is there', async () => {
      const root = await makeRoot();
      await root.put('run/port-image/provision.json', document('user'));
      fault = () => ({ status: 503 });
      expect((await root.run(shell, 'fetch', ID)).status).toBe(75);
      await fs.rm(path.join(root.root, 'run'), { recursive: true });
      const saved = path.join(root.root, 'var/lib/port-image/provision.json');
      expect((await fs.stat(saved)).mode & 0o777).toBe(0o600);
      fault = () => undefined;
      expect(await root.run(shell, 'fetch', ID)).toMatchObject({ status: 0 });
      await expect(fs.stat(saved)).rejects.toThrow();
    });

    test('prefetch takes lazy sets in the order of the document and leaves the others', async () => {
      const named = (id: string, mode: GuestDataSet['mode']) => ({ ...conf, id, path: `/srv/${id}`, mode });
      const root = await makeRoot([
        named('a', 'lazy'),
        named('b', 'lazy'),
        named('c', 'lazy'),
        named('d', 'eager'),
      ]);
      const data = Object.fromEntries(['a', 'b', 'c', 'd'].map((id) => [id, { url: `${url}/${id}` }]));
      await root.put('etc/port-image/provision.json', {
        version: 1,
        data,
        prefetch: ['c', '../x', 'd', 'a'],
      });
      expect(await root.run(shell, 'prefetch')).toMatchObject({ status: 0 });
      expect(seen.map((s) => s.url.split('/')[1])).toEqual(['c', 'c', 'a', 'a']);
      expect(await root.run(shell, 'prefetch')).toEqual({ status: 0, text: '' });
      await root.put('etc/port-image/provision.json', { version: 1, data });
      expect(await root.run(shell, 'prefetch')).toEqual({ status: 0, text: '' });
    });
  },
);

describe.skipIf(missing).each(SHELLS.map((s) => [s.join(' '), s] as const))(
  'signing in with %s',
  (_n, shell) => {
    const SECRET = 'se"cr\\et';
    /** Keystone and a store that knows only the newest token. */
    function keystone(tokens: readonly string[]) {
      let given = 0;
      fault = (s) => {
        if (s.url === '/identity/v3/auth/tokens') {
          const token = tokens[Math.min(given++, tokens.length - 1)] ?? '';
          return { status: 201, headers: { 'X-Subject-Token': token }, body: '{"token":{}}' };
        }
        return s.token === tokens.at(-1) ? undefined : { status: 401 };
      };
    }
    const auth = () => ({
      type: 'v3applicationcredential',
      authUrl: `${url}/identity`,
      id: 'app-1',
      secret: SECRET,
    });

    test('gets a token, sends it, keeps both from arguments and messages', async () => {
      const root = await makeRoot();
      await root.put('etc/port-image/provision.json', document('swift', { auth: auth() }));
      keystone(['gAAAA-tok_1=']);
      const result = await root.run(shell, 'fetch', ID);
      expect(result.status).toBe(0);
      expect(seen.map((s) => [s.method, s.url.split('/')[1]])).toEqual([
        ['POST', 'identity'],
        ['GET', 'swift'],
        ['GET', 'swift'],
      ]);
      expect(JSON.parse(seen[0]?.body ?? '')).toEqual({
        auth: {
          identity: {
            methods: ['application_credential'],
            application_credential: { id: 'app-1', secret: SECRET },
          },
        },
      });
      expect(seen[1]?.token).toBe('gAAAA-tok_1=');
      for (const { argv } of seen) {
        expect(argv).toMatch(/curl/);
        expect(argv).not.toMatch(/cr.?.?et|tok_1/);
      }
      expect(result.text).not.toMatch(/cr.?.?et|tok_1/);
      expect(await fs.readdir(path.join(root.root, 'run/port-image'))).toEqual([`data-${ID}.state`]);
    });

    test('an expired token is renewed once', async () => {
      const root = await makeRoot();
      await root.put('etc/port-image/provision.json', document('swift', { auth: auth() }));
      keystone(['old', 'new']);
      expect(await root.run(shell, 'fetch', ID)).toMatchObject({ status: 0 });
      expect(seen.filter((s) => s.method === 'POST').length).toBe(2);
    });

    test('a store that never accepts it, and a Keystone that refuses, end the attempt by name', async () => {
      const root = await makeRoot();
      await root.put('etc/port-image/provision.json', document('swift', { auth: auth() }));
      fault = (s) =>
        s.method === 'POST' ? { status: 201, headers: { 'x-subject-token': 't' } } : { status: 401 };
      expect((await root.run(shell, 'fetch', ID)).status).toBe(77);
      expect(seen.length).toBe(4);
      fault = () => ({ status: 401 });
      const refused = await root.run(shell, 'fetch', ID);
      expect(refused.status).toBe(77);
      expect(refused.text).toContain('Keystone refuses the application credential (401)');
      fault = () => ({ status: 503 });
      expect((await root.run(shell, 'fetch', ID)).status).toBe(75);
      await root.put(
        'etc/port-image/provision.json',
        document('swift', { auth: { ...auth(), type: 'v3password' } }),
      );
      expect((await root.run(shell, 'fetch', ID)).text).toContain('unknown: v3password');
    });
  },
);

/**
 * The power may fail between any two steps. Every program that changes the disk is replaced by one that does its work
 * and then, at its turn, kills the client; so each point of the restore is tried, not those a timer happens to hit.
 */
test.skipIf(missing)(
  'cut behind any step, the next run ends with the same tree',
  async () => {
    const tools = path.join(dir, 'cutting');
    await fs.mkdir(tools);
    for (const program of ['mv', 'rm', 'mkdir', 'sync', 'tar', 'rmdir', 'find']) {
      const real = execFileSync('sh', ['-c', `command -v ${program}`], { encoding: 'utf8' }).trim();
      await fs.writeFile(
        path.join(tools, program),
        `#!/bin/sh\n${real} "$@"\nrc=$?\necho x >>"$CUT_COUNT"\n[ "$(wc -l <"$CUT_COUNT")" -ne "$CUT_AT" ] || kill -9 -$CUT_GROUP\nexit $rc\n`,
        { mode: 0o755 },
      );
    }
    let cuts = 0;
    for (let at = 1; ; at++) {
      const root = await makeRoot([{ ...conf, keep: ['kept'] }]);
      await root.put('etc/port-image/provision.json', document('etc'));
      await fs.mkdir(path.join(root.root, 'srv/set'), { recursive: true });
      await fs.writeFile(path.join(root.root, 'srv/set/PORT-IMAGE-DATA.txt'), 'note');
      await fs.writeFile(path.join(root.root, 'srv/set/kept'), 'image');
      const count = path.join(root.root, 'count');
      const child = spawn('sh', ['-c', 'export CUT_GROUP=$$; exec sh "$0" fetch set', CLIENT], {
        detached: true,
        stdio: 'ignore',
        env: {
          PATH: `${tools}:${process.env.PATH}`,
          PORT_IMAGE_ROOT: root.root,
          PORT_IMAGE_METADATA: root.metadata,
          CUT_AT: String(at),
          CUT_COUNT: count,
        },
      });
      const [status] = await new Promise<[number | null]>((resolve) =>
        child.on('close', (code) => resolve([code])),
      );
      if (status === 0) break;
      expect(status).toBeNull();
      cuts++;
      expect(await root.run(['sh'], 'fetch', ID)).toMatchObject({ status: 0 });
      const names = await fs.readdir(path.join(root.root, 'srv/set'));
      expect([at, names.sort()]).toEqual([at, ['kept', 'proof']]);
      const want = await fs.stat(path.join(dir, 'tree'));
      const got = await fs.stat(path.join(root.root, 'srv/set'));
      expect([at, got.mode]).toEqual([at, want.mode]);
      await root.run(['sh'], 'fetch', ID);
      expect([at, await fs.readdir(path.join(root.root, 'srv'))]).toEqual([at, ['set']]);
    }
    expect(cuts).toBeGreaterThan(10);
  },
  300_000,
);
