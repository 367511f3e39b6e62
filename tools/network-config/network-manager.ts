/** NetworkManager keyfiles: `/etc/NetworkManager/system-connections/*.nmconnection`. */
import type { NetworkInterface } from '../../core/facts.ts';
import { addAll, type ConfigFile, iniSections, listOf, macAddress, mtuOf, newInterface } from './shared.ts';

/** Reads keyfiles. Secrets in them (wifi, VPN) are not looked at. */
export function readNetworkManager(files: readonly ConfigFile[]): NetworkInterface[] {
  return files.flatMap(({ path, text }) => {
    const sections = new Map<string, Map<string, string>>();
    for (const { name, entries } of iniSections(text)) sections.set(name, new Map(entries));
    const get = (section: string, key: string) => sections.get(section)?.get(key);
    const type = get('connection', 'type') ?? '';
    if (/^(vpn|wireguard|loopback)$/.test(type)) return [];
    const ethernet = sections.has('ethernet') ? 'ethernet' : '802-3-ethernet';
    const mac = macAddress(get(ethernet, 'mac-address') ?? '');
    const name = get('connection', 'interface-name') ?? mac ?? get('connection', 'id');
    if (name === undefined) return [];
    const target = newInterface(name, path);
    if (mac !== undefined) target.mac = mac;
    Object.assign(target, mtuOf(get(ethernet, 'mtu')));
    for (const family of ['ipv4', 'ipv6']) {
      const section = sections.get(family);
      if (section === undefined) continue;
      for (const [key, value] of section) {
        if (/^address(es)?\d*$/.test(key)) {
          const [address, gateway] = value.split(/[,;]/);
          if (address) addAll(target.addresses, [address.trim()]);
          if (gateway && !/^(0\.0\.0\.0|::)$/.test(gateway.trim())) addAll(target.gateways, [gateway.trim()]);
        } else if (/^routes?\d*$/.test(key)) {
          const [to, via] = value.split(/[,;]/);
          if (!to || !via) continue;
          if (/^(0\.0\.0\.0|::)\/0$/.test(to.trim())) addAll(target.gateways, [via.trim()]);
          else target.routes.push({ to: to.trim(), via: via.trim() });
        }
      }
      addAll(target.gateways, listOf(section.get('gateway')));
      addAll(target.dns, listOf(section.get('dns')));
      addAll(target.searchDomains, listOf(section.get('dns-search')));
    }
    const methods = [get('ipv4', 'method'), get('ipv6', 'method')];
    if (methods.includes('manual')) target.method = 'static';
    else if (methods[0] === 'auto') target.method = 'dhcp';
    else if (methods[0] === 'disabled' || methods[0] === 'link-local')
      target.method = methods[1] === 'auto' ? 'dhcp' : 'manual';
    return [target];
  });
}
