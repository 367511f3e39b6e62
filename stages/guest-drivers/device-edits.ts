/** Names that change with the hardware, everywhere the boot looks: fstab, crypttab, grub, LVM and blkid caches. */
import type { Facts } from '../../core/facts.ts';
import type { GuestFiles } from '../../core/guest.ts';
import { mountsOn, useOf } from '../../core/work-disks.ts';
import { textEdit } from '../../families/edits.ts';
import type { FileEdit } from '../../families/family.ts';
import { DeviceNames } from '../../tools/device-names.ts';
import { editCrypttab, editFstab, type FateOf } from '../../tools/fstab.ts';

/** Caches and pins of device names; each is made again where it is needed. */
const STALE: readonly { path: string; why: string }[] = [
  { path: '/etc/lvm/devices/system.devices', why: 'pins LVM to the disks of the old machine' },
  { path: '/etc/lvm/cache/.cache', why: 'cache of device names of the old machine' },
  { path: '/etc/blkid.tab', why: 'cache of device names of the old machine' },
  { path: '/etc/blkid.tab.old', why: 'cache of device names of the old machine' },
  { path: '/etc/blkid/blkid.tab', why: 'cache of device names of the old machine' },
  { path: '/etc/blkid/blkid.tab.old', why: 'cache of device names of the old machine' },
  { path: '/boot/grub/device.map', why: 'names the disks of the old machine; grub-install makes it anew' },
  { path: '/boot/grub2/device.map', why: 'names the disks of the old machine; grub-install makes it anew' },
  { path: '/etc/multipath/wwids', why: 'pins multipath to the disks of the old machine' },
  { path: '/etc/multipath/bindings', why: 'pins multipath to the disks of the old machine' },
];

/** Edits, what could not be resolved, and the names as fstab taught them (for the boot loader). */
export interface DeviceEdits {
  edits: FileEdit[];
  warnings: string[];
  names: DeviceNames;
}

/** Entries of disks that do not come along as they were. */
function fates(facts: Facts, names: DeviceNames): FateOf {
  const gone = new Set(mountsOn(facts, 'data').map((m) => m.path));
  const apart = new Set(mountsOn(facts, 'image').map((m) => m.path));
  return (device, mountPoint) => {
    if (mountPoint === undefined) {
      const swap = names.find(device);
      return swap?.type === 'swap' && useOf(facts, swap) === 'data'
        ? { kind: 'set aside', why: 'swap on a disk that did not come along' }
        : undefined;
    }
    if (gone.has(mountPoint)) return { kind: 'set aside', why: 'now a data set' };
    // its image may be attached after the first start
    return apart.has(mountPoint) ? { kind: 'optional' } : undefined;
  };
}

/** Plans the edits; reads only. */
export async function deviceEdits(guest: GuestFiles, facts: Facts): Promise<DeviceEdits> {
  const names = new DeviceNames(facts);
  const edits: FileEdit[] = [];
  const warnings: string[] = [];
  const fstab = await guest.readText('/etc/fstab');
  if (fstab !== undefined) {
    const edited = editFstab(fstab, names, fates(facts, names));
    warnings.push(...edited.warnings);
    edits.push(
      ...textEdit('/etc/fstab', fstab, edited.text, 'device names change with the hardware, UUIDs do not'),
    );
  }
  const crypttab = await guest.readText('/etc/crypttab');
  if (crypttab !== undefined) {
    const edited = editCrypttab(crypttab, names);
    warnings.push(...edited.warnings);
    edits.push(
      ...textEdit(
        '/etc/crypttab',
        crypttab,
        edited.text,
        'device names change with the hardware, UUIDs do not',
      ),
    );
  }
  for (const { path, why } of STALE) {
    if ((await guest.kind(path)) !== 'file') continue;
    edits.push({ path, before: await guest.readText(path), after: undefined, why });
  }
  return { edits, warnings, names };
}
