import { expect, test } from 'vitest';
import { platformsNamed } from '../../../drivers/registry.ts';
import { debian } from '../../../families/debian/index.ts';
import { agentsToRemove } from '../../../stages/guest-drivers/agents.ts';
import { uniteNeeds } from '../../../stages/guest-drivers/needs.ts';
import { Bundle } from '../../../stages/inspect/bundle.ts';
import { agentFacts } from '../../../stages/inspect/packages.ts';
import { sampleFacts } from '../../support/tree-guest.ts';

const INSTALLED = [
  'open-vm-tools',
  'virtualbox-guest-utils',
  'xe-guest-utilities',
  'waagent',
  'hyperv-daemons',
  'amazon-ssm-agent',
  'amazon-ec2-utils',
  'ec2-instance-connect',
  'google-guest-agent',
  'google-osconfig-agent',
  'gce-disk-expand',
  'oracle-cloud-agent',
  'qemu-guest-agent',
  'srvadmin-base',
  'storcli',
  'cloud-init',
  'ssacli-free-name',
  'nginx',
];

function removed(targets: readonly string[], warn: (text: string) => void = () => undefined): string[] {
  const packages = INSTALLED.map((name) => ({ name, version: '1', architecture: 'amd64' }));
  const facts = sampleFacts({ packages, agents: agentFacts(new Bundle(), packages) });
  const platforms = platformsNamed(targets);
  return agentsToRemove({ facts, platforms }, debian, uniteNeeds(platforms), warn);
}
const kept = (targets: readonly string[]) => {
  const gone = removed(targets);
  return INSTALLED.filter((name) => !gone.includes(name)).slice(0, -3);
};

test.each([
  [['openstack'], ['qemu-guest-agent']],
  [['aws'], ['amazon-ssm-agent', 'amazon-ec2-utils', 'ec2-instance-connect']],
  [['azure'], ['waagent', 'hyperv-daemons']],
  [['hyperv'], ['hyperv-daemons']],
  [['gcp'], ['google-guest-agent', 'google-osconfig-agent', 'gce-disk-expand']],
  [['vmware'], ['open-vm-tools']],
  [['xen'], ['xe-guest-utilities']],
  [['oci'], ['oracle-cloud-agent', 'qemu-guest-agent']],
  [
    ['vmware', 'openstack'],
    ['open-vm-tools', 'qemu-guest-agent'],
  ],
])('for %j stay %j, cloud-init and what belongs to nobody', (targets, expected) => {
  expect(kept(targets)).toEqual(expected);
});

test('no virtual machine keeps the tools of a server vendor, and every other name stays', () => {
  expect(removed(['all'])).toEqual(['srvadmin-base', 'storcli', 'virtualbox-guest-utils']);
});
