/** Packages from a folder: what is chosen, how Alpine's are read and installed, and what apk leaves in its world file. */
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { buffer } from 'node:stream/consumers';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import * as fc from 'fast-check';
import { pack } from 'tar-stream';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { silentLog } from '../../core/log.ts';
import { alpine } from '../../families/alpine/index.ts';
import { arch } from '../../families/arch/index.ts';
import { chooseFromPool, type PoolPackage } from '../../families/pool.ts';
import { withWorld } from '../../tools/apk-database.ts';
import { readPkgInfo } from '../../tools/pkginfo.ts';
import { makeTree, type TreeSession } from '../support/tree-guest.ts';

let dir: string;
let guest: TreeSession | undefined;
beforeEach(async () => {
  dir = await fs.mkdtemp(path.join(os.tmpdir(), 'pool-'));
});
afterEach(async () => {
  await fs.rm(dir, { recursive: true, force: true });
  if (guest !== undefined) await fs.rm(guest.root, { recursive: true, force: true });
  guest = undefined;
});

async function tarOf(files: Record<string, string>): Promise<Buffer> {
  const tar = pack();
  for (const [name, text] of Object.entries(files)) tar.entry({ name }, text);
  tar.finalize();
  return buffer(tar);
}

/** As abuild makes them: signature, control and data are gzip streams in a row, the first two without an end mark. */
async function apk(name: string, info: string): Promise<void> {
  const cut = (tar: Buffer) => tar.subarray(0, tar.length - 1024);
  const parts = [
    cut(await tarOf({ '.SIGN.RSA.x.rsa.pub': 'signature' })),
    cut(await tarOf({ '.PKGINFO': info })),
    await tarOf({ 'usr/bin/x': 'x'.repeat(5000) }),
  ];
  await fs.writeFile(path.join(dir, name), Buffer.concat(parts.map((p) => gzipSync(p))));
}

const options = (offlinePool?: string) => ({
  offlinePool,
  cacheDir: dir,
  tmpDir: dir,
  signal: new AbortController().signal,
  log: silentLog,
});

describe('the choice', () => {
  const entry = (name: string, requires: string[] = [], provides: string[] = []): PoolPackage => ({
    name,
    version: '1',
    architecture: 'noarch',
    file: `/${name}`,
    bytes: 1,
    requires,
    provides: [name, ...provides],
  });
  const choose = (pool: PoolPackage[], wanted: string[], installed: string[]) =>
    chooseFromPool({
      pool,
      wanted,
      missing: async (names) => new Set(names.filter((n) => !installed.includes(n))),
      compareVersions: (a, b) => a.localeCompare(b),
      hint: 'h',
    });
  test('only what is wanted, needed and lacking; circles end', async () => {
    const pool = [
      entry('a', ['b', 'c', 'libc']),
      entry('b', ['a', 'cap']),
      entry('d', [], ['cap']),
      entry('c'),
      entry('e'),
    ];
    expect((await choose(pool, ['a'], ['c'])).packages.map((p) => [p.name, p.requested])).toEqual([
      ['a', true],
      ['b', false],
      ['d', false],
    ]);
    await expect(choose(pool, ['a', 'z'], [])).rejects.toMatchObject({
      code: 'PACKAGES',
      message: /lacks z/,
    });
  });
  test('any graph: the chosen set is closed, and never holds what is installed', async () => {
    const name = fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f');
    const graph = fc.dictionary(name, fc.array(name, { maxLength: 4 }));
    await fc.assert(
      fc.asyncProperty(graph, fc.array(name), async (needs, installed) => {
        const pool = Object.entries(needs).map(([n, r]) => entry(n, r));
        const wanted = Object.keys(needs).slice(0, 2);
        const chosen = (await choose(pool, wanted, installed)).packages.map((p) => p.name);
        for (const one of chosen) {
          expect(installed).not.toContain(one);
          for (const need of needs[one] ?? [])
            expect(chosen.includes(need) || installed.includes(need) || !(need in needs)).toBe(true);
        }
      }),
    );
  });
});

test('Alpine: read, chosen, installed, services linked, world as the owner would have it', async () => {
  await apk(
    'a.apk',
    'pkgname = cloud-init\npkgver = 24.1-r0\narch = noarch\ndepend = py3-yaml>=6\ndepend = so:libc.musl-x86_64.so.1\ndepend = !old\n',
  );
  await apk('b.apk', 'pkgname = py3-yaml\npkgver = 6.0-r1\narch = x86_64\nprovides = py3.12:yaml=6.0\n');
  await apk('c.apk', 'pkgname = py3-yaml\npkgver = 9.9-r1\narch = aarch64\n');
  expect(await readPkgInfo(path.join(dir, 'a.apk'))).toMatchObject({
    name: 'cloud-init',
    requires: ['py3-yaml', 'so:libc.musl-x86_64.so.1'],
  });
  const database = 'P:musl\nV:1.2-r0\nA:x86_64\np:so:libc.musl-x86_64.so.1=1\n';
  guest = await makeTree({
    'lib/apk/db/installed': database,
    'etc/apk/world': 'alpine-base\nnginx>1.2\n',
    'etc/init.d/cloud-init': '#!/sbin/openrc-run\n',
    'etc/init.d/cloud-init-local': '#!/sbin/openrc-run\n',
    'etc/init.d/qemu-guest-agent': '#!/sbin/openrc-run\n',
    'etc/runlevels/sysinit/qemu-guest-agent': '',
  });
  const tree = guest;
  await expect(alpine.resolvePackages(tree, ['cloud-init'], options())).rejects.toMatchObject({
    code: 'PACKAGES',
    hint: expect.stringContaining('apk fetch'),
  });
  const set = await alpine.resolvePackages(tree, ['cloud-init', 'musl'], options(dir));
  expect(set.packages.map((p) => `${p.name} ${p.version} ${p.requested}`)).toEqual([
    'cloud-init 24.1-r0 true',
    'py3-yaml 6.0-r1 false',
  ]);
  tree.answer = async ({ what }) => {
    if (what.includes('apk add')) {
      const added = 'P:cloud-init\nV:24.1-r0\nA:noarch\n\nP:py3-yaml\nV:6.0-r1\nA:x86_64\n';
      await tree.write('/lib/apk/db/installed', `${database}\n${added}`);
      await tree.write('/etc/apk/world', 'alpine-base\ncloud-init><Q1abc=\nnginx>1.2\npy3-yaml><Q1def=\n');
    }
    return '';
  };
  await alpine.installPackages(tree, set, silentLog);
  expect(await tree.readText('/etc/apk/world')).toBe('alpine-base\nnginx>1.2\ncloud-init\n');
  expect(await tree.readLink('/etc/runlevels/default/cloud-init')).toBe('/etc/init.d/cloud-init');
  expect(await tree.readLink('/etc/runlevels/boot/cloud-init-local')).toBe('/etc/init.d/cloud-init-local');
  // In a run level already: left where the owner has it.
  expect(await tree.kind('/etc/runlevels/default/qemu-guest-agent')).toBe('missing');
  tree.answer = () => '';
  await tree.write('/lib/apk/db/installed', database);
  await expect(alpine.installPackages(tree, set, silentLog)).rejects.toMatchObject({ code: 'GUEST_BROKEN' });
});

test('Arch: packages with zstd, dependencies by pacman -T', async () => {
  const info = 'pkgname = cloud-init\npkgver = 24.1-1\narch = any\ndepend = python-yaml\n';
  await fs.writeFile(
    path.join(dir, 'x.pkg.tar.zst'),
    zstdCompressSync(await tarOf({ '.BUILDINFO': 'b', '.PKGINFO': info })),
  );
  guest = await makeTree({});
  guest.answer = ({ what, args }) => (what.includes('pacman -T') ? `${args.join('\n')}\n` : '');
  const set = await arch.resolvePackages(guest, ['cloud-init'], options(dir));
  expect(set.packages).toMatchObject([{ name: 'cloud-init', version: '24.1-1', requested: true }]);
  await fs.writeFile(path.join(dir, 'y.pkg.tar.zst'), 'no package');
  await expect(arch.resolvePackages(guest, ['cloud-init'], options(dir))).rejects.toMatchObject({
    code: 'PACKAGES',
  });
});

test("the world file keeps the owner's lines", () => {
  expect(withWorld('a\nb@edge\nc>2\n', ['b', 'c', 'd'])).toBe('a\nb@edge\nc>2\nd\n');
  expect(withWorld('', ['a'])).toBe('a\n');
});
