/** mkinitcpio: configuration that lasts, and the rebuild. */
import { PortError } from '../../core/errors.ts';
import type { Facts, Kernel } from '../../core/facts.ts';
import type { GuestFiles, GuestSession } from '../../core/guest.ts';
import { editMkinitcpio } from '../../tools/mkinitcpio.ts';
import { textEdit } from '../edits.ts';
import type { FileEdit, InitramfsBuild } from '../family.ts';

const CONFIG = '/etc/mkinitcpio.conf';

/** See Family. Throws GUEST_BROKEN when the configuration is missing or its arrays cannot be read. */
export async function configureInitramfs(
  guest: GuestFiles,
  modules: readonly string[],
  facts: Facts,
): Promise<FileEdit[]> {
  const loadable = modules.filter((m) =>
    facts.kernels.some((k) => k.modules.includes(m) && !k.builtin.includes(m)),
  );
  const edits: FileEdit[] = [];
  // Files of the folder are read after the main one and may assign anew (mkinitcpio 38 and later).
  const drops = await guest.glob('/etc/mkinitcpio.conf.d/*.conf');
  for (const path of [CONFIG, ...drops]) {
    const text = await guest.readText(path);
    if (text === undefined) {
      if (path !== CONFIG) continue;
      throw new PortError('GUEST_BROKEN', `the guest has no ${CONFIG}`, {
        hint: 'guests with another initramfs generator than mkinitcpio are not supported',
      });
    }
    const assigned = ['MODULES', 'HOOKS'].some((name) => new RegExp(`^[ \\t]*${name}=`, 'm').test(text));
    if (path !== CONFIG && !assigned) continue;
    const { text: after, opaque } = editMkinitcpio(
      text,
      /^[ \t]*MODULES=/m.test(text) || path === CONFIG ? loadable : [],
    );
    if (opaque.length > 0) {
      throw new PortError('GUEST_BROKEN', `${path}: ${opaque.join(' and ')} is not a plain list`, {
        hint: 'write it as NAME=(word word) on the server',
      });
    }
    edits.push(
      ...textEdit(
        path,
        text,
        after,
        'this and every later initramfs fits the target platforms, not the old machine',
      ),
    );
  }
  return edits;
}

const REBUILD = `
set -e
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
new="$2.port-image-new"
trap 'rm -f "$new"' EXIT
# It ends with 1 for a warning too (firmware that is not there); what the image holds is listed afterwards.
mkinitcpio -k "$1" -g "$new" </dev/null || [ -s "$new" ]
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
