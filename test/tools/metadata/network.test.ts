import { BlockList } from 'node:net';
import { describe, expect, test } from 'vitest';
import { platforms } from '../../../drivers/registry.ts';
import { GUEST_NETWORKS } from '../../../tools/metadata/network.ts';

describe.each(Object.entries(GUEST_NETWORKS))('network for %s', (_kind, network) => {
  const addresses = [network.host, network.dhcpStart, network.dns, network.store, ...network.metadata];

  test('holds every address: QEMU forwards only what lies inside', () => {
    const [base = '', bits] = network.net.split('/');
    const list = new BlockList();
    list.addSubnet(base, Number(bits), 'ipv4');
    for (const address of addresses) expect([address, list.check(address)]).toEqual([address, true]);
  });

  test('no address has two owners, and DHCP does not hand one out', () => {
    expect(new Set(addresses).size).toBe(addresses.length);
    // libslirp gives sixteen addresses from the first (bootp.c NB_BOOTP_CLIENTS).
    const number = (a: string) => a.split('.').reduce((n, part) => n * 256 + Number(part), 0);
    const first = number(network.dhcpStart);
    for (const address of addresses.filter((a) => a !== network.dhcpStart)) {
      const at = number(address) - first;
      expect([address, at >= 0 && at < 16]).toEqual([address, false]);
    }
  });
});

test('every platform has a network for its metadata', () => {
  for (const { boot } of platforms) expect(GUEST_NETWORKS[boot.metadata]).toBeDefined();
});
