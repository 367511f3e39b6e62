/** SUSE Linux Enterprise and openSUSE: rpm, dracut, GRUB with a generated menu, wicked or NetworkManager. */
import type { AgentRole } from '../../core/platform.ts';
import { configureDracut, rebuildDracut } from '../dracut.ts';
import type { Family } from '../family.ts';
import { installRpms, removeRpms, rpmResolver } from '../rpm.ts';

const DISTROS: readonly string[] = ['sles', 'sled', 'sles_sap', 'sle-micro', 'sl-micro'];

const ROLES: Readonly<Record<AgentRole, readonly string[]>> = {
  'cloud-init': ['cloud-init'],
  growpart: ['growpart'],
  fetch: ['curl', 'tar', 'zstd', 'ca-certificates-mozilla'],
  'qemu-guest-agent': ['qemu-guest-agent'],
  'amazon-ec2-utils': [],
  'azure-agent': ['python-azure-agent'],
  'hyperv-daemons': ['hyper-v'],
  'google-guest-agent': ['google-guest-agent', 'google-guest-configs'],
  'google-oslogin': ['google-guest-oslogin'],
  'open-vm-tools': ['open-vm-tools'],
  'xe-guest-utilities': [],
};

/** Packages that pull in an agent and would go with it. */
const DEPENDANTS: Readonly<Record<string, readonly string[]>> = {
  'open-vm-tools': ['open-vm-tools-desktop', 'open-vm-tools-salt-minion', 'open-vm-tools-containerinfo'],
  'google-guest-agent': ['google-osconfig-agent'],
};

/** The SUSE family. */
export const suse: Family = {
  name: 'suse',
  matches: (os) =>
    os.type === 'linux' &&
    (os.family === 'suse' || DISTROS.includes(os.distro) || os.distro.startsWith('opensuse')),
  packagesFor: (role) => ROLES[role],
  resolvePackages: rpmResolver('zypper --pkg-cache-dir DIR install --download-only --force'),
  installPackages: installRpms,
  removePackages: removeRpms,
  configureInitramfs: configureDracut,
  configureBootloader: async () => [],
  keepsPackage: (name, facts) =>
    DEPENDANTS[name]?.find((dependant) => facts.packages.some((p) => p.name === dependant)),
  rebuildInitramfs: rebuildDracut,
};
