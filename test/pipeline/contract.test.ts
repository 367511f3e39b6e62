/** Checks of a contract on a guest that is a folder: what the real writer installs holds, each change is named. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { buildContract, CONTRACT_PATH, type Contract } from '../../core/contract.ts';
import type { DataMode, DataSetSummary } from '../../core/data-set.ts';
import { PortError } from '../../core/errors.ts';
import type { Facts } from '../../core/facts.ts';
import { openstack } from '../../drivers/openstack/index.ts';
import { isInside, keptPaths, parseDataConf } from '../../pipeline/contract/data-conf.ts';
import { checkContract, contractBroken } from '../../pipeline/contract/verify.ts';
import { renderConfig } from '../../stages/cloud-init/config.ts';
import {
  dataSetConf,
  type GuestDataSet,
  installGuestSide,
  STUB_NAME,
  stubText,
} from '../../tools/guest-side.ts';
import { DiskSession } from '../support/disk-guest.ts';
import { makeContext, makeTree, sampleFacts } from '../support/tree-guest.ts';

const SHOP = 'shop-srv-app-1';
const FILES = 'shop-files-2';
const HOME = 'shop-home-3';
const kernel = {
  version: '6.1.0',
  image: '/boot/vmlinuz-6.1.0',
  inBootMenu: true,
  isDefault: true,
  builtin: ['virtio_pci'],
  modules: ['virtio_net', 'virtio_blk', 'virtio_scsi', 'sd_mod'],
  initramfsModules: ['virtio_blk', 'virtio_scsi', 'sd_mod'],
};
const baseFacts = sampleFacts({ kernels: [kernel] });

function dataSet(id: string, at: string, mode: DataMode, keep: string[] = []): GuestDataSet {
  return {
    id,
    path: at,
    mode,
    neededBy: mode === 'manual' ? ['multi-user.target'] : ['nginx.service', 'multi-user.target'],
    keep,
    bytes: 4096,
    files: 3,
    neededBytes: 8192,
    segments: 1,
    manifestSha256: 'a'.repeat(64),
    segmentsSha256: 'b'.repeat(64),
  };
}
const sets = [
  dataSet(SHOP, '/srv/app', 'eager'),
  dataSet(FILES, '/var/lib/files', 'lazy'),
  dataSet(HOME, "/home/o'dd dir", 'manual', ['alice/.ssh', 'ü b/.ssh']),
];
const summaries = sets.map(
  (s): DataSetSummary => ({
    id: s.id,
    path: s.path,
    bytes: s.bytes,
    storedBytes: 1,
    files: s.files,
    entries: 4,
    segments: s.segments,
    manifest: { key: `${s.id}/manifest.json`, sha256: s.manifestSha256 },
    segmentsSha256: s.segmentsSha256,
    neededBy: [...s.neededBy],
    mode: s.mode,
    rule: 'srv',
    reused: false,
  }),
);

let guest: DiskSession;
let contract: Contract;
/** Owners other than root, by guest path. */
let owners: Map<string, number>;
let bootSector: string;
const at = (name: string): string => path.join(guest.root, name);

async function answer({ what, args }: { what: string; args: string[] }): Promise<string> {
  const name = args.at(-1) ?? '';
  if (what === 'pread-device') return bootSector;
  if (what !== 'lstatns') throw new Error(`unexpected call ${what}`);
  const stat = await fs.lstat(await guest.host(name, false)).catch(() => undefined);
  if (stat === undefined) throw new PortError('APPLIANCE', `lstatns: ${name}: No such file or directory`);
  return `st_dev: 1\nst_mode: ${stat.mode}\nst_uid: ${owners.get(name) ?? 0}\nst_gid: 0\n`;
}

beforeEach(async () => {
  const bin = Object.fromEntries(
    ['curl', 'tar', 'zstd', 'sha256sum', 'cloud-init'].map((n) => [`usr/bin/${n}`, '']),
  );
  const tree = await makeTree({
    ...bin,
    'usr/bin/mawk': '',
    'usr/bin/awk': { link: 'mawk' },
    'etc/cloud/cloud.cfg': 'datasource_list: [ Azure ]\n',
    'etc/cloud/cloud.cfg.d/99-port-image.cfg': renderConfig({
      datasources: openstack.needs.datasources,
      generalize: false,
      hostKeyTypes: [],
      defaultUserExists: false,
    }),
    "home/o'dd dir/alice/.ssh/authorized_keys": 'ssh-ed25519 AAAA',
    "home/o'dd dir/ü b/.ssh/authorized_keys": 'ssh-ed25519 AAAA',
  });
  guest = new DiskSession(tree.root, '');
  guest.answer = answer;
  owners = new Map();
  bootSector = `\0${'\x90'.repeat(4)}\0\n`;
  const { request } = makeContext({ stage: 'strip', guest, facts: baseFacts, platforms: [openstack] });
  contract = buildContract({
    facts: baseFacts,
    request,
    platforms: [openstack],
    dataSets: summaries,
    version: '2026.01.02',
  });
  for (const set of sets) {
    await guest.mkdir(set.path);
    await guest.write(`${set.path}/${STUB_NAME}`, stubText(set));
  }
  await installGuestSide(guest, { init: 'systemd', contract, dataSets: sets, warn: () => {} });
});
afterEach(() => fs.rm(guest.root, { recursive: true, force: true }));

async function checks(facts: Facts = baseFacts) {
  const text = await fs.readFile(at(CONTRACT_PATH), 'utf8');
  return (await checkContract(guest, facts, text)).checks;
}
const failed = async (facts?: Facts) =>
  (await checks(facts)).filter((c) => !c.ok).map((c) => `${c.name}: ${c.detail}`);
const claim = async (change: (c: Contract) => unknown) => {
  change(contract);
  await fs.writeFile(at(CONTRACT_PATH), JSON.stringify(contract));
};

test('what strip and cloud-init install is what the contract claims', async () => {
  const all = await checks();
  expect(all.filter((c) => !c.ok || c.warning)).toEqual([]);
  expect(all.map((c) => c.name)).toEqual(
    expect.arrayContaining([
      ...['contract', 'critical', 'system', 'architecture', 'firmware', 'drivers', 'disk', 'datasources'],
      ...['credentials', 'client', 'stripped', 'secrets'],
      ...[SHOP, FILES, HOME].flatMap((id) => ['configuration', 'units', 'folder'].map((n) => `${id}: ${n}`)),
    ]),
  );
  expect(all.find((c) => c.name === `${HOME}: folder`)?.detail).toContain('alice/.ssh, ü b/.ssh');
});

const conf = `/usr/lib/port-image/data.d/${SHOP}.conf`;
const dropIn = `/etc/systemd/system/nginx.service.d/50-port-image-${SHOP}.conf`;
const mountUnit = '/etc/systemd/system/var-lib-files.mount';

type Tamper = () => unknown;
const tampers: [what: string, tamper: Tamper, expected: RegExp][] = [
  ['unknown critical field', () => claim((c) => c.critical.push('toString')), /^critical: .*toString/],
  ['other version', () => claim((c) => (c.facts.os.version = '13')), /^system: .*version 13.*holds 12/],
  ['other architecture', () => claim((c) => (c.facts.arch = 'aarch64')), /^architecture: .*x86_64/],
  ['other firmware', () => claim((c) => (c.facts.firmware = ['uefi'])), /^firmware: .*bios.*no EFI system/],
  ['empty boot sector', () => (bootSector = '\0\0\0\n'), /^firmware: bios: the boot sector/],
  ['a driver more', () => claim((c) => c.facts.drivers.push('nvme')), /^drivers: kernel 6\.1\.0 has no nvme/],
  [
    'a network driver more',
    () => claim((c) => c.facts.networkDrivers?.push('e1000')),
    /^drivers: kernel 6\.1\.0 has no e1000 at all/,
  ],
  ['small disk', () => claim((c) => (c.needs.minDiskGiB = 7)), /^disk: .*7 GiB/],
  [
    'other datasources',
    () => guest.write('/etc/cloud/cloud.cfg.d/zz.cfg', 'datasource_list: [ NoCloud, None ]\na: 1\n'),
    /^datasources: .*zz\.cfg does not name ConfigDrive, OpenStack; .*names NoCloud/,
  ],
  [
    'cloud-init switched off',
    () => guest.write('/etc/cloud/cloud-init.disabled', ''),
    /^datasources: .*switches cloud-init off/,
  ],
  ['no cloud-init', () => guest.remove('/usr/bin/cloud-init'), /^datasources: cloud-init is not installed/],
  [
    'credential not required',
    () => claim((c) => (c.credentials = c.credentials.map((d) => ({ ...d, required: false })))),
    /^credentials: shop-srv-app-1 is fetched at boot/,
  ],
  ['no config drive', () => claim((c) => (c.needs.configDrive = 'none')), /^credentials: .*no config drive/],
  [
    'client not executable',
    () => fs.chmod(at('usr/sbin/port-image-data'), 0o644),
    /^client: .*not executable/,
  ],
  ['client of a user', () => owners.set('/usr/sbin/port-image-data', 1000), /^client: .*user 1000/],
  [
    'reader gone',
    () => guest.remove('/usr/lib/port-image/json-get.awk'),
    /^client: .*json-get\.awk is missing/,
  ],
  ['no zstd', () => guest.remove('/usr/bin/zstd'), /^client: zstd, which it needs/],
  [
    'a data set nobody claims',
    () => guest.write('/usr/lib/port-image/data.d/extra.conf', ''),
    /^client: data\.d holds extra\.conf/,
  ],
  [
    'other digest',
    async () =>
      guest.write(conf, (await guest.readText(conf))?.replace('b'.repeat(64), 'c'.repeat(64)) ?? ''),
    /^shop-srv-app-1: configuration: SEGMENTS_SHA256 is c+, the contract says b+$/,
  ],
  [
    'code in a configuration',
    async () => guest.write(conf, `${await guest.readText(conf)}FILES=$(id)\n`),
    /configuration: .*no plain assignment/,
  ],
  [
    'another variable of the client',
    async () => guest.write(conf, `${await guest.readText(conf)}STATE=x\n`),
    /configuration: .*STATE, which is none of ours/,
  ],
  [
    'configuration anyone may write',
    () => fs.chmod(at(conf), 0o666),
    /configuration: .*changed by others than root/,
  ],
  ['drop-in gone', () => guest.remove(dropIn), /^shop-srv-app-1: units: .*50-port-image.* is missing$/],
  [
    'drop-in without effect',
    async () => guest.write(dropIn, (await guest.readText(dropIn))?.replace('Requires=', '#Requires=') ?? ''),
    /units: .*does not say what it should$/,
  ],
  [
    'link to elsewhere',
    () =>
      guest.symlink(
        '/dev/null',
        `/etc/systemd/system/multi-user.target.wants/port-image-data@${SHOP}.service`,
      ),
    /units: .*no link to/,
  ],
  [
    'masked',
    () => guest.symlink('/dev/null', `/etc/systemd/system/port-image-data@${SHOP}.service`),
    /units: .*stands in for the unit/,
  ],
  [
    'lazy mount gone',
    () => guest.remove(mountUnit),
    /^shop-files-2: units: .*var-lib-files\.mount is missing$/,
  ],
  ['stub gone', () => guest.remove(`/srv/app/${STUB_NAME}`), /^shop-srv-app-1: folder: .*txt is missing$/],
  [
    'a file beside the stub',
    () => guest.write('/srv/app/new\x1b[2J', 'x'),
    /^shop-srv-app-1: folder: \/srv\/app still holds new\\x1b\[2J$/,
  ],
  [
    'a link instead of the folder',
    async () => {
      await guest.rename('/srv/app', '/srv/moved');
      await guest.symlink('/etc', '/srv/app');
    },
    /folder: \/srv\/app is no folder/,
  ],
  [
    'more in a kept folder is fine, beside it is not',
    () => guest.write("/home/o'dd dir/alice/notes", 'x'),
    /^shop-home-3: folder: .*still holds alice\/notes$/,
  ],
  [
    'restored into the image',
    async () => {
      await guest.mkdir(`/var/lib/port-image/data/${SHOP}`);
      await guest.write(`/var/lib/port-image/data/${SHOP}/done`, 'a');
    },
    /folder: the data was fetched/,
  ],
  [
    'stripped, but there',
    async () => {
      await guest.mkdir('/opt/old');
      await guest.write('/opt/old/file', 'x');
      await claim((c) => c.stripped.push({ path: '/opt/old', why: 'requested' }));
    },
    /^stripped: \/opt\/old is called stripped and still holds file$/,
  ],
  [
    'contract of a user',
    () => owners.set(CONTRACT_PATH, 1000),
    /^contract: .*contract\.json belongs to user 1000/,
  ],
];

describe('one thing changed, one claim broken', () => {
  test.each(tampers)('%s', async (_, tamper, expected) => {
    await tamper();
    const lines = await failed();
    expect(lines, lines.join('\n')).toHaveLength(1);
    expect(lines[0]).toMatch(expected);
  });

  test('the disk differs from the claim: drivers of each kernel of the boot menu, UEFI without fallback', async () => {
    const old = { ...kernel, version: '5.10.0', isDefault: false, initramfsModules: ['virtio_blk'] };
    const uefi = { ...baseFacts, kernels: [kernel, old], firmware: 'uefi' as const };
    uefi.bootloader = { ...baseFacts.bootloader, espMount: '/boot/efi', fallbackLoader: false };
    await claim((c) => (c.facts.firmware = ['uefi']));
    const lines = await failed(uefi);
    expect(lines).toHaveLength(2);
    expect(lines[0]).toMatch(/^firmware: uefi: .*EFI\/BOOT\/BOOT/);
    expect(lines[1]).toMatch(/^drivers: kernel 5\.10\.0 has no sd_mod, virtio_scsi in its initramfs/);
    uefi.bootloader.fallbackLoader = true;
    uefi.kernels = [kernel, { ...old, inBootMenu: false }];
    expect(await failed(uefi)).toEqual([]);
  });
});

test('a unit that starts before the network has no drop-in, and that is told', async () => {
  await guest.write('/etc/systemd/system/nginx.service', '[Unit]\nDefaultDependencies=no\n');
  await guest.remove(dropIn);
  const units = (await checks()).find((c) => c.name === `${SHOP}: units`);
  expect(units).toMatchObject({ ok: true, warning: true, detail: expect.stringContaining('nginx.service') });
  await guest.write('/etc/systemd/system/nginx.service', '[Unit]\nAfter=network.target\n');
  expect(await failed()).toEqual([expect.stringContaining('is missing')]);
});

test('a contract that is none is one failed check, and nothing else is believed', async () => {
  await fs.writeFile(at(CONTRACT_PATH), '{"contract":"port-image/9"}');
  expect(await failed()).toEqual([
    expect.stringMatching(/^contract: .*contract\.json is no contract: contract:/),
  ]);
});

test('the error of a broken contract names each claim, and the first cause as its hint', async () => {
  await claim((c) => {
    c.facts.arch = 'aarch64';
    c.needs.minDiskGiB = 7;
  });
  const error = contractBroken({ image: '/i\x1b.qcow2', verified: false, checks: await checks(), id: 'x' });
  expect(error).toMatchObject({
    code: 'VERIFY_FAILED',
    exitStatus: 7,
    hint: expect.stringMatching(/aarch64/),
  });
  expect(error.message).toBe('the contract of /i\\x1b.qcow2 does not hold: architecture, disk');
});

test('hostile names in a contract lead nowhere and end in failed checks', async () => {
  await claim((c) => {
    c.stripped.push({ path: '/srv/../etc', why: '' });
    if (c.data[0] !== undefined) c.data[0].mount = '/usr/lib/../../etc';
  });
  const names = (await failed()).map((l) => l.split(': ').slice(0, -1).join(': '));
  expect(names.some((n) => n.startsWith(`${SHOP}: folder`))).toBe(true);
  expect(names.some((n) => n.startsWith('stripped'))).toBe(true);
  await claim((c) => c.stripped.push({ path: '/a\0b', why: '' }));
  expect(await failed()).toEqual([expect.stringMatching(/^contract: .*it holds a NUL$/)]);
});

test('a provision document in the image is a warning that does not hold its content', async () => {
  const secret = 'https://store/x/?temp_url_sig=abc';
  await guest.mkdir('/etc/port-image');
  await guest.write('/etc/port-image/provision.json', `{"version":1,"data":{"a":{"url":"${secret}"}}}`);
  await guest.mkdir('/var/lib/cloud/instances/i-1');
  await guest.write('/var/lib/cloud/instances/i-1/vendor-data2.txt', `{"port_image":"${secret}"}`);
  const all = await checks();
  expect(all.every((c) => c.ok)).toBe(true);
  const warnings = all.filter((c) => c.warning);
  expect(warnings).toHaveLength(1);
  expect(warnings[0]?.detail).toMatch(/provision\.json.*vendor-data2\.txt/);
  expect(JSON.stringify(all)).not.toContain('temp_url_sig');
});

test('configurations read back as they are written, whatever the path', () => {
  for (const odd of ["/srv/a'b", "/srv/'", '/srv/$(id)', '/srv/a\\b `x`', '/srv/"ü"']) {
    const set = { ...dataSet('x', odd, 'eager'), keep: ['ü b/.ssh', "it's/.ssh", 'a\\0b'] };
    const read = parseDataConf(dataSetConf(set));
    if (typeof read === 'string') throw new Error(read);
    expect(read.get('DATA_PATH')).toBe(odd);
    expect(JSON.parse(read.get('PATH_JSON') ?? '')).toBe(odd);
    expect(keptPaths(read)).toEqual(set.keep);
  }
  expect(['a/../b', '/etc', 'a//b', '..', ''].map(isInside)).toEqual([false, false, false, false, false]);
  expect(isInside('a/.ssh')).toBe(true);
});
