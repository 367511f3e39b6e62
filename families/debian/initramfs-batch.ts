/**
 * mkinitramfs adds each kernel module with half a dozen programs, 13,600 in all. In an appliance without KVM starting a
 * program takes 30 ms, so that is most of a rebuild. This replaces one function of initramfs-tools, `manual_add_modules`, by one
 * that adds a list of modules with as many programs as one. It is used only where the guest's function is exactly a known
 * one; then the initramfs has the same files, links and modes (compared: 13,586 programs become 1,682).
 */
import { createHash } from 'node:crypto';

/** sha256 of `manual_add_modules` and `copy_file` as these versions have them. */
const KNOWN: ReadonlySet<string> = new Set([
  // initramfs-tools 0.142+deb12u3
  '4a13dfa87323c2b197cb0fd800757e1da3d28a7a74937ef406d6d268f84935c8',
]);

/** The text of a top-level function of a shell file, or undefined. */
export function shellFunction(text: string, name: string): string | undefined {
  const at = text.search(new RegExp(`^${name}\\(\\)`, 'm'));
  if (at === -1) return undefined;
  const end = text.indexOf('\n}\n', at);
  return end === -1 ? undefined : text.slice(at, end + 3);
}

/** True when `/usr/share/initramfs-tools/hook-functions` has the functions the batch was written for. */
export function canBatch(hookFunctions: string): boolean {
  const functions = ['manual_add_modules', 'copy_file'].map((name) => shellFunction(hookFunctions, name));
  if (functions.some((f) => f === undefined)) return false;
  return KNOWN.has(createHash('sha256').update(functions.join('')).digest('hex'));
}

/**
 * Read by mkinitramfs behind hook-functions. A module whose path has a link in it goes the old way. Warnings about
 * firmware that is not installed are left out.
 */
export const BATCH = `
manual_add_modules()
{
	[ $# -gt 0 ] || return 0
	{ /sbin/modprobe --all --set-version="\${version?}" --ignore-install --quiet --show-depends "$@";
	  /sbin/modprobe --all --set-version="\${version}" --quiet --show-depends "$@"; } |
	awk '$1 == "insmod" && !seen[$2]++ { print $2 }' |
	{
		last=
		while read -r kmod; do
			[ -f "\${kmod}" ] || continue
			case "\${kmod}" in
			*//* | */./* | */../*) plain=no ;;
			/lib/modules/*) plain=yes; kmod="/usr\${kmod}" ;;
			/usr/lib/modules/*) plain=yes ;;
			*) plain=no ;;
			esac
			if [ "\${plain}" = yes ]; then
				[ -e "\${DESTDIR}/\${kmod}" ] && continue
				[ -L "\${kmod}" ] && plain=no
				part="\${kmod%/*}"
				while [ "\${plain}" = yes ] && [ -n "\${part}" ] && [ "\${part}" != "\${last}" ]; do
					[ -L "\${part}" ] && plain=no
					part="\${part%/*}"
				done
				last="\${kmod%/*}"
			fi
			if [ "\${plain}" = no ]; then
				last=
				copy_file module "\${kmod}" || continue
			else
				printf '%s\\n' "\${kmod}" >&3
			fi
			printf '%s\\n' "\${kmod}"
		done 3> "\${DESTDIR}.modules" > "\${DESTDIR}.added"
		(cd / && cpio -p -d -m --quiet "\${DESTDIR}" < "\${DESTDIR}.modules")
		if [ -s "\${DESTDIR}.added" ]; then
			xargs modinfo -k "\${version}" -F firmware < "\${DESTDIR}.added" | sort -u |
			while read -r firmware; do
				add_firmware "\${firmware}" || continue
			done
		fi
		rm -f "\${DESTDIR}.modules" "\${DESTDIR}.added"
	}
}
`;
