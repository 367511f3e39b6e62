/** The network as the guest configures it. */
import * as path from 'node:path/posix';
import type { NetworkFacts, NetworkInterface, Service } from '../../core/facts.ts';
import { readIfcfg } from '../../tools/network-config/ifcfg.ts';
import { readIfupdown } from '../../tools/network-config/ifupdown.ts';
import { readNetplan } from '../../tools/network-config/netplan.ts';
import { readNetworkManager } from '../../tools/network-config/network-manager.ts';
import { readLinks, readNetworkd } from '../../tools/network-config/networkd.ts';
import { type Pin, readResolvConf, readUdevPins } from '../../tools/network-config/pins.ts';
import { addAll, type ConfigFile } from '../../tools/network-config/shared.ts';
import type { Bundle } from './bundle.ts';

const INTERFACES = '/etc/network/interfaces';

/** Files a `source` line of ifupdown means: a glob in the last part, or a folder. */
function sourced(bundle: Bundle, pattern: string, directory: boolean): ConfigFile[] {
  const full = path.resolve('/etc/network', pattern);
  if (directory) return bundle.texts(full).filter((f) => /^[A-Za-z0-9_.-]+$/.test(path.basename(f.path)));
  const text = bundle.text(full);
  if (text !== undefined) return [{ path: full, text }];
  // A pattern of the guest must not cost exponential time.
  if (full.length > 200 || full.split('*').length > 4) return [];
  const expression = path
    .basename(full)
    .replace(/[.+^${}()|\\]/g, '\\$&')
    .replaceAll('*', '[^/]*')
    .replaceAll('?', '[^/]');
  let matcher: RegExp;
  try {
    matcher = new RegExp(`^${expression}$`);
  } catch {
    return [];
  }
  return bundle.texts(path.dirname(full)).filter((f) => matcher.test(path.basename(f.path)));
}

/** Reads every configuration system. A system counts as used when it configures an interface other than `lo`. */
export function networkFacts(bundle: Bundle, services: readonly Service[]): NetworkFacts {
  const running = (unit: string) => services.some((s) => s.enabled && s.unit === unit);
  const networkDirs = ['/usr/lib/systemd/network', '/lib/systemd/network', '/etc/systemd/network'];
  const admin = bundle.texts('/etc/systemd/network', '.network');
  const scripts = bundle.texts('/etc/sysconfig/network-scripts');
  const suse = bundle.texts('/etc/sysconfig/network');
  const named = (files: ConfigFile[], prefix: RegExp) =>
    files.filter((f) => prefix.test(path.basename(f.path)));
  const interfacesText = bundle.text(INTERFACES);
  const netplan = readNetplan([
    ...bundle.texts('/usr/lib/netplan', '.yaml'),
    ...bundle.texts('/etc/netplan', '.yaml'),
  ]);

  const ifupdown =
    interfacesText === undefined
      ? []
      : readIfupdown({ path: INTERFACES, text: interfacesText }, (p, dir) => sourced(bundle, p, dir));
  const openrc = bundle.below('/etc/runlevels').length > 0;
  const found: { system: NetworkFacts['systems'][number]; interfaces: NetworkInterface[] }[] = [
    { system: openrc ? 'openrc' : 'ifupdown', interfaces: ifupdown },
    { system: 'netplan', interfaces: netplan.interfaces },
    { system: 'networkd', interfaces: readNetworkd(admin) },
    {
      system: 'networkmanager',
      interfaces: readNetworkManager(bundle.texts('/etc/NetworkManager/system-connections')),
    },
    { system: 'ifcfg', interfaces: readIfcfg(named(scripts, /^ifcfg-/), named(scripts, /^route6?-/)) },
    { system: 'wicked', interfaces: readIfcfg(named(suse, /^ifcfg-/), named(suse, /^ifroute-/)) },
  ];
  const systems = found
    .filter(({ system, interfaces }) => {
      if (system === 'networkd')
        return (
          interfaces.length > 0 && (running('systemd-networkd.service') || !running('networking.service'))
        );
      return interfaces.some((i) => i.method !== 'loopback' && i.name !== 'lo');
    })
    .map(({ system }) => system);

  const pins: Pin[] = [
    ...readUdevPins(bundle.texts('/etc/udev/rules.d', '.rules')),
    ...readLinks(networkDirs.flatMap((dir) => bundle.texts(dir, '.link'))),
    ...netplan.pins,
  ];
  const seen = new Set<string>();
  const unique = pins.filter((p) => !seen.has(`${p.file} ${p.mac}`) && seen.add(`${p.file} ${p.mac}`));
  const interfaces = merge(found.flatMap((f) => f.interfaces));
  for (const item of interfaces) {
    const mac = item.mac ?? unique.find((p) => p.name === item.name)?.mac;
    if (mac !== undefined) item.mac = mac;
  }
  return { systems, interfaces, pins: unique, ...readResolvConf(bundle.text('/etc/resolv.conf') ?? '') };
}

/** The same interface in two systems is one interface; the first that gives an address wins over one that does not. */
function merge(all: readonly NetworkInterface[]): NetworkInterface[] {
  const merged = new Map<string, NetworkInterface>();
  for (const item of all) {
    const known = merged.get(item.name);
    if (known === undefined) {
      merged.set(item.name, item);
      continue;
    }
    addAll(known.addresses, item.addresses);
    addAll(known.gateways, item.gateways);
    addAll(known.dns, item.dns);
    addAll(known.searchDomains, item.searchDomains);
    addAll(known.configuredIn, item.configuredIn);
    known.routes.push(...item.routes);
    if (known.addresses.length > 0 && known.method !== 'loopback') known.method = 'static';
    else if (known.method === 'unknown' || known.method === 'manual') known.method = item.method;
    if (known.mac === undefined && item.mac !== undefined) known.mac = item.mac;
    if (known.mtu === undefined && item.mtu !== undefined) known.mtu = item.mtu;
  }
  return [...merged.values()];
}
