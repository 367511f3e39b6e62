/** mkinitfs: features that last, and the rebuild. */
import { PortError } from '../../core/errors.ts';
import type { Facts, Kernel } from '../../core/facts.ts';
import type { GuestFiles, GuestSession } from '../../core/guest.ts';
import { editMkinitfsConf, FEATURE, FEATURES_DIR, featureFile, MKINITFS_CONF } from '../../tools/mkinitfs.ts';
import { textEdit } from '../edits.ts';
import type { FileEdit, InitramfsBuild } from '../family.ts';

const WHY = 'this and every later initramfs has the drivers of the target platforms';

/**
 * See Family. mkinitfs takes whole folders of drivers by feature; no stock feature has Xen's block device. Throws
 * GUEST_BROKEN when `features` cannot be read.
 */
export async function configureInitramfs(
  guest: GuestFiles,
  modules: readonly string[],
  facts: Facts,
): Promise<FileEdit[]> {
  const config = (await guest.readText(MKINITFS_CONF)) ?? '';
  const available = new Set<string>();
  for (const dir of [FEATURES_DIR, '/usr/share/mkinitfs/features.d']) {
    for (const name of await guest.list(dir)) {
      const match = /^(.*)\.modules$/.exec(name);
      if (match !== null) available.add(match[1] ?? '');
    }
  }
  const after = editMkinitfsConf(config, [...available]);
  if (after === undefined) {
    throw new PortError('GUEST_BROKEN', `${MKINITFS_CONF}: features is not a plain list`, {
      hint: 'write it as features="ata base …" on the server',
    });
  }
  const deps: string[] = [];
  for (const kernel of facts.kernels) {
    deps.push((await guest.readText(`/lib/modules/${kernel.version}/modules.dep`)) ?? '');
  }
  const file = `${FEATURES_DIR}/${FEATURE}.modules`;
  return [
    ...textEdit(MKINITFS_CONF, await guest.readText(MKINITFS_CONF), after, WHY),
    ...textEdit(file, await guest.readText(file), featureFile(deps, modules), WHY),
  ];
}

const REBUILD = `
set -e
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
new="$2.port-image-new"
trap 'rm -f "$new"' EXIT
mkinitfs -o "$new" "$1" </dev/null
[ -s "$new" ]
mv -f "$new" "$2"
`;

/** See Family. Throws GUEST_BROKEN. */
export async function rebuildInitramfs(guest: GuestSession, kernel: Kernel): Promise<InitramfsBuild> {
  if (kernel.initramfs === undefined)
    throw new PortError('GUEST_BROKEN', `kernel ${kernel.version} has no initramfs to build anew`);
  await guest.guest(REBUILD, [kernel.version, kernel.initramfs], 3_600_000);
  return {};
}
