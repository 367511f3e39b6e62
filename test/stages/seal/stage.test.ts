import * as fs from 'node:fs/promises';
import { afterEach, expect, test } from 'vitest';
import { buildContract } from '../../../core/contract.ts';
import type { Kernel } from '../../../core/facts.ts';
import type { StageName } from '../../../core/stage.ts';
import { platformsNamed } from '../../../drivers/registry.ts';
import { stage } from '../../../stages/seal/index.ts';
import { writeContract } from '../../../tools/contract-writer.ts';
import { makeContext, makeTree, sampleFacts, type TreeSession } from '../../support/tree-guest.ts';

let guest: TreeSession;
afterEach(async () => {
  await fs.rm(guest.root, { recursive: true, force: true });
});

const TREE = {
  'etc/machine-id': '66fb9cb4abba3aafbd234b1d8779393e\n',
  'var/lib/dbus/machine-id': '66fb9cb4abba3aafbd234b1d8779393e\n',
  'var/lib/dhcp/dhclient.enp3s0.leases': 'lease',
  'var/lib/systemd/random-seed': 'seed',
  'etc/ssh/ssh_host_rsa_key': 'PRIVATE',
  'etc/ssh/ssh_host_rsa_key.pub': 'public',
  'home/anna/.ssh/authorized_keys': 'ssh-ed25519 AAAA',
  'home/anna/.bash_history': 'mysql -psecret',
  'home/anna/.aws/credentials': 'key',
  'var/log/syslog': 'kept',
  'etc/cron.d/x': 'kept',
};
const user = {
  name: 'anna',
  uid: 1000,
  gid: 1000,
  home: '/home/anna',
  shell: '/bin/bash',
  human: true,
  authorizedKeys: 1,
};

const kernel: Kernel = {
  version: '6.1',
  image: '/boot/vmlinuz-6.1',
  initramfs: '/boot/initrd.img-6.1',
  inBootMenu: true,
  isDefault: true,
  builtin: [],
  modules: ['virtio_blk'],
  initramfsModules: [],
};

async function job(generalize: boolean) {
  guest = await makeTree(TREE);
  const platforms = platformsNamed(['qemu']);
  const facts = sampleFacts({ users: [user], kernels: [kernel] });
  const ctx = makeContext({
    stage: 'seal',
    guest,
    facts,
    platforms,
    request: { generalize },
    out: guest.root,
  });
  const { request } = ctx;
  await writeContract(guest, buildContract({ facts, request, platforms, dataSets: [], version: '1' }));
  await fs.mkdir(ctx.paths.data);
  return {
    ...ctx,
    result: <T>(name: StageName) =>
      (name === 'guest-drivers' ? { rebuilt: [{ version: '6.1', drivers: ['virtio_blk'] }] } : undefined) as
        | T
        | undefined,
  };
}

test('only the machine is forgotten, the server stays', async () => {
  const ctx = await job(false);
  const result = await stage.run(ctx, await stage.plan(ctx));
  expect(await guest.readText('/etc/machine-id')).toBe('');
  expect(await guest.readLink('/var/lib/dbus/machine-id')).toBe('/etc/machine-id');
  expect(result.removed).toEqual([
    '/var/lib/dbus/machine-id',
    '/var/lib/dhcp/dhclient.enp3s0.leases',
    '/var/lib/systemd/random-seed',
  ]);
  expect(result.secrets).toEqual([
    '/etc/ssh/ssh_host_rsa_key',
    '/home/anna/.aws/credentials',
    '/home/anna/.bash_history',
    '/home/anna/.ssh/authorized_keys',
  ]);
  for (const path of [
    '/etc/ssh/ssh_host_rsa_key',
    '/var/log/syslog',
    '/etc/cron.d/x',
    '/home/anna/.ssh/authorized_keys',
  ]) {
    expect(await guest.kind(path)).toBe('file');
  }
  expect(JSON.stringify([ctx.changes, result])).not.toMatch(/PRIVATE|psecret|"seed"|"lease"/);
  expect(JSON.parse(await fs.readFile(`${ctx.paths.data}/contract.json`, 'utf8')).facts.drivers).toEqual([
    'virtio_blk',
  ]);
  expect((await stage.plan(ctx)).remove).toEqual([]);
});

test('a template loses host keys and logins too', async () => {
  const ctx = await job(true);
  await stage.run(ctx, await stage.plan(ctx));
  expect(await guest.list('/etc/ssh')).toEqual([]);
  expect(await guest.kind('/home/anna/.ssh/authorized_keys')).toBe('missing');
  expect(ctx.warnings).toHaveLength(1);
});
