/** initramfs-tools, or dracut where it takes its place: configuration that lasts, and the rebuild. */
import type { Facts, Kernel } from '../../core/facts.ts';
import type { GuestFiles, GuestSession } from '../../core/guest.ts';
import { DeviceNames } from '../../tools/device-names.ts';
import { editFstab } from '../../tools/fstab.ts';
import { lastAssignment, setVariable } from '../../tools/shell-variables.ts';
import { configureDracut, rebuildDracut } from '../dracut.ts';
import { textEdit } from '../edits.ts';
import type { FileEdit, InitramfsBuild } from '../family.ts';
import { BATCH, canBatch } from './initramfs-batch.ts';

const CONFIG = '/etc/initramfs-tools';
const BEGIN = '# Begin of modules added by port-image: what the target platforms need to find the root disk.';
const END = '# End of modules added by port-image.';

/** Puts `modules` into the marked block of `/etc/initramfs-tools/modules`; lines outside of it stay. */
export function editModulesFile(text: string, modules: readonly string[]): string {
  const lines = text.split('\n');
  const begin = lines.indexOf(BEGIN);
  const end = lines.indexOf(END, begin);
  const outside = begin === -1 || end === -1 ? lines : [...lines.slice(0, begin), ...lines.slice(end + 1)];
  const present = new Set(
    outside
      .filter((l) => !l.startsWith('#'))
      .map((l) => (l.trim().split(/\s+/)[0] ?? '').replaceAll('-', '_')),
  );
  const missing = modules.filter((m) => !present.has(m.replaceAll('-', '_')));
  const body = outside.join('\n').replace(/\n*$/, '\n').replace(/^\n$/, '');
  if (missing.length === 0) return begin === -1 ? text : body;
  return `${body}${BEGIN}\n${missing.join('\n')}\n${END}\n`;
}

/** True when the owner chose dracut: it and initramfs-tools exclude each other, but configuration of both may lie around. */
async function usesDracut(guest: GuestFiles): Promise<boolean> {
  return (
    (await guest.kind('/usr/sbin/mkinitramfs')) === 'missing' &&
    (await guest.kind('/usr/bin/dracut')) !== 'missing'
  );
}

/** Configuration files in the order mkinitramfs reads them; the last assignment wins. */
async function configFiles(guest: GuestFiles): Promise<{ path: string; text: string }[]> {
  const files: { path: string; text: string }[] = [];
  const names = (await guest.list(`${CONFIG}/conf.d`)).filter(
    (n) => /^[\w.-]+$/.test(n) && !/\.dpkg-/.test(n),
  );
  for (const path of [`${CONFIG}/initramfs.conf`, ...names.map((n) => `${CONFIG}/conf.d/${n}`)]) {
    const text = await guest.readText(path);
    if (text !== undefined) files.push({ path, text });
  }
  return files;
}

/** `MODULES=dep` keeps drivers of the machine the image was built on; each such line becomes `most`. */
function withMostModules(text: string): string {
  const value = lastAssignment(text, 'MODULES')?.value;
  return value === 'dep' ? setVariable(text, 'MODULES', 'most') : text;
}

function withResume(text: string, names: DeviceNames): string {
  const value = lastAssignment(text, 'RESUME')?.value;
  if (value === undefined || value === '' || value === 'auto' || value === 'none') return text;
  const resolved = names.resolve(value, 'swap');
  if (resolved.kind === 'stable') return text;
  return setVariable(text, 'RESUME', resolved.kind === 'known' ? resolved.spec : 'none');
}

/** See Family. The names are written only if some kernel of the boot menu has them as a module. */
export async function configureInitramfs(
  guest: GuestFiles,
  modules: readonly string[],
  facts: Facts,
): Promise<FileEdit[]> {
  if (await usesDracut(guest)) return configureDracut(guest, modules, facts);
  const edits: FileEdit[] = [];
  const names = new DeviceNames(facts);
  editFstab((await guest.readText('/etc/fstab')) ?? '', names);
  const files = await configFiles(guest);
  for (const { path, text } of files) {
    const modulesText = withMostModules(text);
    edits.push(
      ...textEdit(
        path,
        text,
        withResume(modulesText, names),
        modulesText === text
          ? 'the device to resume from had a name that changes with the hardware'
          : 'MODULES=dep builds an initramfs that only fits the old machine',
      ),
    );
  }
  const menu = facts.kernels.filter((k) => k.inBootMenu);
  const loadable = modules.filter((m) => menu.some((k) => k.modules.includes(m) && !k.builtin.includes(m)));
  const path = `${CONFIG}/modules`;
  const before = await guest.readText(path);
  edits.push(
    ...textEdit(
      path,
      before,
      editModulesFile(before ?? '', loadable),
      'this and every later initramfs has the drivers of the target platforms',
    ),
  );
  return before === undefined && loadable.length === 0 ? edits.filter((e) => e.path !== path) : edits;
}

/**
 * The work folder is memory: the unpacked tree (hundreds of megabytes) never reaches the image, and is faster. It needs
 * room for the tree and the archive; without it the guest's own default (/var/tmp) is used. `compresslevel` is
 * mkinitramfs's own variable; versions that do not know it compress as configured.
 */
const REBUILD = `
set -e
work="$2"
mkdir -p "$work/bin"
free=$(df -Pk "$work" | awk 'NR==2 { print $4 }')
if [ "$free" -ge 524288 ]; then TMPDIR="$work"; export TMPDIR; fi
if [ -n "$3" ]; then compresslevel="$3"; export compresslevel; fi
target="/boot/initrd.img-$1"
bak=no
[ ! -e "$target.dpkg-bak" ] || bak=yes
old=no
[ ! -e "$target.bak" ] || old=yes
built=no
if [ -n "$4" ] && [ "$(readlink -f /bin)" = /usr/bin ] && [ "$(readlink -f /lib)" = /usr/lib ]; then
  printf '%s' "$4" > "$work/batch"
  line='. /usr/share/initramfs-tools/hook-functions'
  while IFS= read -r text; do
    printf '%s\\n' "$text"
    [ "$text" != "$line" ] || printf '. %s\\n' "$work/batch"
  done < "$(command -v mkinitramfs)" > "$work/bin/mkinitramfs"
  chmod 755 "$work/bin/mkinitramfs"
  if PATH="$work/bin:$PATH" update-initramfs -c -t -k "$1"; then built=yes; fi
fi
[ "$built" = yes ] || update-initramfs -c -t -k "$1"
[ "$bak" = yes ] || rm -f "$target.dpkg-bak"
[ "$old" = yes ] || rm -f "$target.bak"
rm -f "$target.new"
[ -s "$target" ]
`;

/** Levels mkinitramfs uses when nothing is configured. */
const DEFAULT_LEVELS: Readonly<Record<string, number>> = { gzip: 6, zstd: 9 };

/** See Family. `-c` also works where `update_initramfs=no` forbids updates, and makes no backup. */
export async function rebuildInitramfs(guest: GuestSession, kernel: Kernel): Promise<InitramfsBuild> {
  if (await usesDracut(guest)) return rebuildDracut(guest, kernel);
  const configured = (await configFiles(guest)).findLast((f) => lastAssignment(f.text, 'COMPRESSLEVEL'));
  const value = configured && lastAssignment(configured.text, 'COMPRESSLEVEL')?.value;
  const normal = DEFAULT_LEVELS[kernel.initramfsCompression ?? ''];
  // Only what Node compresses as the guest would; other formats are built in one go.
  const level = normal === undefined ? undefined : value ? Number(value) : normal;
  const repackLevel = Number.isInteger(level) ? level : undefined;
  const work = `${guest.exchange}/initramfs`;
  const batch = canBatch((await guest.readText('/usr/share/initramfs-tools/hook-functions')) ?? '')
    ? BATCH
    : '';
  const args = [kernel.version, work, repackLevel === undefined ? '' : '1', batch];
  await guest.guest(REBUILD, args, 3_600_000);
  await guest.remove(work);
  return repackLevel === undefined ? {} : { repackLevel };
}
