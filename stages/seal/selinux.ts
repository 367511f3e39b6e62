/** SELinux: files written here carry no label, and a guest that enforces its policy would refuse them. */
import type { GuestFiles } from '../../core/guest.ts';
import type { FileEdit } from '../../families/family.ts';
import { lastAssignment } from '../../tools/shell-variables.ts';

const FLAG = '/.autorelabel';

/** Asks the guest to label every file at its first start (man selinux-autorelabel), where SELinux is in use. */
export async function relabelEdits(guest: GuestFiles): Promise<FileEdit[]> {
  const mode = lastAssignment((await guest.readText('/etc/selinux/config')) ?? '', 'SELINUX')?.value;
  // Permissive too: labels that are wrong now would stay wrong until somebody enforces.
  if (mode !== 'enforcing' && mode !== 'permissive') return [];
  if ((await guest.kind(FLAG)) !== 'missing') return [];
  return [
    {
      path: FLAG,
      before: undefined,
      after: '',
      why: `SELinux is ${mode}: the first start labels all files, then restarts once`,
    },
  ];
}
