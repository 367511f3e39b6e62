import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { buildContract, type Contract, type Provision } from '../../core/contract.ts';
import type { DataMode, DataSetSummary } from '../../core/data-set.ts';
import type { Platform } from '../../core/platform.ts';
import { GIB, MIB } from '../../core/sizes.ts';
import { openstack } from '../../drivers/openstack/index.ts';
import { qemu } from '../../drivers/qemu/index.ts';
import { platforms } from '../../drivers/registry.ts';
import {
  diskHardware,
  type Hardware,
  type MatchTarget,
  matchContract,
  NEED_KINDS,
  targetOf,
} from '../../pipeline/contract/match.ts';
import { parseProvision } from '../../pipeline/contract/provision.ts';
import { makeContext, sampleFacts, TreeSession } from '../support/tree-guest.ts';

const summary = (id: string, mode: DataMode): DataSetSummary => ({
  id,
  path: `/srv/${id}`,
  bytes: 1,
  storedBytes: 1,
  files: 1,
  entries: 1,
  segments: 1,
  manifest: { key: `${id}/manifest.json`, sha256: 'a'.repeat(64) },
  segmentsSha256: 'b'.repeat(64),
  neededBy: ['nginx.service'],
  mode,
  rule: 'srv',
  reused: false,
});

/** The contract of an image that was made for these platforms, on a kernel that has all they ask for. */
function contractFor(list: readonly Platform[], dataSets: DataSetSummary[] = []): Contract {
  const early = list.flatMap((p) => [...p.needs.storageModules]);
  const facts = sampleFacts({
    kernels: [
      {
        version: '6.1',
        image: '/boot/vmlinuz-6.1',
        inBootMenu: true,
        isDefault: true,
        builtin: [],
        modules: list.flatMap((p) => [...p.needs.networkModules]),
        initramfsModules: early,
      },
    ],
  });
  const { request } = makeContext({
    stage: 'strip',
    guest: new TreeSession('/x'),
    facts,
    platforms: list,
  });
  return buildContract({ facts, request, platforms: list, dataSets, version: '1' });
}
const unmet = (contract: Contract, target: MatchTarget) =>
  matchContract(contract, target).unmet.map((u) => u.need);
const target = targetOf(openstack);

test.each(platforms.map((p) => [p.name, p] as const))('an image made for %s runs there', (_, platform) => {
  expect(matchContract(contractFor([platform]), targetOf(platform))).toEqual({
    target: platform.name,
    matches: true,
    unmet: [],
    notes: [],
  });
  for (const other of platforms)
    expect(unmet(contractFor([platform, other]), targetOf(platform)), other.name).toEqual([]);
});

type Change = (c: Contract, t: MatchTarget) => unknown;
const changes: [need: (typeof NEED_KINDS)[number], what: RegExp, change: Change][] = [
  ['critical', /gpu/, (c) => c.critical.push('gpu')],
  ['architecture', /aarch64.*x86_64/, (c) => (c.facts.arch = 'aarch64')],
  ['firmware', /uefi.*bios/, (c, t) => ([c.facts.firmware, t.firmware] = [['uefi'], ['bios']])],
  [
    'storage-driver',
    /virtio_blk/,
    (c) => (c.facts.drivers = c.facts.drivers.filter((d) => d !== 'virtio_blk')),
  ],
  ['storage-driver', /nvme/, (_, t) => (t.disks = [diskHardware('nvme')])],
  ['network-driver', /virtio_net/, (c) => (c.facts.networkDrivers = [])],
  [
    'network-driver',
    /vmxnet3/,
    (_, t) =>
      (t.nics = [
        { name: 'vmxnet3', modules: ['vmxnet3'] },
        { name: 'e1000', modules: ['e1000'] },
      ]),
  ],
  ['datasource', /ConfigDrive.*NoCloud/, (c) => (c.facts.datasources = ['NoCloud', 'None'])],
  ['config-drive', /metadata disk/, (c, t) => ([c.needs.configDrive, t.metadataDisk] = ['mandatory', false])],
  ['image-size', /1025 GiB.*1024 GiB/, (c) => (c.needs.minDiskGiB = 1025)],
  ['flavor-disk', /flavour/, (_, t) => (t.flavorDiskBytes = 8 * GIB - 1)],
  ['flavor-ram', /flavour/, (_, t) => (t.flavorRamBytes = 511 * MIB)],
];

describe('each need that is not met is named, alone', () => {
  test.each(changes)('%s %s', (need, what, change) => {
    const contract = contractFor([openstack]);
    const changed = structuredClone(target);
    change(contract, changed);
    const match = matchContract(contract, changed);
    expect(match.matches).toBe(false);
    expect(match.unmet.map((u) => u.need)).toEqual([need]);
    expect(match.unmet[0]?.detail).toMatch(what);
    expect(match.unmet[0]?.hint).not.toBe('');
  });

  test('several at once are all named, in one order', () => {
    const contract = contractFor([openstack]);
    const changed = structuredClone(target);
    for (const [, , change] of changes) change(contract, changed);
    const found = unmet(contract, changed);
    expect(found).toEqual(NEED_KINDS.filter((k) => k !== 'credential' && k !== 'expired'));
  });
});

test('one kind of hardware the image has drivers for is enough, in whatever spelling and order', () => {
  const drivers = [...contractFor([openstack]).facts.drivers, 'nvme'];
  const buses = ['virtio-blk', 'virtio-scsi', 'nvme', 'ahci', 'ide'] as const;
  const hardware = fc.subarray(buses.map(diskHardware), { minLength: 1 });
  fc.assert(
    fc.property(hardware, fc.subarray(drivers), fc.shuffledSubarray(drivers), (disks, has, more) => {
      const contract = contractFor([openstack]);
      contract.facts.drivers = has;
      const few = unmet(contract, { ...target, disks });
      contract.facts.drivers = [...more, ...has].map((d) => d.replace('_', '-'));
      const many = unmet(contract, { ...target, disks });
      // more drivers never make a fitting image unfit, and fewer kinds of hardware never make an unfit one fit
      expect(few).toEqual(expect.arrayContaining(many));
      for (const disk of disks) {
        const one = unmet(contract, { ...target, disks: [disk] });
        expect(one).toEqual(expect.arrayContaining(many));
      }
      const fits = disks.some((d) => !unmet(contract, { ...target, disks: [d] }).includes('storage-driver'));
      expect(many.includes('storage-driver')).toBe(!fits);
    }),
  );
});

test('the answer depends on nothing but what is given, and changes nothing', () => {
  const any = fc.record({
    arch: fc.constantFrom('x86_64', 'aarch64'),
    firmware: fc.subarray(['bios', 'uefi'] as const),
    minDiskGiB: fc.integer({ min: 0, max: 4096 }),
    datasources: fc.subarray(['ConfigDrive', 'NoCloud', 'None']),
    drivers: fc.subarray(['virtio_pci', 'virtio_blk', 'sd_mod', 'virtio_net']),
  });
  fc.assert(
    fc.property(any, fc.constantFrom(...platforms), ({ minDiskGiB, ...facts }, platform) => {
      const contract = contractFor([openstack]);
      Object.assign(contract.facts, facts);
      contract.needs.minDiskGiB = minDiskGiB;
      const copy = structuredClone(contract);
      const one = matchContract(contract, targetOf(platform));
      expect(matchContract(contract, targetOf(platform))).toEqual(one);
      expect(contract).toEqual(copy);
      expect(one.matches).toBe(one.unmet.length === 0);
      const max = platform.image.maxBytes ?? Number.POSITIVE_INFINITY;
      expect(one.unmet.some((u) => u.need === 'image-size')).toBe(minDiskGiB * GIB > max);
      expect(one.unmet.some((u) => u.need === 'architecture')).toBe(facts.arch !== 'x86_64');
      expect(one.unmet.some((u) => u.need === 'firmware')).toBe(facts.firmware.length === 0);
    }),
  );
});

test('platforms that hand metadata over in different ways', () => {
  expect(unmet(contractFor([openstack]), targetOf(qemu))).toEqual(['datasource']);
  expect(unmet(contractFor([openstack, qemu]), targetOf(qemu))).toEqual([]);
});

test('a platform asks for its own drivers where the hardware of the verification boot only stands in', () => {
  const row = (name: string) => {
    const platform = platforms.find((p) => p.name === name);
    if (platform === undefined) throw new Error(name);
    return platform;
  };
  const names = (list: readonly Hardware[]) => list.map((h) => h.modules.join('+'));
  const hardware = Object.fromEntries(
    ['aws', 'azure', 'hyperv', 'xen', 'vmware', 'gcp'].map((name) => {
      const { disks, nics } = targetOf(row(name));
      return [name, [...names(disks), ...names(nics)]];
    }),
  );
  expect(hardware).toEqual({
    aws: ['nvme', 'ena'],
    azure: ['hv_vmbus+hv_storvsc+sd_mod', 'hv_netvsc'],
    hyperv: ['hv_vmbus+hv_storvsc+sd_mod', 'hv_netvsc'],
    xen: ['xen_blkfront', 'xen_netfront'],
    vmware: ['vmw_pvscsi+sd_mod', 'vmxnet3'],
    gcp: ['virtio_pci+virtio_scsi+sd_mod', 'virtio_net'],
  });
  // An image with the card that stands in, and not the real one, does not run there.
  const contract = contractFor([row('aws')]);
  contract.facts.networkDrivers = ['e1000', 'xen_netfront'];
  expect(unmet(contract, targetOf(row('aws')))).toEqual(['network-driver']);
});

test('an older contract without networkDrivers counts by its drivers', () => {
  const contract = contractFor([openstack]);
  delete contract.facts.networkDrivers;
  expect(unmet(contract, target)).toEqual(['network-driver']);
  contract.facts.drivers.push('virtio_net');
  expect(unmet(contract, target)).toEqual([]);
});

describe('a provision document', () => {
  const contract = contractFor(
    [openstack],
    [summary('now', 'eager'), summary('later', 'lazy'), summary('asked', 'manual')],
  );
  const url = 'https://store.example/v1/x/?temp_url_sig=secret';
  const nowMs = Date.parse('2030-01-01T00:00:00Z');
  const ask = (provision: Provision) => matchContract(contract, target, { provision, nowMs });

  test('answers every data set', () => {
    const soon = '2030-01-01T00:00:01Z';
    const match = ask({ version: 1, data: { now: { url, expires: soon }, later: { url }, asked: { url } } });
    expect(match).toEqual({ target: 'openstack', matches: true, unmet: [], notes: [] });
  });

  test('lacks some: those the instance fetches by itself are unmet needs, the rest is a note', () => {
    const match = ask({ version: 1, data: { stranger: { url } } });
    expect(match.unmet.map((u) => u.detail)).toEqual([
      expect.stringContaining('data.now.url'),
      expect.stringContaining('data.later.url'),
    ]);
    expect(match.unmet.every((u) => u.need === 'credential')).toBe(true);
    expect(match.notes).toEqual([expect.stringContaining('asked'), expect.stringContaining('stranger')]);
  });

  test('is expired at the very second it names; a time nobody can read is a note', () => {
    const expires = '2030-01-01T00:00:00Z';
    const data = { now: { url, expires }, later: { url, expires: 'tomorrow' }, asked: { url } };
    const match = ask({ version: 1, data });
    expect(match.unmet).toMatchObject([{ need: 'expired', detail: expect.stringContaining('now') }]);
    expect(match.notes).toEqual([expect.stringContaining('tomorrow')]);
    expect(JSON.stringify(match)).not.toContain('secret');
  });

  test('names of the prototype are no answer', () => {
    const odd = contractFor([openstack], [summary('constructor', 'eager')]);
    const match = matchContract(odd, target, { provision: { version: 1, data: {} }, nowMs });
    expect(match.unmet.map((u) => u.need)).toEqual(['credential']);
  });

  test('without one, the need for it is only a note', () => {
    expect(matchContract(contract, target)).toMatchObject({
      matches: true,
      notes: [expect.stringContaining('--provision')],
    });
  });

  test('is read plain or as vendor data; what is wrong is named by field, never by value', () => {
    const plain = { version: 1, data: { now: { url } } };
    expect(parseProvision(JSON.stringify(plain), 'f')).toEqual(
      parseProvision(JSON.stringify({ port_image: plain }), 'f'),
    );
    for (const bad of [
      `{"version":1,"data":{"now":{"url":"ftp://secret"}}}`,
      `{"x": "secret`,
      '[]',
      'null',
    ]) {
      let message = '';
      try {
        parseProvision(bad, 'f.json');
      } catch (error) {
        message = `${error}`;
        expect(error).toMatchObject({ code: 'CONFIG' });
      }
      expect(message).toMatch(/f\.json is no/);
      expect(message).not.toContain('secret');
    }
  });
});
