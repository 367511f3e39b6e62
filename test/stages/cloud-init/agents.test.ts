import * as fs from 'node:fs/promises';
import { afterEach, describe, expect, test } from 'vitest';
import type { AgentRole } from '../../../core/platform.ts';
import { applyEdits } from '../../../families/edits.ts';
import { agentEdits } from '../../../stages/cloud-init/agents.ts';
import { makeContext, makeTree, sampleFacts, type TreeSession } from '../../support/tree-guest.ts';

let guest: TreeSession;
afterEach(() => fs.rm(guest.root, { recursive: true, force: true }));

const ALL: AgentRole[] = [
  'cloud-init',
  'azure-agent',
  'hyperv-daemons',
  'google-guest-agent',
  'google-oslogin',
  'open-vm-tools',
  'xe-guest-utilities',
];
const UNIT = '[Service]\nExecStart=/bin/true\n';
/** Units and settings as the packages of Debian 12 leave them. */
const TREE = {
  'usr/lib/systemd/system/walinuxagent.service': UNIT,
  'usr/lib/systemd/system/google-guest-agent.service': UNIT,
  'usr/lib/systemd/system/google-oslogin-cache.timer': '[Timer]\n',
  'lib/systemd/system/open-vm-tools.service': UNIT,
  'usr/lib/systemd/system/ssh.service': UNIT,
  'etc/waagent.conf':
    '# Which provisioning agent to use.\nProvisioning.Agent=auto\nResourceDisk.Format=y\nOS.EnableFIPS=n\n',
};
const conf = (unit: string) => guest.readText(`/etc/systemd/system/${unit}.d/50-port-image.conf`);

describe('agents of one platform', () => {
  test('start where they belong; what a moved server keeps is theirs no more', async () => {
    guest = await makeTree(TREE);
    const ctx = makeContext({ stage: 'cloud-init', guest, facts: sampleFacts(), platforms: [] });
    await applyEdits(ctx, await agentEdits(guest, ALL, false));
    expect(await conf('walinuxagent.service')).toContain(
      'ExecCondition=grep -qsxF "7783-7084-3265-9085-8269-3286-77" /sys/class/dmi/id/chassis_asset_tag\n',
    );
    expect(await conf('open-vm-tools.service')).toContain('[Unit]\nConditionVirtualization=vmware\n');
    expect(await conf('google-guest-agent.service')).toContain('"Google Compute Engine"');
    expect(await conf('google-oslogin-cache.timer')).not.toContain('ExecCondition');
    expect(await conf('ssh.service')).toBeUndefined();
    expect(await guest.readText('/etc/waagent.conf')).toBe(
      '# Which provisioning agent to use.\nProvisioning.Agent=cloud-init\nResourceDisk.Format=n\nOS.EnableFIPS=n\nProvisioning.DeleteRootPassword=n\nProvisioning.RegenerateSshHostKeyPair=n\nResourceDisk.EnableSwap=n\n',
    );
    expect(await guest.readText('/etc/default/instance_configs.cfg')).toMatch(
      /\[InstanceSetup\]\nset_host_keys=false\n[\s\S]*\[NetworkInterfaces\]\nsetup=false\n/,
    );
    expect(await guest.readText('/etc/default/instance_configs.cfg')).toContain('accounts_daemon=false');
    expect(await agentEdits(guest, ALL, false)).toEqual([]);
  });

  test('a template leaves accounts to the cloud', async () => {
    guest = await makeTree(TREE);
    const edits = await agentEdits(guest, ALL, true);
    const google = edits.find((e) => e.path === '/etc/default/instance_configs.cfg');
    expect(google?.after).toContain('set_host_keys=false');
    expect(google?.after).not.toContain('accounts_daemon');
  });

  test('agents that are not there, or that no platform asks for, leave nothing', async () => {
    guest = await makeTree({ 'etc/waagent.conf': 'Provisioning.Agent=auto\n' });
    expect(await agentEdits(guest, ALL, false)).toEqual([]);
    await fs.rm(guest.root, { recursive: true });
    guest = await makeTree(TREE);
    expect(await agentEdits(guest, ['cloud-init', 'qemu-guest-agent', 'growpart', 'fetch'], false)).toEqual(
      [],
    );
  });
});
