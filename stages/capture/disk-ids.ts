/** What the disks of a machine are called in the job: names of files, and of `--disk`. The machine's own names are hostile. */
import { PortError } from '../../core/errors.ts';
import type { Inventory } from '../../core/inventory.ts';
import { printable } from '../../core/text.ts';
import { diskNamed } from './written.ts';

/** As `--disk` takes it. */
const MAX_ID_LENGTH = 60;

/**
 * An id for each device: `sda`, also when it was named by one of its links in /dev/disk; the last part of its path for other devices,
 * with a number where two have the same. Throws USAGE when one disk is named twice.
 */
export function diskIds(inventory: Inventory, devices: readonly string[]): string[] {
  const disks = devices.map((device) => diskNamed(inventory, device));
  const ids: string[] = [];
  for (const [i, device] of devices.entries()) {
    const disk = disks[i];
    const twin = disk === undefined ? -1 : disks.indexOf(disk);
    if (twin !== -1 && twin !== i) {
      throw new PortError(
        'USAGE',
        `${printable(devices[twin] ?? '')} and ${printable(device)} are the same disk`,
        { hint: 'name each disk once' },
      );
    }
    const base =
      (disk?.name ?? device.replace(/^.*\//s, ''))
        .replaceAll(/[^A-Za-z0-9._-]/g, '-')
        .replace(/^[^A-Za-z0-9]+/, '')
        .slice(0, MAX_ID_LENGTH) || 'disk';
    let id = base;
    for (let n = 2; ids.includes(id); n++) id = `${base}-${n}`;
    ids.push(id);
  }
  return ids;
}
