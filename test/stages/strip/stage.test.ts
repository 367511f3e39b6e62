import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { Contract } from '../../../core/contract.ts';
import type { Facts } from '../../../core/facts.ts';
import { checkPath, keptPaths, mergePaths, safeUnits, unitsFor } from '../../../stages/strip/choose.ts';
import { stage } from '../../../stages/strip/index.ts';
import { spare } from '../../../stages/strip/remove.ts';
import { STUB_NAME } from '../../../tools/guest-side.ts';
import { cannotMount, diskGuest } from '../../support/disk-guest.ts';
import { makeOddTree } from '../../support/odd-tree.ts';
import { requires } from '../../support/requires.ts';
import { makeContext, sampleFacts } from '../../support/tree-guest.ts';

test.each([
  '/',
  '/etc',
  '/etc/nginx',
  '/usr',
  '/usr/lib/x',
  '/bin',
  '/boot/grub',
  '/var',
  '/var/lib',
  '/var/lib/dpkg/info',
  '/home',
  '/proc/1',
  '/run/x',
  '/var/lib/cloud',
])('the system’s own %s is refused', (p) =>
  expect(() => checkPath(p)).toThrow(expect.objectContaining({ code: 'UNSAFE_PATH' })),
);
test.each(['srv', '/srv/../etc', '/srv/./a', '/srv//a', '/a\nb', '', '//'])('%j is no plain path', (p) =>
  expect(() => checkPath(p)).toThrow(expect.objectContaining({ code: 'UNSAFE_PATH' })),
);
test.each([
  ['/srv/app/', '/srv/app'],
  ['/usr/local/data', '/usr/local/data'],
  ['/var/lib/mysql', '/var/lib/mysql'],
  ['/home/alice', '/home/alice'],
  ["/srv/a b'c", "/srv/a b'c"],
])('%s may be stripped', (p, clean) => expect(checkPath(p)).toBe(clean));

test('nested paths become one', () => {
  expect(mergePaths(['/srv/app/x', '/srv/app', '/srv/apple', '/srv/app'])).toEqual([
    '/srv/app',
    '/srv/apple',
  ]);
});

test('units: those that name the path; those that must be up anyway never wait', () => {
  const service = (unit: string, ...paths: string[]) => ({ unit, enabled: true, paths });
  const facts = sampleFacts({
    services: [
      service('shop.service', '/srv/app/bin/run'),
      service('files.service', '/srv'),
      service('root.service', '/'),
      service('ssh.service', '/srv/app'),
      { ...service('off.service', '/srv/app'), enabled: false },
    ],
  });
  expect(unitsFor('/srv/app', facts)).toEqual(['files.service', 'shop.service']);
  expect(unitsFor('/opt/x', facts)).toEqual(['multi-user.target']);
  expect(safeUnits(['cloud-init.service', 'nginx.service', 'a b.service'])).toEqual(['nginx.service']);
});

test('ssh keys of users in the tree stay', () => {
  const user = {
    name: 'a',
    uid: 1000,
    gid: 1000,
    home: '/home/a',
    shell: '/bin/sh',
    human: true,
    authorizedKeys: 1,
  };
  const facts = sampleFacts({ users: [user, { ...user, name: 'b', home: '/home/b', authorizedKeys: 0 }] });
  expect(keptPaths('/home/a', facts)).toEqual(['.ssh']);
  expect(keptPaths('/srv', facts)).toEqual([]);
  expect(spare(['a*/.ssh'])).toEqual([
    '!',
    '-path',
    './a\\*',
    '!',
    '-path',
    './a\\*/.ssh',
    '!',
    '-path',
    './a\\*/.ssh/*',
  ]);
});

const missing = cannotMount() ?? requires('mkfs.ext4', 'filefrag', 'setfattr', 'setfacl', 'mknod');

describe.skipIf(missing)('the stage on a disk', () => {
  let close: (() => Promise<void>) | undefined;
  afterEach(async () => {
    await close?.();
    close = undefined;
  });

  async function prepare(strip: 'auto' | string[], change: Partial<Facts> = {}) {
    const guest = await diskGuest('ext4', async (root) => {
      makeOddTree(root);
      await fs.mkdir(path.join(root, 'app/home/.ssh'), { recursive: true });
      await fs.writeFile(path.join(root, 'app/home/.ssh/authorized_keys'), 'ssh-ed25519 AAAA');
      await fs.mkdir(path.join(root, 'var/lib/dpkg/info'), { recursive: true });
      await fs.mkdir(path.join(root, 'srv/owned'), { recursive: true });
      await fs.writeFile(path.join(root, 'srv/owned/file'), 'x');
      await fs.writeFile(path.join(root, 'var/lib/dpkg/info/p.list'), '/.\n/srv\n/app\n/srv/owned/file\n');
      await fs.symlink('app', path.join(root, 'link'));
    });
    close = guest.close;
    const user = {
      name: 'a',
      uid: 1,
      gid: 1,
      home: '/app/home',
      shell: '/bin/sh',
      human: true,
      authorizedKeys: 1,
    };
    const facts = sampleFacts({
      filesystems: [guest.filesystem],
      mounts: [{ path: '/', device: '/dev/sda' }],
      users: [user],
      candidates: [
        { path: '/app', bytes: 1e7, files: 300, rule: 'srv', reason: 'data', neededBy: ['nginx.service'] },
        { path: '/srv/owned', bytes: 1, files: 1, rule: 'srv', reason: 'data', neededBy: [] },
      ],
      ...change,
    });
    const out = path.join(guest.dir, 'job');
    await fs.mkdir(path.join(out, 'tmp'), { recursive: true });
    const request = { strip, store: `file:${path.join(guest.dir, 'store')}`, name: 'shop' };
    return {
      guest,
      ctx: makeContext({ stage: 'strip', guest: guest.session, facts, platforms: [], request, out }),
    };
  }

  test('auto: stores, empties, installs; the second time it finds its own data set', async () => {
    const { guest, ctx } = await prepare('auto');
    const { root } = guest.session;
    const before = await fs.stat(path.join(root, 'app'));
    const plan = await stage.plan(ctx);
    expect(plan.sets.map((s) => s.path)).toEqual(['/app']);
    expect(ctx.warnings.join()).toContain('packages own files in it (/srv/owned/file)');
    await expect(fs.stat(path.join(guest.dir, 'store'))).rejects.toThrow();
    expect(execFileSync('find', [path.join(root, 'app')], { encoding: 'latin1' }).length).toBeGreaterThan(
      5000,
    );

    const [set] = await stage.run(ctx, plan);
    expect(set).toMatchObject({
      path: '/app',
      mode: 'eager',
      neededBy: ['nginx.service'],
      reused: false,
      rule: 'srv',
    });
    expect((await fs.readdir(path.join(root, 'app'))).sort()).toEqual([STUB_NAME, 'home']);
    expect(await fs.readdir(path.join(root, 'app/home/.ssh'))).toEqual(['authorized_keys']);
    const after = await fs.stat(path.join(root, 'app'));
    expect([after.uid, after.gid, after.mode]).toEqual([before.uid, before.gid, before.mode]);
    const contract = Contract.parse(
      JSON.parse(await fs.readFile(path.join(root, 'usr/lib/port-image/contract.json'), 'utf8')),
    );
    expect(contract.data[0]).toMatchObject({
      id: set?.id,
      mount: '/app',
      manifest: `sha256:${set?.manifest.sha256}`,
    });
    const unit = `port-image-data@${set?.id}.service`;
    expect(await fs.readlink(path.join(root, 'etc/systemd/system/multi-user.target.wants', unit))).toBe(
      '/usr/lib/systemd/system/port-image-data@.service',
    );
    const dropIn = path.join(root, `etc/systemd/system/nginx.service.d/50-port-image-${set?.id}.conf`);
    expect(await fs.readFile(dropIn, 'utf8')).toContain(`Requires=${unit}\nAfter=${unit}\n`);
    expect((await fs.stat(path.join(root, 'usr/sbin/port-image-data'))).mode & 0o777).toBe(0o755);
    expect(ctx.changes.some((c) => c.action === 'remove' && c.path === '/app')).toBe(true);
  });

  test.each([
    [['/link'], 'is a link'],
    [['/missing'], 'is not there'],
    [['/app/plain'], 'is no folder'],
    [['/srv/owned'], 'packages own files'],
    [['/etc'], 'belongs to the system'],
  ])('%j: refused, %s', async (strip, why) => {
    const { ctx } = await prepare(strip);
    await expect(stage.plan(ctx)).rejects.toMatchObject({
      code: 'UNSAFE_PATH',
      message: expect.stringContaining(why),
    });
  });

  test('other file systems in the tree are refused by name', async () => {
    const mounts = [
      { path: '/', device: '/dev/sda' },
      { path: '/app/db', device: '/dev/sdb' },
    ];
    const { ctx } = await prepare(['/app'], { mounts });
    await expect(stage.plan(ctx)).rejects.toMatchObject({
      code: 'USAGE',
      hint: expect.stringContaining('/app/db'),
    });
  });

  test('nothing to strip: contract and client all the same', async () => {
    const { guest, ctx } = await prepare('auto', { candidates: [] });
    expect(await stage.run(ctx, await stage.plan(ctx))).toEqual([]);
    const contract = await fs.readFile(
      path.join(guest.session.root, 'usr/lib/port-image/contract.json'),
      'utf8',
    );
    expect(Contract.parse(JSON.parse(contract))).toMatchObject({ data: [], critical: [] });
  });
});
