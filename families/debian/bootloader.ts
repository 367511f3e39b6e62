/** What the boot loader packages remember about the old machine. */
import type { Facts } from '../../core/facts.ts';
import type { GuestFiles } from '../../core/guest.ts';
import { debconfValue, setDebconfValue } from '../../tools/debconf.ts';
import { textEdit } from '../edits.ts';
import type { FileEdit } from '../family.ts';

const ANSWERS = '/var/cache/debconf/config.dat';

/**
 * grub-pc remembers the disk it installs itself to; an update on another machine would stop and ask. An empty answer that
 * is marked as meant makes updates leave the boot code alone; cloud-init's grub_dpkg fills in the real disk. On UEFI,
 * `force_efi_extra_removable` makes updates refresh the fallback loader too.
 */
export async function configureBootloader(guest: GuestFiles, facts: Facts): Promise<FileEdit[]> {
  const has = (name: string) => facts.packages.some((p) => p.name === name);
  const before = await guest.readText(ANSWERS);
  if (before === undefined) return [];
  let after = before;
  let why = '';
  if (facts.firmware === 'bios' && has('grub-pc') && debconfValue(before, 'grub-pc/install_devices')) {
    after = setDebconfValue(after, 'grub-pc/install_devices', '');
    after = setDebconfValue(after, 'grub-pc/install_devices_empty', 'true', 'grub-pc');
    why = 'updates of grub-pc would look for the disk of the old machine';
  }
  const efi = ['grub-efi-amd64', 'grub-efi-arm64', 'grub-efi-ia32'].find(has);
  if (facts.firmware === 'uefi' && efi !== undefined) {
    after = setDebconfValue(after, 'grub2/force_efi_extra_removable', 'true', efi);
    why = 'updates of grub must refresh the fallback loader too';
  }
  // The database may hold passwords of other packages: its content stays out of the journal.
  return textEdit(ANSWERS, before, after, why).map((edit) => ({ ...edit, secret: true }));
}
