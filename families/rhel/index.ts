/** RHEL and what is built from it or for it: rpm, dracut, GRUB with boot loader entries, SELinux. */
import { configureDracut, rebuildDracut } from '../dracut.ts';
import type { Family } from '../family.ts';
import { installRpms, removeRpms, rpmResolver } from '../rpm.ts';
import { ROLES } from './roles.ts';

const DISTROS: readonly string[] = [
  'rhel',
  'centos',
  'rocky',
  'almalinux',
  'ol',
  'fedora',
  'amzn',
  'scientific',
  'eurolinux',
  'circle',
  'virtuozzo',
  'redhat',
];

/** Packages that pull in an agent and would go with it. */
const DEPENDANTS: Readonly<Record<string, readonly string[]>> = {
  'open-vm-tools': ['open-vm-tools-desktop', 'open-vm-tools-sdmp', 'open-vm-tools-salt-minion'],
};

/** The RHEL family. */
export const rhel: Family = {
  name: 'rhel',
  matches: (os) => os.type === 'linux' && (os.family === 'rhel' || DISTROS.includes(os.distro)),
  packagesFor: (role, facts) =>
    facts.os.distro === 'amzn' && role === 'amazon-ec2-utils' ? ['amazon-ec2-utils'] : ROLES[role],
  resolvePackages: rpmResolver('dnf download --resolve --alldeps --destdir DIR'),
  installPackages: installRpms,
  removePackages: removeRpms,
  configureInitramfs: configureDracut,
  // grub2's packages do not remember the disk; boot entries are edited with the rest of the menu.
  configureBootloader: async () => [],
  keepsPackage: (name, facts) =>
    DEPENDANTS[name]?.find((dependant) => facts.packages.some((p) => p.name === dependant)),
  rebuildInitramfs: rebuildDracut,
};
