import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { run } from '../../core/command.ts';
import { installGuestSide } from '../../tools/guest-side.ts';
import { dataSetUnits, isEarlyUnit } from '../../tools/systemd-units.ts';
import { requires } from '../support/requires.ts';
import { TreeGuest } from '../support/tree-guest.ts';

let root = '';
beforeEach(async () => {
  root = await fs.mkdtemp(path.join(os.tmpdir(), 'units-'));
});
afterEach(async () => {
  await fs.rm(root, { recursive: true, force: true });
});

const set = (id: string, mode: 'eager' | 'lazy', neededBy: string[]) => ({
  id,
  path: `/srv/${id}`,
  mode,
  neededBy,
  keep: [],
  bytes: 1,
  files: 1,
  neededBytes: 1,
  segments: 1,
  manifestSha256: '0'.repeat(64),
  segmentsSha256: '0'.repeat(64),
});

async function install(sets: ReturnType<typeof set>[]): Promise<string[]> {
  const warnings: string[] = [];
  const contract = {
    contract: 'port-image/1' as const,
    critical: [],
    image: { id: 'x-1', name: 'x', version: '1', source: 'p2v' },
    facts: {
      os: { distro: 'debian', version: '12' },
      arch: 'x86_64',
      firmware: ['bios' as const],
      drivers: [],
      datasources: [],
      platforms: [],
    },
    needs: { minDiskGiB: 1, minRamMiB: 1, configDrive: 'none' as const, egress: [] },
    data: [],
    credentials: [],
    stripped: [],
  };
  const options = {
    init: 'systemd' as const,
    contract,
    dataSets: sets,
    warn: (t: string) => warnings.push(t),
  };
  await installGuestSide(new TreeGuest(root), options);
  return warnings;
}

async function unit(name: string, text: string): Promise<void> {
  const dir = path.join(root, 'etc/systemd/system');
  await fs.mkdir(dir, { recursive: true });
  await fs.writeFile(path.join(dir, name), text);
}

test('units that must be up before the network', () => {
  for (const text of [
    '[Unit]\nDefaultDependencies=no\n',
    '[Unit]\nBefore=foo.service network-online.target\n',
    '[Unit]\nBefore=cloud-init.service\n',
    '[Unit]\nBefore=cloud-init-network.service\n',
    '[Unit]\nBefore=sysinit.target\n',
  ])
    expect(isEarlyUnit(text)).toBe(true);
  for (const text of ['[Unit]\nBefore=cloud-final.service\n', '[Service]\nBefore=network.target\n', ''])
    expect(isEarlyUnit(text)).toBe(false);
});

test('a unit before the network gets no drop-in and is named; the others wait', async () => {
  await unit('early.service', '[Unit]\nBefore=network-pre.target\n[Service]\nExecStart=/bin/true\n');
  await unit('app.service', '[Service]\nExecStart=/bin/true\n');
  const warnings = await install([set('a', 'eager', ['early.service', 'app.service'])]);
  expect(warnings).toEqual([expect.stringMatching(/^early\.service starts before the network.*\/srv\/a/)]);
  const dir = path.join(root, 'etc/systemd/system');
  expect(await fs.readdir(dir)).not.toContain('early.service.d');
  const dropIn = await fs.readFile(path.join(dir, 'app.service.d/50-port-image-a.conf'), 'utf8');
  expect(dropIn).toContain('Requires=port-image-data@a.service\nAfter=port-image-data@a.service');
});

test('the prefetch is there where something is lazy', async () => {
  const link = () =>
    fs.readlink(path.join(root, 'etc/systemd/system/multi-user.target.wants/port-image-prefetch.service'));
  await install([set('a', 'eager', [])]);
  await expect(link()).rejects.toThrow();
  await install([set('a', 'eager', []), set('b', 'lazy', [])]);
  expect(await link()).toBe('/usr/lib/systemd/system/port-image-prefetch.service');
  const prefetch = await fs.readFile(
    path.join(root, 'usr/lib/systemd/system/port-image-prefetch.service'),
    'utf8',
  );
  expect(prefetch).toMatch(/After=multi-user.target/);
  expect(prefetch).toMatch(/IOSchedulingClass=idle/);
});

test('the fetch is ordered behind the network stage of cloud-init by both its names, and not behind later ones', async () => {
  const text = await fs.readFile('guest/port-image-data@.service', 'utf8');
  const after = text.split('\n').filter((line) => line.startsWith('After='));
  expect(after.join(' ')).toMatch(/\bcloud-init\.service\b/);
  expect(after.join(' ')).toMatch(/\bcloud-init-network\.service\b/);
  // Those are ordered behind multi-user.target, which waits for the fetch.
  expect(after.join(' ')).not.toMatch(/cloud-(final|config)|cloud-init\.target/);
  expect(text).not.toMatch(/^(Wants|Requires)=.*cloud/m);
});

test.skipIf(requires('systemd-analyze'))('systemd finds no fault in the units', async () => {
  await install([set('a', 'eager', []), set('b', 'lazy', [])]);
  await fs.mkdir(path.join(root, 'usr/sbin'), { recursive: true });
  const dir = path.join(root, 'usr/lib/systemd/system');
  const files = ['port-image-data@.service', 'port-image-prefetch.service'].map((name) =>
    path.join(dir, name),
  );
  const lazy = dataSetUnits('b', '/srv/b', 'lazy', []).flatMap((f) =>
    f.content === undefined ? [] : [f.path],
  );
  const { stdout, stderr } = await run('systemd-analyze', [
    'verify',
    '--man=no',
    ...files,
    ...lazy.map((file) => path.join(root, file)),
  ]).catch((error: { message: string }) => ({ stdout: error.message, stderr: '' }));
  expect(stdout + stderr).not.toMatch(/Unknown (key|section|lvalue)|cycle|bad unit file/i);
});
