import * as fs from 'node:fs/promises';
import { afterEach, describe, expect, test } from 'vitest';
import { platformsNamed } from '../../../drivers/registry.ts';
import { applyEdits } from '../../../families/edits.ts';
import { clockEdits } from '../../../stages/cloud-init/clocks.ts';
import { makeContext, makeTree, sampleFacts, type TreeSession } from '../../support/tree-guest.ts';

let guest: TreeSession;
afterEach(() => fs.rm(guest.root, { recursive: true, force: true }));

const facts = (version = '4.3-2+deb12u1') =>
  sampleFacts({ packages: [{ name: 'chrony', version, architecture: 'amd64' }] });
const TREE = {
  'etc/chrony/chrony.conf':
    'confdir /etc/chrony/conf.d\nsourcedir /etc/chrony/sources.d\nrefclock PHC /dev/ptp_hyperv poll 3\nmakestep 1 3\n',
  'etc/chrony/sources.d/aws.sources': 'server 169.254.169.123 prefer iburst\n',
  'usr/lib/systemd/system/chrony.service': '[Service]\nExecStart=/usr/sbin/chronyd\n',
};
const all = platformsNamed(['all']);

describe('clocks of a guest with chrony', () => {
  test('the old platform goes, a pool comes where nothing is left, the new ones are a table; twice is once', async () => {
    guest = await makeTree(TREE);
    const ctx = makeContext({ stage: 'cloud-init', guest, facts: facts(), platforms: all });
    await applyEdits(ctx, await clockEdits(guest, facts(), all));
    const config = await guest.readText('/etc/chrony/chrony.conf');
    expect(config).toContain('\n# port-image: only on the platform the server comes from: refclock PHC');
    expect(config).toMatch(/pool \S+ iburst\n/);
    expect(config?.endsWith('\nconfdir /etc/chrony/port-image.d\n')).toBe(true);
    expect(await guest.readText('/etc/chrony/sources.d/aws.sources')).toMatch(/^# port-image/);
    expect(await guest.readText('/etc/systemd/system/chrony.service.d/50-port-image-clock.conf')).toContain(
      'ExecStartPre=-+/usr/lib/port-image/clock\n',
    );
    expect(await guest.mode('/usr/lib/port-image/clock')).toBe(0o755);
    expect(await guest.readText('/usr/lib/port-image/clocks')).toMatch(/^aws server 169/m);
    expect(await clockEdits(guest, facts(), all)).toEqual([]);
  });

  test('sources of the server stay, and no pool is added beside them', async () => {
    guest = await makeTree({ ...TREE, 'etc/chrony/conf.d/own.conf': 'server time.example iburst\n' });
    const edits = await clockEdits(guest, facts(), all);
    expect(edits.some((e) => e.path.endsWith('own.conf'))).toBe(false);
    expect(edits.find((e) => e.path.endsWith('chrony.conf'))?.after).not.toMatch(/^pool/m);
  });

  test('a chrony that reads no folders, and platforms without clocks, only lose the old ones', async () => {
    guest = await makeTree(TREE);
    for (const edits of [
      await clockEdits(guest, facts('3.4-4'), all),
      await clockEdits(guest, facts(), platformsNamed(['vmware'])),
    ]) {
      expect(edits.map((e) => e.path).sort()).toEqual([
        '/etc/chrony/chrony.conf',
        '/etc/chrony/sources.d/aws.sources',
      ]);
    }
  });

  test('without chrony nothing changes', async () => {
    guest = await makeTree({ 'etc/systemd/timesyncd.conf': '[Time]\n' });
    expect(await clockEdits(guest, facts(), all)).toEqual([]);
  });
});
