/** Arch Linux and what is built from it: pacman, mkinitcpio, systemd. */
import type { Family } from '../family.ts';
import { configureInitramfs, rebuildInitramfs } from './initramfs.ts';
import { installPackages, ROLES, removePackages, resolvePackages } from './packages.ts';

const DISTROS: readonly string[] = ['arch', 'archarm', 'manjaro', 'endeavouros'];

/** The Arch family. */
export const arch: Family = {
  name: 'arch',
  matches: (os) => os.type === 'linux' && (os.family === 'arch' || DISTROS.includes(os.distro)),
  packagesFor: (role) => ROLES[role],
  resolvePackages,
  installPackages,
  removePackages,
  configureInitramfs,
  configureBootloader: async () => [],
  keepsPackage: () => undefined,
  rebuildInitramfs,
};
