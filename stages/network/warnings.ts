/** Places that still name the old machine's address or cards; they are the application's, so they are only told. */
import type { Facts } from '../../core/facts.ts';
import type { GuestFiles } from '../../core/guest.ts';
import { hookCommands } from './set-aside.ts';

/** Configuration that often names a card. */
const NAMING: readonly string[] = [
  '/etc/iptables/rules.v4',
  '/etc/iptables/rules.v6',
  '/etc/iptables.rules',
  '/etc/nftables.conf',
  '/etc/shorewall/interfaces',
  '/etc/default/isc-dhcp-server',
  '/etc/dnsmasq.conf',
  '/etc/keepalived/keepalived.conf',
  '/etc/sysctl.conf',
];

/** Sentences for the user; reads only. */
export async function leftovers(
  guest: GuestFiles,
  facts: Facts,
  setAside: readonly string[],
): Promise<string[]> {
  const found: string[] = [];
  const nics = facts.network.interfaces.filter((n) => n.method !== 'loopback' && n.name !== 'lo');
  const addresses = nics.flatMap((n) => n.addresses.map((a) => a.replace(/\/.*/, '')));
  const hosts = ((await guest.readText('/etc/hosts')) ?? '').split('\n').filter((l) => !/^\s*#/.test(l));
  for (const line of hosts) {
    const [address = '', ...names] = line.trim().split(/\s+/);
    if (addresses.includes(address)) {
      found.push(`/etc/hosts names the old address ${address} (${names.join(' ')}); the entry stays`);
    }
  }
  for (const path of NAMING) {
    const text = (await guest.readText(path)) ?? '';
    const named = nics
      .map((n) => n.name)
      .filter((n) => new RegExp(`(^|[^\\w.-])${escapePattern(n)}([^\\w.-]|$)`, 'm').test(text));
    if (named.length > 0)
      found.push(`${path} names ${named.join(', ')}; cards may be called otherwise on the target`);
  }
  for (const path of setAside) {
    const commands = hookCommands((await guest.readText(path)) ?? '');
    if (commands.length > 0)
      found.push(`${path} ran commands with the network, which no longer run: ${commands.join('; ')}`);
  }
  const virtual = await guest.glob('/etc/systemd/network/*.netdev');
  if (virtual.length > 0)
    found.push(`${virtual.join(', ')}: bridges, bonds or VLANs stay defined, but nothing connects them`);
  return found;
}

function escapePattern(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}

/** A fixed list of name servers that nothing will replace, where the new network has others. */
export async function resolverWarning(
  guest: GuestFiles,
  facts: Facts,
  system: string | undefined,
): Promise<string | undefined> {
  if (system !== 'networkd' || (await guest.kind('/etc/resolv.conf')) !== 'file') return undefined;
  if (facts.network.dns.length === 0) return undefined;
  return `/etc/resolv.conf is a fixed file (${facts.network.dns.join(', ')}) and systemd-networkd does not change it; install systemd-resolved to follow DHCP`;
}
