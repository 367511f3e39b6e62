/** dracut, which the RHEL and SUSE families use, and Debian guests whose owner chose it. */
import { PortError } from '../core/errors.ts';
import type { Facts, Kernel } from '../core/facts.ts';
import type { GuestFiles, GuestSession } from '../core/guest.ts';
import { DRACUT_CONF, dracutConf, withoutOmitted } from '../tools/dracut.ts';
import { textEdit } from './edits.ts';
import type { FileEdit, InitramfsBuild } from './family.ts';

const FOLDERS: readonly string[] = ['/usr/lib/dracut/dracut.conf.d', '/etc/dracut.conf.d'];
/** LVM's own rule for names (man lvm). */
const VG_NAME = /^[A-Za-z0-9_+.][A-Za-z0-9_+.-]*$/;

/**
 * What a host-only initramfs had learned from the machine and a generic one is not told: it activates volume groups and
 * RAID only when arguments name them (man dracut.cmdline: rd.lvm.vg, rd.auto).
 */
function storageArguments(facts: Facts): string[] {
  const used = new Set([facts.root, ...facts.mounts.filter((m) => m.path === '/usr').map((m) => m.device)]);
  const groups = facts.volumeGroups.filter((g) => g.logicalVolumes.some((l) => used.has(l.device)));
  const args = groups.map((g) => g.name).filter((name) => VG_NAME.test(name));
  const raid = [...used, ...groups.flatMap((g) => g.physicalVolumes)].some((d) => /^\/dev\/md/.test(d));
  return [...args.map((name) => `rd.lvm.vg=${name}`), ...(raid ? ['rd.auto=1'] : [])];
}

/** See Family. Only modules some kernel of the boot menu has as a file are named. */
export async function configureDracut(
  guest: GuestFiles,
  modules: readonly string[],
  facts: Facts,
): Promise<FileEdit[]> {
  const menu = facts.kernels.filter((k) => k.inBootMenu);
  const kernels = menu.length > 0 ? menu : facts.kernels;
  const loadable = modules.filter((m) =>
    kernels.some((k) => k.modules.includes(m) && !k.builtin.includes(m)),
  );
  const edits: FileEdit[] = [];
  const files = ['/etc/dracut.conf'];
  for (const folder of FOLDERS) {
    files.push(...(await guest.list(folder)).filter((n) => n.endsWith('.conf')).map((n) => `${folder}/${n}`));
  }
  for (const path of files.filter((f) => f !== DRACUT_CONF)) {
    const text = await guest.readText(path);
    if (text === undefined) continue;
    const why = 'omit_drivers left out a driver of the target platforms';
    edits.push(...textEdit(path, text, withoutOmitted(text, loadable), why));
  }
  edits.push(
    ...textEdit(
      DRACUT_CONF,
      await guest.readText(DRACUT_CONF),
      dracutConf(loadable, storageArguments(facts)),
      'this and every later initramfs has the drivers of the target platforms',
    ),
  );
  return edits;
}

/**
 * Built beside the old image in memory-backed scratch space where there is room, and moved when it is whole: a failed build leaves
 * the old one. dracut ends with 0 although a module failed to install, so the caller lists the result.
 */
const REBUILD = `
set -e
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
version="$1" target="$2" work="$3"
command -v dracut >/dev/null || { echo "the guest has no dracut" >&2; exit 1; }
mkdir -p "$work"
compress="$4"
set -- -f -q --no-hostonly --no-hostonly-cmdline
if [ -n "$compress" ]; then set -- "$@" --compress "$compress"; fi
free=$(df -Pk "$work" | awk 'NR==2 { print $4 }')
if [ "$free" -ge 786432 ]; then set -- "$@" --tmpdir "$work"; fi
new="$target.port-image-new"
trap 'rm -f "$new"' EXIT
[ -s "/lib/modules/$version/modules.dep" ] || depmod -a "$version"
dracut "$@" "$new" "$version" </dev/null
[ -s "$new" ]
if [ -e "$target" ]; then chmod --reference="$target" "$new"; fi
mv -f "$new" "$target"
`;

/** How dracut compresses when nothing is configured (dracut.sh), and the quickest way the appliance can do the same. */
const QUICK: Readonly<Record<string, { command: string; level: number }>> = {
  gzip: { command: 'gzip -n -1', level: 9 },
  zstd: { command: 'zstd -1 -q -T0', level: 15 },
};

/** See Family. Throws GUEST_BROKEN. */
export async function rebuildDracut(guest: GuestSession, kernel: Kernel): Promise<InitramfsBuild> {
  if (kernel.initramfs === undefined) {
    throw new PortError('GUEST_BROKEN', `kernel ${kernel.version} has no initramfs to build anew`);
  }
  const work = `${guest.exchange}/initramfs`;
  const quick = QUICK[kernel.initramfsCompression ?? ''];
  try {
    const args = [kernel.version, kernel.initramfs, work, quick?.command ?? ''];
    await guest.guest(REBUILD, args, 3_600_000);
  } finally {
    await guest.remove(work);
  }
  return quick === undefined ? {} : { repackLevel: quick.level };
}
