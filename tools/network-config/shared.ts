/** What the readers of network configuration share. */
import type { NetworkInterface } from '../../core/facts.ts';

/** A configuration file of the guest. */
export interface ConfigFile {
  path: string;
  text: string;
}

/** An interface nothing is known about yet. */
export function newInterface(name: string, file: string): NetworkInterface {
  return {
    name,
    method: 'unknown',
    addresses: [],
    gateways: [],
    routes: [],
    dns: [],
    searchDomains: [],
    configuredIn: [file],
  };
}

/** Prefix length of a netmask such as `255.255.255.0`, or of a number; undefined when it is neither. */
export function prefixLength(mask: string): number | undefined {
  if (/^\d{1,3}$/.test(mask)) return Number(mask) <= 128 ? Number(mask) : undefined;
  const parts = mask.split('.').map(Number);
  if (parts.length !== 4 || parts.some((p) => !Number.isInteger(p) || p < 0 || p > 255)) return undefined;
  const bits = parts.map((p) => p.toString(2).padStart(8, '0')).join('');
  return /^1*0*$/.test(bits) ? bits.replace(/0/g, '').length : undefined;
}

/** Address in CIDR form. `mask` is a prefix length or a netmask; without one an address is a single host. */
export function cidr(address: string, mask?: string): string {
  if (address.includes('/')) return address;
  const prefix = mask === undefined ? undefined : prefixLength(mask);
  return `${address}/${prefix ?? (address.includes(':') ? 128 : 32)}`;
}

/** MAC in lower case with colons, or undefined when it is none. */
export function macAddress(text: string): string | undefined {
  const mac = text
    .trim()
    .replace(/^["']|["']$/g, '')
    .toLowerCase()
    .replaceAll('-', ':');
  return /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/.test(mac) ? mac : undefined;
}

/** Words of a value, separated by blanks or commas. */
export function listOf(text: string | undefined): string[] {
  return (text ?? '').split(/[\s,;]+/).filter((w) => w !== '');
}

/** Adds what is not there yet. */
export function addAll(list: string[], more: readonly string[]): void {
  for (const item of more) if (!list.includes(item)) list.push(item);
}

/** Reads an MTU. */
export function mtuOf(text: string | undefined): { mtu?: number } {
  const mtu = Number(text);
  return Number.isInteger(mtu) && mtu > 0 ? { mtu } : {};
}

/** Sections of an INI file in order: `[name]` and its assignments (repeated keys kept). */
export function iniSections(text: string): { name: string; entries: [string, string][] }[] {
  const sections: { name: string; entries: [string, string][] }[] = [];
  for (const raw of text.split('\n')) {
    const line = raw.trim();
    if (line === '' || /^[#;]/.test(line)) continue;
    const head = /^\[(.+)\]$/.exec(line);
    if (head !== null) {
      sections.push({ name: head[1] ?? '', entries: [] });
      continue;
    }
    const at = line.indexOf('=');
    if (at > 0) sections.at(-1)?.entries.push([line.slice(0, at).trim(), line.slice(at + 1).trim()]);
  }
  return sections;
}
