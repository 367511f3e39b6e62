/** Names of disks may move at a reboot: what was copied under a name must still be what has it. */
import { PortError } from '../../core/errors.ts';
import type { Inventory, InventoryDisk } from '../../core/inventory.ts';
import { printable } from '../../core/text.ts';
import type { CaptureState } from './state.ts';
import { diskNamed } from './written.ts';

const partitionIds = (disk: InventoryDisk): string[] => disk.partitions.flatMap((p) => p.uuid ?? []);

/** What tells that these are two disks; undefined when nothing does. */
function difference(before: InventoryDisk, now: InventoryDisk): string | undefined {
  if (before.serial !== undefined && now.serial !== undefined) {
    if (before.serial === now.serial) return undefined;
    return `its serial number was ${printable(before.serial)}, now it is ${printable(now.serial)}`;
  }
  const [old, current] = [partitionIds(before), partitionIds(now)];
  if (old.length === 0 || current.length === 0 || old.some((id) => current.includes(id))) return undefined;
  return 'it has none of the partitions that were there';
}

/** Throws JOB_MISMATCH when a disk is another one than the copy is of, as far as the source tells. */
export function requireSameDisks(
  source: string,
  disks: readonly { device: string }[],
  before: CaptureState | undefined,
  now: Inventory | undefined,
): void {
  if (before?.inventory === undefined || now === undefined) return;
  for (const { device } of disks) {
    if (!before.disks.some((d) => d.device === device)) continue;
    const [old, current] = [diskNamed(before.inventory, device), diskNamed(now, device)];
    const why = old === undefined || current === undefined ? undefined : difference(old, current);
    if (why === undefined) continue;
    throw new PortError(
      'JOB_MISMATCH',
      `${printable(device)} of ${source} is another disk than the one that was copied: ${why}`,
      { hint: 'name disks by their links in /dev/disk/by-id, in a new --job: these do not move' },
    );
  }
}
