/** What in a guest would keep cloud-init from doing its work on the new platform. */
import * as yaml from 'yaml';
import type { GuestFiles } from '../../core/guest.ts';
import { CONFIG_PATH } from './config.ts';

const CONFIG_DIR = '/etc/cloud/cloud.cfg.d';
/** Ending that takes a file out of cloud-init's sight. */
export const ASIDE = '.port-image-aside';

/** Names of files clouds and installers leave. */
const FOREIGN_NAME =
  /azure|waagent|walinux|amazon|aws|ec2|gce|google|oracle|digitalocean|hetzner|vultr|scaleway|curtin|subiquity|installer|maas|disable[-_](?:cloud[-_]?init[-_])?network/i;
/** Top-level keys of a file that only says where metadata comes from. */
const SOURCE_KEYS = new Set(['datasource_list', 'datasource', 'network', 'cloud_type', 'reporting']);

/** One thing in the way. */
export interface Blocker {
  path: string;
  /** `remove`: a flag; `aside`: a configuration, renamed; `unmask`: a link to /dev/null. */
  kind: 'remove' | 'aside' | 'unmask';
  why: string;
}

/** Flags whose presence switches something off. */
const FLAGS: readonly { path: string; why: string }[] = [
  { path: '/etc/cloud/cloud-init.disabled', why: 'it switches cloud-init off' },
  { path: '/etc/cloud/ds-identify.cfg', why: 'it fixes the platform that is looked for' },
];

/** Units of cloud-init, old and new names. */
export const UNITS: readonly string[] = [
  'cloud-init-local.service',
  'cloud-init.service',
  'cloud-init-main.service',
  'cloud-init-network.service',
  'cloud-config.service',
  'cloud-final.service',
];

/** Finds what is in the way, and warnings about what is left to the operator. */
export async function findBlockers(guest: GuestFiles): Promise<{ blockers: Blocker[]; warnings: string[] }> {
  const blockers: Blocker[] = [];
  const warnings: string[] = [];
  for (const flag of FLAGS) {
    if ((await guest.kind(flag.path)) !== 'missing') blockers.push({ ...flag, kind: 'remove' });
  }
  for (const unit of [...UNITS, 'cloud-init.target', 'qemu-guest-agent.service']) {
    const path = `/etc/systemd/system/${unit}`;
    if ((await guest.kind(path)) === 'symlink' && (await guest.readLink(path)) === '/dev/null')
      blockers.push({ path, kind: 'unmask', why: `${unit} was masked` });
  }
  for (const name of await guest.list(CONFIG_DIR)) {
    const path = `${CONFIG_DIR}/${name}`;
    if (!name.endsWith('.cfg') || /^\d+-port-image/.test(name)) continue;
    if (FOREIGN_NAME.test(name)) {
      blockers.push({ path, kind: 'aside', why: 'it belongs to another platform or an installer' });
      continue;
    }
    const keys = topLevelKeys((await guest.readText(path)) ?? '');
    if (keys === undefined) {
      warnings.push(`${path} is not understood; it stays`);
    } else if (keys.some((k) => k === 'datasource_list' || k === 'datasource' || k === 'network')) {
      if (keys.every((k) => SOURCE_KEYS.has(k))) {
        blockers.push({
          path,
          kind: 'aside',
          why: 'it names the metadata source or network of another platform',
        });
      } else if (path > CONFIG_PATH && keys.includes('datasource_list')) {
        warnings.push(
          `${path} names datasources, overrules ${CONFIG_PATH} and holds other settings too; it stays`,
        );
      }
    }
  }
  if ((await guest.kind('/etc/growroot-disabled')) !== 'missing')
    warnings.push('/etc/growroot-disabled keeps the root file system from growing; it stays');
  return { blockers, warnings };
}

/** Top-level keys of a YAML file; undefined when it cannot be read, [] when it is empty or no map. */
export function topLevelKeys(text: string): string[] | undefined {
  try {
    const value: unknown = yaml.parse(text, { version: '1.1', maxAliasCount: 20, logLevel: 'error' });
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? Object.keys(value) : [];
  } catch {
    return undefined;
  }
}
