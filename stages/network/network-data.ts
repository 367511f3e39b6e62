/** The old configuration in OpenStack's `network_data.json` form, for whoever wants to give it to the cloud. */
import type { NetworkFacts, NetworkInterface } from '../../core/facts.ts';

/** An entry of `routes`. */
interface Route {
  network: string;
  netmask: string;
  gateway: string;
}

/** The document, as the metadata service would serve it. */
export interface NetworkData {
  links: { id: string; type: 'phy'; ethernet_mac_address?: string; mtu?: number }[];
  networks: {
    id: string;
    link: string;
    type: 'ipv4' | 'ipv6' | 'ipv4_dhcp';
    ip_address?: string;
    netmask?: string;
    routes?: Route[];
    services?: { type: 'dns'; address: string }[];
  }[];
  services: { type: 'dns'; address: string }[];
}

/** The netmask of a prefix length: dotted for IPv4, with colons for IPv6. */
export function netmask(prefix: number, ipv6: boolean): string {
  const bits = ipv6 ? 128 : 32;
  const value = ((1n << BigInt(prefix)) - 1n) << BigInt(bits - prefix);
  if (!ipv6) return [24n, 16n, 8n, 0n].map((shift) => String((value >> shift) & 255n)).join('.');
  const groups = Array.from({ length: 8 }, (_, i) =>
    ((value >> BigInt(112 - 16 * i)) & 0xffffn).toString(16),
  );
  return groups
    .join(':')
    .replace(/(?::0)+$/, '::')
    .replace(/^0::$/, '::');
}

function splitCidr(cidr: string): { address: string; prefix: number; ipv6: boolean } {
  const [address = '', length] = cidr.split('/');
  const ipv6 = address.includes(':');
  const most = ipv6 ? 128 : 32;
  const prefix = length === undefined ? most : Number(length);
  return { address, prefix: Number.isInteger(prefix) && prefix >= 0 && prefix <= most ? prefix : most, ipv6 };
}

function routesOf(nic: NetworkInterface, ipv6: boolean): Route[] {
  const any = ipv6 ? '::/0' : '0.0.0.0/0';
  const all = [
    ...nic.gateways.map((via) => ({ to: any, via })),
    ...nic.routes.map((r) =>
      r.to === 'default' ? { to: r.via.includes(':') ? '::/0' : '0.0.0.0/0', via: r.via } : r,
    ),
  ].filter((r) => r.via.includes(':') === ipv6);
  const seen = new Set<string>();
  return all.flatMap(({ to, via }) => {
    const { address, prefix } = splitCidr(to);
    if (seen.has(`${to} ${via}`)) return [];
    seen.add(`${to} ${via}`);
    return [{ network: address, netmask: netmask(prefix, ipv6), gateway: via }];
  });
}

/** Renders the facts. Interfaces that are not cards (bridges, bonds, VLANs) are left out; `isCard` decides. */
export function networkData(facts: NetworkFacts, isCard: (name: string) => boolean): NetworkData {
  const data: NetworkData = { links: [], networks: [], services: [] };
  const servers = new Set(facts.dns);
  for (const nic of facts.interfaces) {
    if (nic.method === 'loopback' || nic.name === 'lo' || !isCard(nic.name)) continue;
    const mac = nic.mac ?? facts.pins.find((p) => p.name === nic.name)?.mac;
    data.links.push({
      id: nic.name,
      type: 'phy',
      ...(mac === undefined ? {} : { ethernet_mac_address: mac }),
      ...(nic.mtu === undefined ? {} : { mtu: nic.mtu }),
    });
    for (const server of nic.dns) servers.add(server);
    const base = { link: nic.name, services: nic.dns.map((address) => ({ type: 'dns' as const, address })) };
    if (nic.method === 'dhcp')
      data.networks.push({ id: `network${data.networks.length}`, type: 'ipv4_dhcp', ...base });
    const routed = new Set<boolean>();
    for (const cidr of nic.addresses) {
      const { address, prefix, ipv6 } = splitCidr(cidr);
      data.networks.push({
        id: `network${data.networks.length}`,
        type: ipv6 ? 'ipv6' : 'ipv4',
        ip_address: address,
        netmask: netmask(prefix, ipv6),
        // Routes belong to the first address of each kind; every further one would repeat them.
        routes: routed.has(ipv6) ? [] : routesOf(nic, ipv6),
        ...base,
      });
      routed.add(ipv6);
    }
  }
  data.services = [...servers].map((address) => ({ type: 'dns', address }));
  return data;
}
