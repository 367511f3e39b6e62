/** rpm itself (Debian's build of it): packages made by rpmbuild, chosen on the host, installed and removed by rpm. */
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { silentLog } from '../../core/log.ts';
import { rhel } from '../../families/rhel/index.ts';
import { rpmPackages } from '../../tools/rpm-database.ts';
import { readRpmFile } from '../../tools/rpm-file.ts';
import { packageTree } from '../support/package-tree.ts';
import { requires } from '../support/requires.ts';
import type { TreeSession } from '../support/tree-guest.ts';

const missing = process.getuid?.() === 0 ? requires('mmdebstrap', 'unshare', 'chroot') : 'not root';
let guest: TreeSession | undefined;
let scratch: string | undefined;
afterAll(async () => {
  for (const dir of [guest?.root, scratch]) if (dir) await fs.rm(dir, { recursive: true, force: true });
});

const spec = (name: string, version: string, lines: string) => `Name: ${name}
Version: ${version}
Release: 1
Summary: test
License: none
BuildArch: noarch
AutoReqProv: no
${lines}
%description
test
%files
`;

/** Debian's rpm refuses to install without --force-debian; that of no other distribution knows the word. */
const WRAPPER = `#!/bin/sh
case "$1" in -U|-e) exec /usr/libexec/real-rpm/rpm "$1" --force-debian "$@" ;; esac
exec /usr/libexec/real-rpm/rpm "$@"
`;

async function build(tree: TreeSession, pool: string): Promise<void> {
  await tree.mkdir('/root/specs');
  const specs: [string, string][] = [
    ['old', spec('demo-agent', '1.9', '')],
    ['new', spec('demo-agent', '1.10', 'Epoch: 0\nRequires: demo-lib >= 2\nRequires: /usr/bin/demo-sh')],
    ['lib', spec('demo-lib', '2.0', 'Provides: /usr/bin/demo-sh')],
    ['needs', spec('demo-broken', '1', 'Requires: nobody-has-this')],
    ['other', spec('demo-other', '1', '')],
  ];
  for (const [file, text] of specs) await tree.write(`/root/specs/${file}.spec`, text);
  await tree.guest('cd /root/specs && for s in *.spec; do rpmbuild -bb --quiet "$s" || exit 1; done');
  const from = path.join(tree.root, 'root/rpmbuild/RPMS/noarch');
  for (const name of await fs.readdir(from)) await fs.copyFile(path.join(from, name), path.join(pool, name));
}

test.skipIf(missing)('from a folder of packages into the guest, and out again', async (context) => {
  try {
    guest = await packageTree(['rpm']);
  } catch (error) {
    context.skip(`the packages of rpm cannot be had: ${String(error).slice(0, 200)}`);
    return;
  }
  const tree = guest;
  scratch = await fs.mkdtemp(path.join(os.tmpdir(), 'rpm-pool-'));
  await tree.guest('mkdir -p /usr/libexec/real-rpm && mv /usr/bin/rpm /usr/libexec/real-rpm/rpm');
  await tree.write('/usr/bin/rpm', WRAPPER, { mode: 0o755 });
  await build(tree, scratch);
  const options = {
    cacheDir: scratch,
    tmpDir: scratch,
    offlinePool: scratch,
    signal: new AbortController().signal,
    log: silentLog,
  };
  expect(await readRpmFile(path.join(scratch, 'demo-agent-1.10-1.noarch.rpm'))).toMatchObject({
    name: 'demo-agent',
    version: '0:1.10-1',
    architecture: 'noarch',
  });

  const set = await rhel.resolvePackages(tree, ['demo-agent'], options);
  expect(set.packages.map((p) => [p.name, p.version, p.requested])).toEqual([
    ['demo-agent', '0:1.10-1', true],
    ['demo-lib', '2.0-1', false],
  ]);
  await rhel.installPackages(tree, set, silentLog);
  expect((await rpmPackages(tree)).map((p) => p.name).sort()).toEqual(['demo-agent', 'demo-lib']);
  expect(await tree.kind('/run/port-image/packages')).toBe('missing');
  // A second time there is nothing to do, not even for what only a capability names.
  expect(await rhel.resolvePackages(tree, ['demo-agent', '/usr/bin/demo-sh'], options)).toEqual({
    files: [],
    packages: [],
  });

  // Refused by rpm before anything changes.
  const broken = await rhel.resolvePackages(tree, ['demo-broken', 'demo-other'], options);
  await expect(rhel.installPackages(tree, broken, silentLog)).rejects.toThrow(/nobody-has-this/);
  expect((await rpmPackages(tree)).length).toBe(2);
  await expect(rhel.removePackages(tree, ['demo-lib'])).rejects.toThrow(/demo-agent/);
  await rhel.removePackages(tree, ['demo-agent']);
  expect((await rpmPackages(tree)).map((p) => p.name)).toEqual(['demo-lib']);

  await expect(rhel.resolvePackages(tree, ['cloud-init'], options)).rejects.toMatchObject({
    code: 'PACKAGES',
    message: expect.stringContaining('cloud-init'),
    hint: expect.stringContaining('dnf download'),
  });
});
