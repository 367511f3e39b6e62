/** Alpine Linux: apk, mkinitfs, OpenRC. */
import type { Family } from '../family.ts';
import { configureInitramfs, rebuildInitramfs } from './initramfs.ts';
import { installPackages, ROLES, removePackages, resolvePackages } from './packages.ts';

/** The Alpine family. */
export const alpine: Family = {
  name: 'alpine',
  matches: (os) => os.type === 'linux' && (os.family === 'alpine' || os.distro === 'alpine'),
  packagesFor: (role) => ROLES[role],
  resolvePackages,
  installPackages,
  removePackages,
  configureInitramfs,
  configureBootloader: async () => [],
  keepsPackage: () => undefined,
  rebuildInitramfs,
};
