/** The smallest configuration that asks for an address on whatever card is found, per configuration system. */
import type { FileEdit } from '../../families/family.ts';
import { type NetworkSystem, RECORD_DIR } from './paths.ts';

/** Marks files this stage wrote, so that they are never set aside as the old machine's. */
export const MARK = 'Written by port-image.';
const NOTE = `# ${MARK} The configuration of the old machine is kept in ${RECORD_DIR}.`;
const WHY = 'addresses come by DHCP; what cloud-init writes has precedence';

/** What differs between guests of one system. */
export interface DhcpOptions {
  /** Alpine's ifupdown knows no patterns. */
  patterns: boolean;
  /** netplan's `renderer:`, kept as it was. */
  renderer?: string | undefined;
  /** Files that exist already, by path. */
  existing: ReadonlyMap<string, string>;
}

function ifupdown(patterns: boolean): string {
  const dhcp = patterns
    ? // Cards cloud-init configures in interfaces.d are up by then and are left alone.
      `auto /en*=port-image-dhcp /eth*=port-image-dhcp\niface port-image-dhcp inet dhcp\n`
    : `auto eth0\niface eth0 inet dhcp\n`;
  return `${NOTE}\nsource /etc/network/interfaces.d/*\n\nauto lo\niface lo inet loopback\n\n${dhcp}`;
}

const NETWORKD = `${NOTE}
[Match]
Name=en* eth*

[Network]
DHCP=yes
`;

function netplan(renderer: string | undefined): string {
  // The name sorts behind the cards' own names, which cloud-init uses: the first match wins.
  return `${NOTE}
network:
  version: 2
${renderer === undefined ? '' : `  renderer: ${renderer}\n`}  ethernets:
    zz-port-image:
      match:
        name: "e*"
      dhcp4: true
`;
}

const KEYFILE = `${NOTE}
[connection]
id=port-image-dhcp
type=ethernet
autoconnect-priority=-100
multi-connect=3

[ipv4]
method=auto

[ipv6]
method=auto
`;

const IFCFG = `${NOTE}
DEVICE=eth0
TYPE=Ethernet
BOOTPROTO=dhcp
ONBOOT=yes
`;

const WICKED = `${NOTE}
BOOTPROTO='dhcp'
STARTMODE='auto'
`;

/** File and content of the DHCP form of a system. */
export function dhcpFile(
  system: NetworkSystem,
  options: Omit<DhcpOptions, 'existing'>,
): { path: string; text: string; mode: number } {
  switch (system) {
    case 'ifupdown':
    case 'openrc':
      return { path: '/etc/network/interfaces', text: ifupdown(options.patterns), mode: 0o644 };
    case 'networkd':
      return { path: '/etc/systemd/network/99-port-image-dhcp.network', text: NETWORKD, mode: 0o644 };
    case 'netplan':
      return { path: '/etc/netplan/99-port-image-dhcp.yaml', text: netplan(options.renderer), mode: 0o600 };
    case 'networkmanager':
      return {
        path: '/etc/NetworkManager/system-connections/port-image-dhcp.nmconnection',
        text: KEYFILE,
        mode: 0o600,
      };
    case 'ifcfg':
      return { path: '/etc/sysconfig/network-scripts/ifcfg-eth0', text: IFCFG, mode: 0o644 };
    case 'wicked':
      return { path: '/etc/sysconfig/network/ifcfg-eth0', text: WICKED, mode: 0o644 };
  }
}

/** The edit that writes the DHCP form, or nothing when it is there. */
export function dhcpEdit(system: NetworkSystem, options: DhcpOptions): FileEdit[] {
  const { path, text, mode } = dhcpFile(system, options);
  const before = options.existing.get(path);
  return before === text ? [] : [{ path, before, after: text, why: WHY, mode }];
}

/**
 * ifupdown waits for drivers only when its configuration names a card that is there already; our pattern matches none
 * before. Without this the network would stay down whenever a driver loads late.
 */
export const SETTLE = {
  path: '/etc/systemd/system/networking.service.d/port-image.conf',
  text: `# ${MARK}\n[Service]\nExecStartPre=-/bin/udevadm settle --timeout=60\n`,
};

/** cloud-init must write for the system that runs, not for another that happens to be installed. */
const RENDERERS: Readonly<Partial<Record<NetworkSystem, string>>> = {
  ifupdown: 'eni',
  openrc: 'eni',
  networkd: 'networkd',
  netplan: 'netplan',
  networkmanager: 'network-manager',
  ifcfg: 'sysconfig',
  wicked: 'sysconfig',
};

/** Path of our cloud-init configuration about the network. */
export const CLOUD_CONFIG = '/etc/cloud/cloud.cfg.d/91-port-image-network.cfg';

/** cloud-init's part: which system to write for, or to leave the network alone. */
export function cloudConfig(system: NetworkSystem | undefined, keep: boolean): string | undefined {
  if (keep) return `# ${MARK} The image keeps its own network configuration.\nnetwork:\n  config: disabled\n`;
  const renderer = system === undefined ? undefined : RENDERERS[system];
  if (renderer === undefined) return undefined;
  return `# ${MARK} cloud-init writes for the system that manages the network here.\nsystem_info:\n  network:\n    renderers: [${renderer}]\n`;
}
