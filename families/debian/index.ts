/** Debian, Ubuntu and what is built from them: dpkg, apt, initramfs-tools, grub with debconf. */
import type { Family } from '../family.ts';
import { configureBootloader } from './bootloader.ts';
import { configureInitramfs, rebuildInitramfs } from './initramfs.ts';
import { installPackages, packagesFor, removePackages, resolvePackages } from './packages.ts';

const DISTROS: readonly string[] = [
  'debian',
  'ubuntu',
  'linuxmint',
  'kalilinux',
  'kali',
  'devuan',
  'raspbian',
  'pop',
  'neon',
  'elementary',
  'pardus',
  'deepin',
];

/** Packages that pull in an agent and would go with it. */
const DEPENDANTS: Readonly<Record<string, readonly string[]>> = {
  'open-vm-tools': ['ubuntu-server', 'ubuntu-server-minimal', 'open-vm-tools-desktop'],
};

/** The Debian family. */
export const debian: Family = {
  name: 'debian',
  matches: (os) =>
    os.type === 'linux' && (os.family === 'debian' || DISTROS.includes(os.distro) || os.family === 'ubuntu'),
  packagesFor,
  resolvePackages,
  installPackages,
  removePackages,
  configureInitramfs,
  configureBootloader,
  rebuildInitramfs,
  keepsPackage: (name, facts) =>
    DEPENDANTS[name]?.find((dependant) => facts.packages.some((p) => p.name === dependant)),
};
