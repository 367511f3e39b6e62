/** `/etc/network/interfaces` (Debian's and Alpine's ifupdown). */
import type { NetworkInterface } from '../../core/facts.ts';
import { addAll, type ConfigFile, cidr, listOf, macAddress, mtuOf, newInterface } from './shared.ts';

const METHODS: Readonly<Record<string, NetworkInterface['method']>> = {
  static: 'static',
  dhcp: 'dhcp',
  auto: 'dhcp',
  manual: 'manual',
  loopback: 'loopback',
};

/** Files a `source` line means. */
export type SourceFiles = (pattern: string, directory: boolean) => readonly ConfigFile[];

interface Line {
  file: string;
  words: string[];
}

function lines(file: ConfigFile, sources: SourceFiles, depth: number): Line[] {
  if (depth > 8) return [];
  const text = file.text.replace(/\\\n/g, ' ');
  return text.split('\n').flatMap((raw): Line[] => {
    const words = raw.trim().split(/\s+/);
    const [first = '', second] = words;
    if (first === '' || first.startsWith('#')) return [];
    if ((first === 'source' || first === 'source-directory') && second !== undefined) {
      return sources(second, first === 'source-directory').flatMap((f) => lines(f, sources, depth + 1));
    }
    return [{ file: file.path, words }];
  });
}

/** Reads `interfaces` and what it sources. One interface may have several `iface` stanzas; they are joined. */
export function readIfupdown(file: ConfigFile, sources: SourceFiles = () => []): NetworkInterface[] {
  const found = new Map<string, NetworkInterface>();
  let current: NetworkInterface | undefined;
  let options = new Map<string, string>();
  const finish = () => {
    if (current !== undefined) apply(current, options);
    current = undefined;
    options = new Map();
  };
  for (const { file: path, words } of lines(file, sources, 0)) {
    const [key = '', ...rest] = words;
    if (key === 'iface') {
      finish();
      const [name = '', , method = ''] = rest;
      if (name === '') continue;
      current = found.get(name) ?? newInterface(name, path);
      found.set(name, current);
      addAll(current.configuredIn, [path]);
      const kind = METHODS[method] ?? 'unknown';
      // An address of either family makes the interface static; `inet6 auto` beside it changes nothing.
      if (current.method === 'unknown' || kind === 'static') current.method = kind;
    } else if (/^(auto|allow-\S+|mapping|no-auto-down|no-scripts|template)$/.test(key)) {
      finish();
    } else if (current !== undefined) {
      const value = rest.join(' ');
      const many = /^(up|post-up|pre-up|down|pre-down|post-down|address|dns-nameservers?)$/.test(key);
      options.set(key, many && options.has(key) ? `${options.get(key)}\n${value}` : value);
    }
  }
  finish();
  return [...found.values()];
}

function apply(target: NetworkInterface, options: ReadonlyMap<string, string>): void {
  const mask = options.get('netmask');
  for (const address of (options.get('address') ?? '').split('\n')) {
    if (address !== '') addAll(target.addresses, [cidr(address, mask)]);
  }
  addAll(target.gateways, listOf(options.get('gateway')));
  addAll(target.dns, [...listOf(options.get('dns-nameservers')), ...listOf(options.get('dns-nameserver'))]);
  addAll(target.searchDomains, [...listOf(options.get('dns-search')), ...listOf(options.get('dns-domain'))]);
  const mac = macAddress((options.get('hwaddress') ?? '').replace(/^ether\s+/, ''));
  if (mac !== undefined) target.mac = mac;
  Object.assign(target, mtuOf(options.get('mtu')));
  for (const key of ['up', 'post-up']) {
    for (const command of (options.get(key) ?? '').split('\n')) {
      const ip = /^(?:\S*\/)?ip (?:-[46] )?r(?:oute)? (?:add|replace) (\S+) via (\S+)/.exec(command);
      const route = /^(?:\S*\/)?route add -net (\S+)(?: netmask (\S+))? gw (\S+)/.exec(command);
      if (ip !== null) target.routes.push({ to: ip[1] ?? '', via: ip[2] ?? '' });
      if (route !== null) target.routes.push({ to: cidr(route[1] ?? '', route[2]), via: route[3] ?? '' });
    }
  }
}
