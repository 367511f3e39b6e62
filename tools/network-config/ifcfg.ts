/** `ifcfg-*` files of the RHEL family (network-scripts) and of SUSE (wicked). */
import type { NetworkInterface } from '../../core/facts.ts';
import { addAll, type ConfigFile, cidr, listOf, macAddress, mtuOf, newInterface } from './shared.ts';

/** Reads shell-like assignments; nothing is expanded. */
export function parseAssignments(text: string): Map<string, string> {
  const values = new Map<string, string>();
  for (const line of text.split('\n')) {
    const match = /^\s*(?:export\s+)?([A-Za-z_]\w*)=(.*)$/.exec(line);
    if (match === null) continue;
    const value = (match[2] ?? '').trim();
    values.set(match[1] ?? '', /^(["'])(.*?)\1/.exec(value)?.[2] ?? value.replace(/\s+#.*$/, ''));
  }
  return values;
}

/** Reads `ifcfg-*` and the `route-*` files beside them. */
export function readIfcfg(
  files: readonly ConfigFile[],
  routeFiles: readonly ConfigFile[] = [],
): NetworkInterface[] {
  return files.flatMap(({ path, text }) => {
    const fileName = /\/ifcfg-([^/]+)$/.exec(path)?.[1] ?? '';
    if (fileName === '' || /(~|\.(bak|orig|rpmnew|rpmsave|template))$/.test(fileName)) return [];
    const values = parseAssignments(text);
    const name = values.get('DEVICE') || fileName;
    const target = newInterface(name, path);
    const mac = macAddress(values.get('HWADDR') ?? values.get('LLADDR') ?? '');
    if (mac !== undefined) target.mac = mac;
    for (const [key, value] of values) {
      const suffix = /^IPADDR(.*)$/.exec(key)?.[1];
      if (suffix === undefined || value === '') continue;
      addAll(target.addresses, [
        cidr(
          value,
          values.get(`PREFIX${suffix}`) ?? values.get(`PREFIXLEN${suffix}`) ?? values.get(`NETMASK${suffix}`),
        ),
      ]);
    }
    addAll(target.addresses, [
      ...listOf(values.get('IPV6ADDR')),
      ...listOf(values.get('IPV6ADDR_SECONDARIES')),
    ]);
    addAll(target.gateways, [...listOf(values.get('GATEWAY')), ...listOf(values.get('IPV6_DEFAULTGW'))]);
    for (const [key, value] of values) {
      if (/^DNS\d+$/.test(key)) addAll(target.dns, listOf(value));
    }
    addAll(target.searchDomains, listOf(values.get('DOMAIN')));
    Object.assign(target, mtuOf(values.get('MTU')));
    for (const route of routeFiles.filter(
      (r) => r.path.replace(/^.*\//, '').replace(/^(route6?|ifroute)-/, '') === name,
    )) {
      addAll(target.configuredIn, [route.path]);
      for (const line of route.text.split('\n')) {
        const match = /^\s*(\S+)\s+via\s+(\S+)/.exec(line) ?? /^\s*(\S+)\s+(\d\S+)\s/.exec(`${line} `);
        if (match === null) continue;
        if (/^(default|0\.0\.0\.0\/0|::\/0)$/.test(match[1] ?? '')) addAll(target.gateways, [match[2] ?? '']);
        else target.routes.push({ to: match[1] ?? '', via: match[2] ?? '' });
      }
    }
    const proto = (values.get('BOOTPROTO') ?? '').toLowerCase();
    if (name === 'lo') target.method = 'loopback';
    else if (/^(dhcp|dhcp4|dhcp6|bootp|autoip)/.test(proto)) target.method = 'dhcp';
    else target.method = target.addresses.length > 0 ? 'static' : 'manual';
    return [target];
  });
}
