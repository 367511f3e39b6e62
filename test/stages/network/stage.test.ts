import * as fs from 'node:fs/promises';
import { afterEach, describe, expect, test } from 'vitest';
import type { NetworkFacts, NetworkInterface } from '../../../core/facts.ts';
import { platformsNamed } from '../../../drivers/registry.ts';
import { dhcpFile } from '../../../stages/network/dhcp.ts';
import { stage } from '../../../stages/network/index.ts';
import { netmask, networkData } from '../../../stages/network/network-data.ts';
import { isPhysical, primarySystem } from '../../../stages/network/paths.ts';
import { withoutPins } from '../../../stages/network/pins.ts';
import { makeContext, makeTree, sampleFacts, type TreeSession } from '../../support/tree-guest.ts';

let guest: TreeSession | undefined;
afterEach(async () => {
  if (guest) await fs.rm(guest.root, { recursive: true, force: true });
  guest = undefined;
});

function nic(change: Partial<NetworkInterface> = {}): NetworkInterface {
  return {
    name: 'enp3s0',
    method: 'static',
    addresses: ['192.0.2.40/24', '2001:db8::40/64'],
    gateways: ['192.0.2.1'],
    routes: [{ to: '198.51.100.0/24', via: '192.0.2.2' }],
    dns: ['192.0.2.53'],
    searchDomains: [],
    mtu: 1400,
    configuredIn: ['/etc/network/interfaces'],
    ...change,
  };
}
function network(change: Partial<NetworkFacts> = {}): NetworkFacts {
  return {
    systems: ['ifupdown'],
    interfaces: [
      nic({ name: 'lo', method: 'loopback', addresses: [], gateways: [], routes: [], dns: [] }),
      nic(),
    ],
    pins: [{ file: '/etc/udev/rules.d/70-persistent-net.rules', mac: '00:25:90:a1:b2:c3', name: 'enp3s0' }],
    dns: ['192.0.2.53', '9.9.9.9'],
    searchDomains: [],
    ...change,
  };
}
const INTERFACES =
  'auto lo\niface lo inet loopback\nauto enp3s0\niface enp3s0 inet static\n\taddress 192.0.2.40/24\n\tpost-up ip route add 203.0.113.0/24 via 192.0.2.9\n';
const PIN = 'SUBSYSTEM=="net", ATTR{address}=="00:25:90:a1:b2:c3", NAME="enp3s0"\n';

async function job(tree: Record<string, string>, facts: NetworkFacts, request = {}) {
  guest = await makeTree(tree);
  return makeContext({
    stage: 'network',
    guest,
    facts: sampleFacts({ network: facts }),
    platforms: platformsNamed(['qemu']),
    request,
    out: guest.root,
  });
}

describe('dhcp', () => {
  test('ifupdown: set aside, replaced, pins gone, old configuration rendered; twice is once', async () => {
    const ctx = await job(
      {
        'etc/network/interfaces': INTERFACES,
        'etc/udev/rules.d/70-persistent-net.rules': PIN,
        'etc/hosts': '127.0.0.1 localhost\n192.0.2.40 shop01\n',
        'etc/nftables.conf': 'iifname "enp3s0" accept\n',
        'sbin/dhclient': '',
      },
      network(),
    );
    const result = await stage.run(ctx, await stage.plan(ctx));
    const text = await guest?.readText('/etc/network/interfaces');
    expect(text).toContain('source /etc/network/interfaces.d/*\n');
    expect(text).toContain(
      'auto /en*=port-image-dhcp /eth*=port-image-dhcp\niface port-image-dhcp inet dhcp\n',
    );
    expect(await guest?.readText('/var/lib/port-image/network/etc/network/interfaces')).toBe(INTERFACES);
    expect(await guest?.readText('/etc/systemd/system/networking.service.d/port-image.conf')).toContain(
      'udevadm settle',
    );
    expect(await guest?.kind('/etc/udev/rules.d/70-persistent-net.rules')).toBe('missing');
    expect(await guest?.readText('/etc/cloud/cloud.cfg.d/91-port-image-network.cfg')).toContain(
      'renderers: [eni]',
    );
    expect(ctx.warnings.join('\n')).toMatch(/old address 192\.0\.2\.40 \(shop01\)/);
    expect(ctx.warnings.join('\n')).toMatch(/nftables\.conf names enp3s0/);
    expect(ctx.warnings.join('\n')).toMatch(/ip route add 203/);
    expect(JSON.parse(await fs.readFile(result.networkDataFile, 'utf8'))).toEqual(result.networkData);
    expect((await stage.plan(ctx)).edits).toEqual([]);
  });
  test('no DHCP client is refused', async () => {
    const ctx = await job({ 'etc/network/interfaces': INTERFACES }, network());
    await expect(stage.run(ctx, await stage.plan(ctx))).rejects.toMatchObject({ code: 'GUEST_BROKEN' });
  });
  test.each([
    [
      'networkd',
      '/etc/systemd/network/20-wired.network',
      '/etc/systemd/network/99-port-image-dhcp.network',
      'DHCP=yes',
    ],
    [
      'netplan',
      '/etc/netplan/00-installer.yaml',
      '/etc/netplan/99-port-image-dhcp.yaml',
      'renderer: networkd',
    ],
    [
      'networkmanager',
      '/etc/NetworkManager/system-connections/wired.nmconnection',
      '/etc/NetworkManager/system-connections/port-image-dhcp.nmconnection',
      'method=auto',
    ],
    [
      'ifcfg',
      '/etc/sysconfig/network-scripts/ifcfg-ens1',
      '/etc/sysconfig/network-scripts/ifcfg-eth0',
      'BOOTPROTO=dhcp',
    ],
    ['wicked', '/etc/sysconfig/network/ifcfg-em1', '/etc/sysconfig/network/ifcfg-eth0', "BOOTPROTO='dhcp'"],
  ] as const)('%s', async (system, old, fresh, wanted) => {
    const facts = network({
      systems: ['ifupdown', system],
      interfaces: [nic({ configuredIn: [old] })],
      pins: [],
    });
    const ctx = await job({ [old.slice(1)]: '# x\n  renderer: networkd\npsk=topsecret\n' }, facts);
    const result = await stage.run(ctx, await stage.plan(ctx));
    expect(result.system).toBe(system);
    expect(await guest?.readText(fresh)).toContain(wanted);
    expect(await guest?.kind(old)).toBe('missing');
    expect(await guest?.readText(`/var/lib/port-image/network${old}`)).toContain('topsecret');
    expect(JSON.stringify(ctx.changes)).not.toContain('topsecret');
    expect((await stage.plan(ctx)).edits).toEqual([]);
  });
  test('secret files stay private', () => {
    expect(dhcpFile('netplan', { patterns: true }).mode).toBe(0o600);
    expect(dhcpFile('ifupdown', { patterns: false }).text).toContain('auto eth0\niface eth0 inet dhcp\n');
  });
});

describe('keep', () => {
  const mac = '52:54:00:AA:BB:CC';
  test('a card for each fixed address, or it is refused in the plan', async () => {
    const ctx = await job({ 'etc/network/interfaces': INTERFACES }, network(), { network: 'keep' });
    await expect(stage.plan(ctx)).rejects.toMatchObject({
      code: 'USAGE',
      hint: expect.stringContaining('=enp3s0'),
    });
  });
  test('names are pinned to the new cards, the rest stays', async () => {
    const ifcfg = 'hwaddress ether 00:25:90:A1:B2:C3\n';
    const ctx = await job(
      { 'etc/network/interfaces': INTERFACES + ifcfg, 'etc/udev/rules.d/70-persistent-net.rules': PIN },
      network(),
      { network: 'keep', nics: [{ mac, name: 'enp3s0' }] },
    );
    await stage.run(ctx, await stage.plan(ctx));
    expect(await guest?.readText('/etc/systemd/network/10-port-image-enp3s0.link')).toContain(
      '[Match]\nMACAddress=52:54:00:aa:bb:cc\nType=ether\n\n[Link]\nName=enp3s0\n',
    );
    expect(await guest?.readText('/etc/network/interfaces')).toBe(
      `${INTERFACES}hwaddress ether 52:54:00:aa:bb:cc\n`,
    );
    expect(await guest?.readText('/etc/cloud/cloud.cfg.d/91-port-image-network.cfg')).toContain(
      'config: disabled',
    );
    expect(await guest?.readText('/etc/udev/rules.d/70-persistent-net.rules')).toBe('');
    expect((await stage.plan(ctx)).edits).toEqual([]);
  });
  test.each([
    [[{ mac: 'x', name: 'enp3s0' }]],
    [[{ mac, name: 'a/b' }]],
    [
      [
        { mac, name: 'enp3s0' },
        { mac, name: 'eth1' },
      ],
    ],
  ])('bad map %#', async (nics) => {
    const ctx = await job({}, network(), { network: 'keep', nics });
    await expect(stage.plan(ctx)).rejects.toMatchObject({ code: 'USAGE' });
  });
});

test('network_data.json', () => {
  expect(networkData(network(), isPhysical)).toEqual({
    links: [{ id: 'enp3s0', type: 'phy', ethernet_mac_address: '00:25:90:a1:b2:c3', mtu: 1400 }],
    networks: [
      {
        id: 'network0',
        link: 'enp3s0',
        type: 'ipv4',
        ip_address: '192.0.2.40',
        netmask: '255.255.255.0',
        routes: [
          { network: '0.0.0.0', netmask: '0.0.0.0', gateway: '192.0.2.1' },
          { network: '198.51.100.0', netmask: '255.255.255.0', gateway: '192.0.2.2' },
        ],
        services: [{ type: 'dns', address: '192.0.2.53' }],
      },
      {
        id: 'network1',
        link: 'enp3s0',
        type: 'ipv6',
        ip_address: '2001:db8::40',
        netmask: 'ffff:ffff:ffff:ffff::',
        routes: [],
        services: [{ type: 'dns', address: '192.0.2.53' }],
      },
    ],
    services: [
      { type: 'dns', address: '192.0.2.53' },
      { type: 'dns', address: '9.9.9.9' },
    ],
  });
});

test('small things', () => {
  expect([0, 8, 23, 32].map((n) => netmask(n, false))).toEqual([
    '0.0.0.0',
    '255.0.0.0',
    '255.255.254.0',
    '255.255.255.255',
  ]);
  expect(netmask(0, true)).toBe('::');
  expect(netmask(128, true)).toBe('ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff');
  expect(['enp3s0', 'eth0', 'eno1', 'bond0', 'br-lan', 'eth0.5', 'eth0:1'].filter(isPhysical)).toEqual([
    'enp3s0',
    'eth0',
    'eno1',
  ]);
  expect(primarySystem(network({ interfaces: [] }))).toBe('ifupdown');
  expect(
    withoutPins('# c\nA, \\\n ATTR{address}=="AA:BB:CC:DD:EE:FF", NAME="x"\nB\n', ['aa:bb:cc:dd:ee:ff']),
  ).toBe('# c\nB\n');
});

test('ifcfg under NetworkManager: a keyfile that fits any card, the old file set aside', async () => {
  const old = '/etc/sysconfig/network-scripts/ifcfg-ens192';
  const facts = network({
    systems: ['ifcfg'],
    interfaces: [nic({ name: 'ens192', configuredIn: [old] })],
    pins: [],
  });
  const ctx = await job({ [old.slice(1)]: 'DEVICE=ens192\nBOOTPROTO=none\nIPADDR=192.0.2.40\n' }, facts);
  ctx.facts.services.push({ unit: 'NetworkManager.service', enabled: true, paths: [] });
  await stage.run(ctx, await stage.plan(ctx));
  expect(await guest?.kind(old)).toBe('missing');
  const keyfile = '/etc/NetworkManager/system-connections/port-image-dhcp.nmconnection';
  expect(await guest?.readText(keyfile)).toContain('[ipv4]\nmethod=auto');
  expect(((await guest?.mode(keyfile)) ?? 0) & 0o777).toBe(0o600);
  expect(await guest?.kind('/etc/sysconfig/network-scripts/ifcfg-eth0')).toBe('missing');
  expect((await stage.plan(ctx)).edits).toEqual([]);
});
