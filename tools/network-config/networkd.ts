/** systemd-networkd: `.network` and `.link` files. */
import type { NetworkInterface } from '../../core/facts.ts';
import { addAll, type ConfigFile, iniSections, listOf, macAddress, mtuOf, newInterface } from './shared.ts';

/** Reads `.network` files. The name is that of [Match] Name=, or the MAC, when it matches by that alone. */
export function readNetworkd(files: readonly ConfigFile[]): NetworkInterface[] {
  const found: NetworkInterface[] = [];
  for (const { path, text } of files) {
    const sections = iniSections(text);
    const values = (section: string, key: string) =>
      sections
        .filter((s) => s.name === section)
        .flatMap((s) => s.entries.filter(([k]) => k === key).map(([, v]) => v));
    const mac = macAddress(
      values('Match', 'MACAddress')[0] ?? values('Match', 'PermanentMACAddress')[0] ?? '',
    );
    const names = values('Match', 'Name').flatMap(listOf);
    for (const name of names.length > 0 ? names : mac === undefined ? [] : [mac]) {
      const target = newInterface(name, path);
      if (mac !== undefined) target.mac = mac;
      addAll(target.addresses, [...values('Network', 'Address'), ...values('Address', 'Address')]);
      addAll(target.gateways, values('Network', 'Gateway'));
      for (const section of sections.filter((s) => s.name === 'Route')) {
        const route = new Map(section.entries);
        const via = route.get('Gateway');
        if (via === undefined) continue;
        const to = route.get('Destination');
        if (to === undefined || to === '0.0.0.0/0' || to === '::/0') addAll(target.gateways, [via]);
        else target.routes.push({ to, via });
      }
      addAll(target.dns, values('Network', 'DNS').flatMap(listOf));
      addAll(target.searchDomains, values('Network', 'Domains').flatMap(listOf));
      Object.assign(target, mtuOf(values('Link', 'MTUBytes')[0]));
      const dhcp = (values('Network', 'DHCP')[0] ?? 'no').toLowerCase();
      if (/^(yes|true|on|1|ipv4|ipv6|both|v4|v6)$/.test(dhcp)) target.method = 'dhcp';
      else target.method = target.addresses.length > 0 ? 'static' : name === 'lo' ? 'loopback' : 'manual';
      found.push(target);
    }
  }
  return found;
}

/** Reads `.link` files that give a name to a MAC. */
export function readLinks(files: readonly ConfigFile[]): { file: string; mac: string; name: string }[] {
  return files.flatMap(({ path, text }) => {
    const sections = iniSections(text);
    const value = (section: string, key: string) =>
      sections.find((s) => s.name === section)?.entries.find(([k]) => k === key)?.[1];
    const name = value('Link', 'Name');
    if (name === undefined) return [];
    return listOf(value('Match', 'MACAddress') ?? value('Match', 'PermanentMACAddress')).flatMap((text_) => {
      const mac = macAddress(text_);
      return mac === undefined ? [] : [{ file: path, mac, name }];
    });
  });
}
