/** Windows: told from Linux, and refused with what to do instead. */
import { PortError } from '../../core/errors.ts';
import type { Look, Probe } from './probe.ts';

/** Folders of a system: NT 6 and later, XP and 2003, 2000. NTFS keeps the case of a name, the appliance heeds it. */
const SYSTEM = ['Windows/System32', 'WINDOWS/system32', 'WINNT/system32'];
/** Files a boot partition of it has. */
const BOOT = ['bootmgr', 'EFI/Microsoft/Boot/bootmgfw.efi'];

/** What a file system may have that tells of Windows; `scripts.ts` looks for them. */
export const WINDOWS_SIGNS: readonly string[] = [...SYSTEM, ...BOOT];

const has = (look: Look, signs: readonly string[]) => signs.some((sign) => look.has.has(sign));

/** The file system a Windows is installed on. */
export function findWindows(probe: Probe): Look | undefined {
  return probe.looks.find((look) => has(look, SYSTEM));
}

/** Platforms that `virt-v2v` prepares a Windows for: KVM with virtio. */
const KVM: readonly string[] = ['openstack', 'qemu'];

/** Throws UNSUPPORTED_OS where there is a Windows, or the boot files of one. `targets` are names of platforms. */
export function refuseWindows(probe: Probe, targets: readonly string[]): void {
  const system = findWindows(probe);
  const boot = probe.looks.find((look) => has(look, BOOT));
  const look = system ?? boot;
  if (look === undefined) return;
  const others = targets.filter((t) => !KVM.includes(t));
  const way =
    others.length === 0
      ? 'virt-v2v with virtio-win makes it start on KVM'
      : `virt-v2v makes it start on KVM only; for ${others.join(', ')} use the importer of the platform`;
  throw new PortError(
    'UNSUPPORTED_OS',
    system === undefined
      ? `${look.device} holds the boot files of Windows, and no other file system its system`
      : `${look.device} holds Windows, which port-image does not convert`,
    { hint: `${way}: the commands are in docs/windows.md` },
  );
}
