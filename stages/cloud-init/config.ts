/** The configuration cloud-init gets, written by hand: ds-identify reads the datasource list with a shell, line by line. */
import type { Facts } from '../../core/facts.ts';

/** Path of our configuration. It sorts behind what distributions and installers leave, so it wins. */
export const CONFIG_PATH = '/etc/cloud/cloud.cfg.d/99-port-image.cfg';

/** What decides the configuration. */
export interface ConfigInput {
  /** Datasources of the chosen platforms, in order. */
  datasources: readonly string[];
  /** Settings of datasources by their names. */
  settings?: Readonly<Record<string, Readonly<Record<string, string>>>>;
  /** True for a template: identity is made anew by cloud-init. */
  generalize: boolean;
  /** Kinds of ssh host keys the server has, such as `ed25519`. */
  hostKeyTypes: readonly string[];
  /** True when the account cloud-init would create exists already. */
  defaultUserExists: boolean;
}

/**
 * Where the account has not the name of the distribution or what that is made of (`usernames` of cloud-init's
 * config/cloud.cfg.tmpl). Rebuilds of RHEL's package may have its name or their own.
 */
const DEFAULT_USERS: Readonly<Record<string, readonly string[]>> = {
  almalinux: ['almalinux', 'cloud-user'],
  amzn: ['ec2-user'],
  centos: ['cloud-user'],
  fedora: ['fedora'],
  ol: ['ol', 'cloud-user'],
  rhel: ['cloud-user'],
  rocky: ['rocky', 'cloud-user'],
  ubuntu: ['ubuntu'],
};

/** Names the account may have that cloud-init would create in a guest of this distribution. */
export function defaultUsers({ distro, family }: Pick<Facts['os'], 'distro' | 'family'>): readonly string[] {
  if (family === 'suse') return ['suse'];
  const known = Object.hasOwn(DEFAULT_USERS, distro) ? DEFAULT_USERS[distro] : undefined;
  return known ?? [...new Set([distro, family])];
}

/** Union of several platforms' datasources: first come first, `None` last, each once. */
export function mergeDatasources(lists: readonly (readonly string[])[]): string[] {
  const all = [...new Set(lists.flat())];
  return [...all.filter((d) => d !== 'None'), ...(all.includes('None') ? ['None'] : [])];
}

/** Renders the file. Every value is a fixed word or from a fixed set. */
export function renderConfig(input: ConfigInput): string {
  const lines = [
    '# Written by port-image. The list stays on one line: ds-identify reads no other form.',
    `datasource_list: [ ${input.datasources.join(', ')} ]`,
    ...settingsLine(input.settings ?? {}),
    '# Package sources stay as the server had them.',
    'apt: { preserve_sources_list: true }',
    '# The fstab is complete; nothing is added for ephemeral disks or swap.',
    'mounts: [ [ ephemeral0 ], [ swap ] ]',
    '# Language and time zone stay as they are.',
    'locale: "false"',
  ];
  if (input.generalize) return `${lines.join('\n')}\n`;
  lines.push(
    '# A moved server keeps its name, its ssh host keys and the ways to log in.',
    'preserve_hostname: true',
    'ssh_deletekeys: false',
    ...(input.hostKeyTypes.length === 0 ? [] : [`ssh_genkeytypes: [ ${input.hostKeyTypes.join(', ')} ]`]),
    'disable_root: false',
  );
  if (input.defaultUserExists) {
    lines.push(
      '# The account exists: its password is not locked and it gets no new rights, only the key of the cloud.',
      'system_info: { default_user: { lock_passwd: false, sudo: null } }',
    );
  }
  return `${lines.join('\n')}\n`;
}

/** JSON is YAML; nothing when there is nothing to set. */
function settingsLine(settings: NonNullable<ConfigInput['settings']>): string[] {
  return Object.keys(settings).length === 0 ? [] : [`datasource: ${JSON.stringify(settings)}`];
}

/** Kinds of ssh host keys by file name; only kinds cloud-init can make. */
export function hostKeyTypes(names: readonly string[]): string[] {
  const known = ['rsa', 'ecdsa', 'ed25519'];
  return known.filter((type) => names.includes(`ssh_host_${type}_key`));
}
