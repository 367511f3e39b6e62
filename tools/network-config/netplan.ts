/** netplan: `/etc/netplan/*.yaml`. */
import { parse } from 'yaml';
import * as z from 'zod';
import type { NetworkInterface } from '../../core/facts.ts';
import { addAll, type ConfigFile, macAddress, mtuOf, newInterface } from './shared.ts';

const Yes = z.union([z.boolean(), z.string().transform((s) => /^(true|yes|on|y)$/i.test(s))]).catch(false);
const Text = z.union([z.string(), z.number().transform(String)]);
const Address = z.union([Text, z.record(z.string(), z.unknown()).transform((o) => Object.keys(o)[0] ?? '')]);
const Definition = z.object({
  dhcp4: Yes.default(false),
  dhcp6: Yes.default(false),
  addresses: z.array(Address).catch([]).default([]),
  gateway4: Text.optional().catch(undefined),
  gateway6: Text.optional().catch(undefined),
  macaddress: Text.optional().catch(undefined),
  match: z.object({ macaddress: Text.optional(), name: Text.optional() }).optional().catch(undefined),
  'set-name': Text.optional().catch(undefined),
  mtu: z.union([z.number(), z.string()]).optional().catch(undefined),
  nameservers: z
    .object({ addresses: z.array(Text).catch([]).default([]), search: z.array(Text).catch([]).default([]) })
    .optional()
    .catch(undefined),
  routes: z
    .array(z.object({ to: Text, via: Text.optional() }))
    .catch([])
    .default([]),
});
const Kind = z.record(z.string(), Definition.nullable().catch(null)).catch({}).default({});
const Document = z.object({
  network: z.object({
    renderer: Text.optional().catch(undefined),
    ethernets: Kind,
    bonds: Kind,
    bridges: Kind,
    vlans: Kind,
    wifis: Kind,
  }),
});

/** What netplan's files say. */
export interface NetplanResult {
  interfaces: NetworkInterface[];
  /** Names given to hardware by MAC. */
  pins: { file: string; mac: string; name: string }[];
}

/** Reads the files in netplan's order (by name); a later definition of an interface adds to an earlier one. */
export function readNetplan(files: readonly ConfigFile[]): NetplanResult {
  const found = new Map<string, NetworkInterface>();
  const pins: NetplanResult['pins'] = [];
  for (const { path, text } of files) {
    let data: unknown;
    try {
      data = parse(text, { maxAliasCount: 20, logLevel: 'error' });
    } catch {
      continue;
    }
    const parsed = Document.safeParse(data);
    if (!parsed.success) continue;
    const { ethernets, bonds, bridges, vlans, wifis } = parsed.data.network;
    for (const kind of [ethernets, bonds, bridges, vlans, wifis]) {
      for (const [id, definition] of Object.entries(kind)) {
        if (definition === null) continue;
        const name = definition['set-name'] ?? definition.match?.name ?? id;
        const target = found.get(name) ?? newInterface(name, path);
        found.set(name, target);
        addAll(target.configuredIn, [path]);
        const mac = macAddress(definition.match?.macaddress ?? definition.macaddress ?? '');
        if (mac !== undefined) {
          target.mac = mac;
          if (definition['set-name'] !== undefined) pins.push({ file: path, mac, name });
        }
        addAll(target.addresses, definition.addresses);
        addAll(
          target.gateways,
          [definition.gateway4, definition.gateway6].filter((g) => g !== undefined),
        );
        for (const { to, via } of definition.routes) {
          if (via === undefined) continue;
          if (/^(default|0\.0\.0\.0\/0|::\/0)$/.test(to)) addAll(target.gateways, [via]);
          else target.routes.push({ to, via });
        }
        addAll(target.dns, definition.nameservers?.addresses ?? []);
        addAll(target.searchDomains, definition.nameservers?.search ?? []);
        Object.assign(target, mtuOf(definition.mtu === undefined ? undefined : String(definition.mtu)));
        if (definition.dhcp4 || definition.dhcp6) target.method = 'dhcp';
        else if (target.addresses.length > 0) target.method = 'static';
        else if (target.method === 'unknown') target.method = 'manual';
      }
    }
  }
  return { interfaces: [...found.values()], pins };
}
