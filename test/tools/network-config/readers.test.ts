import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { readIfcfg } from '../../../tools/network-config/ifcfg.ts';
import { readIfupdown } from '../../../tools/network-config/ifupdown.ts';
import { readNetplan } from '../../../tools/network-config/netplan.ts';
import { readNetworkManager } from '../../../tools/network-config/network-manager.ts';
import { readLinks, readNetworkd } from '../../../tools/network-config/networkd.ts';
import { readResolvConf, readUdevPins } from '../../../tools/network-config/pins.ts';
import { cidr, prefixLength } from '../../../tools/network-config/shared.ts';

const file = (text: string, path = '/etc/x') => ({ path, text });
const STATIC = { method: 'static', addresses: ['192.0.2.40/24'], gateways: ['192.0.2.1'] };

describe('one static address in every dialect', () => {
  test('ifupdown', () => {
    const [eth] = readIfupdown(
      file(
        'auto eth0\niface eth0 inet static\n\taddress 192.0.2.40\n\tnetmask 255.255.255.0\n\tgateway 192.0.2.1\n' +
          '\tdns-nameservers 192.0.2.53 9.9.9.9\n\tmtu 9000\n\thwaddress ether 00:25:90:A1:B2:C3\n' +
          '\tup ip route add 10.0.0.0/8 via 192.0.2.9 dev eth0\n\tup route add -net 172.16.0.0 netmask 255.240.0.0 gw 192.0.2.8\n' +
          'iface eth0 inet6 static\n address 2001:db8::5/64\n',
      ),
    );
    expect(eth).toMatchObject({
      ...STATIC,
      addresses: ['192.0.2.40/24', '2001:db8::5/64'],
      dns: ['192.0.2.53', '9.9.9.9'],
      mtu: 9000,
      mac: '00:25:90:a1:b2:c3',
      routes: [
        { to: '10.0.0.0/8', via: '192.0.2.9' },
        { to: '172.16.0.0/12', via: '192.0.2.8' },
      ],
    });
    expect(readIfupdown(file('iface eth1 inet dhcp\n'))[0]?.method).toBe('dhcp');
    const loop = () => [file('source x\niface a inet dhcp\n')];
    expect(readIfupdown(file('source x\n'), loop).map((i) => i.name)).toEqual(['a']);
  });
  test('netplan', () => {
    const { interfaces, pins } = readNetplan([
      file(
        'network:\n  version: 2\n  ethernets:\n    lan:\n      match: {macaddress: "00:25:90:a1:b2:c3"}\n      set-name: eth0\n' +
          '      addresses: [192.0.2.40/24]\n      routes: [{to: default, via: 192.0.2.1}, {to: 10.0.0.0/8, via: 192.0.2.9}]\n' +
          '      nameservers: {addresses: [192.0.2.53], search: [example.com]}\n    wan: {dhcp4: yes}\n',
      ),
      file(': bad [yaml'),
    ]);
    expect(interfaces[0]).toMatchObject({
      name: 'eth0',
      ...STATIC,
      routes: [{ to: '10.0.0.0/8', via: '192.0.2.9' }],
    });
    expect(interfaces[1]).toMatchObject({ name: 'wan', method: 'dhcp' });
    expect(pins).toEqual([{ file: '/etc/x', mac: '00:25:90:a1:b2:c3', name: 'eth0' }]);
  });
  test('networkd', () => {
    const text =
      '[Match]\nName=eth0\n[Network]\nDNS=192.0.2.53\nDomains=example.com\n[Address]\nAddress=192.0.2.40/24\n' +
      '[Route]\nGateway=192.0.2.1\n[Route]\nDestination=10.0.0.0/8\nGateway=192.0.2.9\n';
    expect(readNetworkd([file(text)])[0]).toMatchObject({
      ...STATIC,
      routes: [{ to: '10.0.0.0/8', via: '192.0.2.9' }],
    });
    expect(
      readNetworkd([file('[Match]\nMACAddress=00:25:90:A1:B2:C3\n[Network]\nDHCP=ipv4\n')])[0],
    ).toMatchObject({
      name: '00:25:90:a1:b2:c3',
      method: 'dhcp',
    });
    expect(readLinks([file('[Match]\nMACAddress=00:25:90:A1:B2:C3\n[Link]\nName=lan0\n')])).toEqual([
      { file: '/etc/x', mac: '00:25:90:a1:b2:c3', name: 'lan0' },
    ]);
  });
  test('NetworkManager', () => {
    const text =
      '[connection]\nid=lan\ntype=ethernet\ninterface-name=eth0\n[ethernet]\nmac-address=00:25:90:A1:B2:C3\n' +
      '[ipv4]\naddress1=192.0.2.40/24,192.0.2.1\ndns=192.0.2.53;9.9.9.9;\nmethod=manual\nroute1=10.0.0.0/8,192.0.2.9\n[ipv6]\nmethod=auto\n';
    expect(readNetworkManager([file(text)])[0]).toMatchObject({
      name: 'eth0',
      ...STATIC,
      dns: ['192.0.2.53', '9.9.9.9'],
    });
    expect(readNetworkManager([file('[connection]\ntype=vpn\nid=x\n')])).toEqual([]);
  });
  test('ifcfg', () => {
    const path = '/etc/sysconfig/network-scripts/ifcfg-eth0';
    const text =
      'DEVICE="eth0"\nBOOTPROTO=none\nIPADDR=192.0.2.40\nNETMASK=255.255.255.0\nGATEWAY=192.0.2.1\nHWADDR=00:25:90:A1:B2:C3\nDNS1=192.0.2.53\n';
    const route = {
      path: '/etc/sysconfig/network-scripts/route-eth0',
      text: '10.0.0.0/8 via 192.0.2.9 dev eth0\n',
    };
    expect(readIfcfg([{ path, text }], [route])[0]).toMatchObject({
      ...STATIC,
      mac: '00:25:90:a1:b2:c3',
      routes: [{ to: '10.0.0.0/8', via: '192.0.2.9' }],
    });
    expect(readIfcfg([{ path, text: 'BOOTPROTO="dhcp"\n' }])[0]).toMatchObject({
      name: 'eth0',
      method: 'dhcp',
    });
  });
});

test('pins and resolv.conf', () => {
  expect(
    readUdevPins([
      file('SUBSYSTEM=="net", ACTION=="add", \\\n ATTR{address}=="00:25:90:a1:b2:c3", NAME="eth0"\n'),
    ]),
  ).toEqual([{ file: '/etc/x', mac: '00:25:90:a1:b2:c3', name: 'eth0' }]);
  expect(readResolvConf('; c\nnameserver 1.1.1.1 # x\nsearch a b\n')).toEqual({
    dns: ['1.1.1.1'],
    searchDomains: ['a', 'b'],
  });
});

test('netmasks', () => {
  expect(prefixLength('255.255.240.0')).toBe(20);
  expect(prefixLength('255.0.255.0')).toBeUndefined();
  expect(cidr('fe80::1')).toBe('fe80::1/128');
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 32 }), (n) => {
      const mask = [0, 8, 16, 24]
        .map((s) => (n <= s ? 0 : n >= s + 8 ? 255 : 256 - 2 ** (s + 8 - n)))
        .join('.');
      expect(prefixLength(mask)).toBe(n);
    }),
  );
});

test('any text ends in every reader', () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 300 }), (text) => {
      const files = [file(text, '/etc/sysconfig/network-scripts/ifcfg-eth0')];
      readIfcfg(files);
      readIfupdown(file(text));
      readNetplan(files);
      readNetworkManager(files);
      readNetworkd(files);
      readLinks(files);
      readUdevPins(files);
      readResolvConf(text);
    }),
  );
});
