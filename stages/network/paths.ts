/** Where each network configuration system keeps its files, and where the old ones are kept. */
import type { NetworkFacts } from '../../core/facts.ts';

/** A network configuration system. */
export type NetworkSystem = NetworkFacts['systems'][number];

/** Folder in the image with the configuration of the old machine, each file under its own path. */
export const RECORD_DIR = '/var/lib/port-image/network';

const PREFIXES: readonly { prefix: string; system: NetworkSystem }[] = [
  { prefix: '/etc/network/', system: 'ifupdown' },
  { prefix: '/etc/netplan/', system: 'netplan' },
  { prefix: '/etc/systemd/network/', system: 'networkd' },
  { prefix: '/etc/NetworkManager/', system: 'networkmanager' },
  { prefix: '/etc/sysconfig/network-scripts/', system: 'ifcfg' },
  { prefix: '/etc/sysconfig/network/', system: 'wicked' },
];

/** The system a file belongs to; undefined for files that are not under `/etc`. */
export function systemOf(path: string): NetworkSystem | undefined {
  return PREFIXES.find((p) => path.startsWith(p.prefix))?.system;
}

/** True for a name the kernel or udev gives to a network card; false for what is built from cards. */
export function isPhysical(name: string): boolean {
  return (
    !/[.:]/.test(name) &&
    !/^(?:lo|bond|team|br|virbr|docker|veth|tun|tap|vlan|dummy|wg|vxlan|lxc|ovs|ifb|sit|gre|ppp)\d*/.test(
      name,
    )
  );
}

/** Files of a system that configure interfaces other than the loopback, in facts' order. */
export function configurationFiles(facts: NetworkFacts): Map<NetworkSystem, string[]> {
  const files = new Map<NetworkSystem, string[]>();
  for (const nic of facts.interfaces) {
    if (nic.method === 'loopback' || nic.name === 'lo') continue;
    for (const path of nic.configuredIn) {
      const system = systemOf(path);
      if (system === undefined) continue;
      const list = files.get(system) ?? [];
      if (!list.includes(path)) list.push(path);
      files.set(system, list);
    }
  }
  return files;
}

/**
 * The system that brings the network up: the one that configures the interface with the default route, else any that
 * configures one, else the first that is there.
 */
export function primarySystem(facts: NetworkFacts): NetworkSystem | undefined {
  const nics = facts.interfaces.filter((n) => n.method !== 'loopback' && n.name !== 'lo');
  const nic = nics.find((n) => n.gateways.length > 0) ?? nics[0];
  const system = nic?.configuredIn.map(systemOf).find((s) => s !== undefined);
  return system ?? facts.systems[0];
}
