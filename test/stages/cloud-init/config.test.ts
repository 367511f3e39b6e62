import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { expect, test } from 'vitest';
import * as yaml from 'yaml';
import { findBlockers, topLevelKeys } from '../../../stages/cloud-init/blockers.ts';
import {
  defaultUsers,
  hostKeyTypes,
  mergeDatasources,
  renderConfig,
} from '../../../stages/cloud-init/config.ts';
import { FolderGuest } from '../../families/debian/folder-guest.ts';

test('datasources of several platforms: each once, None last', () => {
  expect(
    mergeDatasources([['ConfigDrive', 'OpenStack', 'None'], ['NoCloud', 'ConfigDrive', 'None'], ['Azure']]),
  ).toEqual(['ConfigDrive', 'OpenStack', 'NoCloud', 'Azure', 'None']);
});

test.each([
  ['debian', 'debian', ['debian']],
  ['raspbian', 'debian', ['raspbian', 'debian']],
  ['ubuntu', 'debian', ['ubuntu']],
  ['rocky', 'rhel', ['rocky', 'cloud-user']],
  ['amzn', 'rhel', ['ec2-user']],
  ['fedora', 'rhel', ['fedora']],
  ['sles', 'suse', ['suse']],
  ['constructor', 'arch', ['constructor', 'arch']],
] as const)('the account cloud-init would create on %s', (distro, family, users) => {
  expect(defaultUsers({ distro, family })).toEqual(users);
});

test('a moved server keeps its identity, a template does not', () => {
  const input = {
    datasources: ['ConfigDrive', 'None'],
    generalize: false,
    hostKeyTypes: hostKeyTypes(['ssh_host_rsa_key', 'ssh_host_rsa_key.pub', 'ssh_host_dsa_key']),
    defaultUserExists: true,
  };
  const text = renderConfig(input);
  expect(text).toMatch(/^datasource_list: \[ ConfigDrive, None \]$/m);
  expect(yaml.parse(text, { version: '1.1' })).toMatchObject({
    preserve_hostname: true,
    ssh_deletekeys: false,
    ssh_genkeytypes: ['rsa'],
    disable_root: false,
    locale: 'false',
    system_info: { default_user: { lock_passwd: false, sudo: null } },
  });
  const template = yaml.parse(renderConfig({ ...input, generalize: true }), { version: '1.1' });
  expect(Object.keys(template).sort()).toEqual(['apt', 'datasource_list', 'locale', 'mounts']);
});

test('what is in the way is found, other settings stay', async () => {
  const root = await fs.mkdtemp(path.join(os.tmpdir(), 'blockers-'));
  const guest = new FolderGuest(root);
  const d = '/etc/cloud/cloud.cfg.d';
  await guest.write('/etc/cloud/cloud-init.disabled', '');
  await guest.write(`${d}/99-installer.cfg`, 'a: 1\n');
  await guest.write(`${d}/90_dpkg.cfg`, 'datasource_list: [ Ec2 ]\n');
  await guest.write(`${d}/99_mine.cfg`, 'datasource_list: [ Ec2 ]\nruncmd: [ ls ]\n');
  await guest.write(`${d}/05_logging.cfg`, 'output: {all: x}\n');
  await guest.write(`${d}/bad.cfg`, 'a: [\n');
  await guest.write(`${d}/91-port-image-network.cfg`, 'network: {config: disabled}\n');
  await guest.mkdir('/etc/systemd/system');
  await guest.symlink('/dev/null', '/etc/systemd/system/cloud-final.service');
  const { blockers, warnings } = await findBlockers(guest);
  expect(blockers.map((b) => `${b.kind} ${b.path}`)).toEqual([
    'remove /etc/cloud/cloud-init.disabled',
    'unmask /etc/systemd/system/cloud-final.service',
    `aside ${d}/90_dpkg.cfg`,
    `aside ${d}/99-installer.cfg`,
  ]);
  expect(warnings).toHaveLength(2);
  await fs.rm(root, { recursive: true });
});

test('odd YAML', () => {
  expect(topLevelKeys('')).toEqual([]);
  expect(topLevelKeys('- a\n')).toEqual([]);
  expect(topLevelKeys('a: [')).toBeUndefined();
});
