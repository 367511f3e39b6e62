/** The network of a machine as it is now. */
import type { Inventory, InventoryInterface, InventoryPort } from '../../../core/inventory.ts';
import { count, factsByName, lines, type Sections, short, some } from './sections.ts';

/** Columns of /proc/net/tcp: a listening socket. */
const TCP_LISTEN = '0A';

function kindOf(name: string, facts: ReadonlyMap<string, readonly string[]>): InventoryInterface['kind'] {
  if (name === 'lo' || facts.get('type')?.[0] === '772') return 'loopback';
  if (facts.has('bridge')) return 'bridge';
  if (facts.has('bonding/mode')) return 'bond';
  return facts.get('path')?.[0]?.includes('/devices/virtual/') === true ? 'virtual' : 'physical';
}

/** Interfaces with their addresses. */
export function interfacesOf(sections: Sections): InventoryInterface[] {
  const addresses = lines(sections, 'addresses').flatMap((line) => {
    const match = /^\d+:\s+(\S+)\s+inet6?\s+(\S+)/.exec(line);
    return match === null
      ? []
      : [{ name: (match[1] ?? '').replace(/@.*$/, ''), address: short(match[2] ?? '') }];
  });
  return [...factsByName(lines(sections, 'net'))].map(([name, facts]) => {
    const mac = facts.get('address')?.[0]?.toLowerCase();
    const usable = mac !== undefined && /^([0-9a-f]{2}:){5,}[0-9a-f]{2}$/.test(mac) && !/^[0:]+$/.test(mac);
    return {
      name: short(name),
      mac: usable ? mac : undefined,
      kind: kindOf(name, facts),
      driver: some(facts.get('driver')?.[0]),
      mtu: facts.has('mtu') ? count(facts.get('mtu')?.[0]) : undefined,
      up: facts.get('operstate')?.[0] === 'up',
      addresses: addresses.filter((a) => a.name === name).map((a) => a.address),
    };
  });
}

/** An IPv4 address as /proc/net/route and /proc/net/tcp write it: hexadecimal, in the order of the processor (little endian here). */
function ipv4(hex: string): string {
  return [6, 4, 2, 0].map((at) => Number.parseInt(hex.slice(at, at + 2), 16)).join('.');
}

function prefixLength(hexMask: string): number {
  return Number.parseInt(hexMask, 16).toString(2).replaceAll('0', '').length;
}

/** Routes of the main tables; without `ip` only those of IPv4. */
export function routesOf(sections: Sections): Inventory['routes'] {
  const told = lines(sections, 'routes').map((line) => ({
    to: short(/^(?:(?:unicast|blackhole|unreachable) )?(\S+)/.exec(line)?.[1] ?? ''),
    via: some(/ via (?:inet6? )?(\S+)/.exec(line)?.[1]),
    interface: some(/ dev (\S+)/.exec(line)?.[1]),
  }));
  if (told.length > 0) return told;
  return lines(sections, 'proc-routes')
    .slice(1)
    .map((line) => line.split('\t'))
    .filter((row) => /^[0-9A-F]{8}$/.test(row[1] ?? '') && /^[0-9A-F]{8}$/.test(row[7]?.trim() ?? ''))
    .map(([name = '', to = '', via = '', , , , , mask = '']) => ({
      to: to === '00000000' ? 'default' : `${ipv4(to)}/${prefixLength(mask.trim())}`,
      via: via === '00000000' ? undefined : ipv4(via),
      interface: some(name),
    }));
}

/** Name servers and search domains of resolv.conf. */
export function resolverOf(sections: Sections): Pick<Inventory, 'dns' | 'searchDomains'> {
  const words = lines(sections, 'resolv').map((l) => l.trim().split(/\s+/).map(short));
  return {
    dns: words
      .filter(([key]) => key === 'nameserver')
      .flatMap(([, address = '']) => (address === '' ? [] : [address])),
    searchDomains: words
      .filter(([key]) => key === 'search' || key === 'domain')
      .flatMap(([, ...domains]) => domains),
  };
}

function procPorts(sections: Sections): InventoryPort[] {
  return lines(sections, 'proc-ports').flatMap((line) => {
    const match = /^(tcp|udp)(6?)\s+\d+: ([0-9A-F]+):([0-9A-F]{4}) \S+ ([0-9A-F]{2})/.exec(line);
    if (match === null) return [];
    const [, protocol = '', six = '', address = '', port = '', state = ''] = match;
    if (protocol === 'tcp' ? state !== TCP_LISTEN : state !== '07') return [];
    return {
      protocol: protocol as 'tcp' | 'udp',
      address: six === '6' ? (/^0+$/.test(address) ? '::' : address.toLowerCase()) : ipv4(address),
      port: Number.parseInt(port, 16),
      program: undefined,
    };
  });
}

/** Ports that are listened on: `ss`, else /proc (without the programs then). */
export function portsOf(sections: Sections): InventoryPort[] {
  const told = lines(sections, 'ports').flatMap((line): InventoryPort[] => {
    const match = /^(tcp|udp)\s+\S+\s+\d+\s+\d+\s+(\S+):(\d+)\s+\S+\s*(.*)$/.exec(line);
    if (match === null) return [];
    return [
      {
        protocol: match[1] as 'tcp' | 'udp',
        address: short((match[2] ?? '').replaceAll(/[[\]]|%.*$/g, '')),
        port: count(match[3]),
        program: some(/users:\(\("(.{1,64}?)",pid=/.exec(match[4] ?? '')?.[1]),
      },
    ];
  });
  const all = told.length > 0 ? told : procPorts(sections);
  const seen = new Set<string>();
  return all.filter((p) => {
    const key = `${p.protocol} ${p.address} ${p.port}`;
    return !seen.has(key) && seen.add(key);
  });
}
