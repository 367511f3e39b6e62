/** Which file systems a machine writes to the captured devices through; in doubt a mount counts. */
import type { Inventory, InventoryDevice, InventoryDisk, InventoryMount } from '../../core/inventory.ts';

/** Contents that hold other things than files: what is mounted may lie on them without telling. */
const CONTAINERS = /_member$|^(crypto_LUKS|BitLocker|btrfs|bcachefs|bcache|drbd)$/i;

/** Where a device of this kernel name is: a slash is written `!` there (`cciss!c0d0`). */
export function devicePath(name: string): string {
  return `/dev/${name.replaceAll('!', '/')}`;
}

/** `vg0-my--root` for `/dev/vg0/my-root`. */
function mapperPath(device: string): string | undefined {
  const [, group, volume] = /^\/dev\/([^/]+)\/([^/]+)$/.exec(device) ?? [];
  if (group === undefined || volume === undefined) return undefined;
  return `/dev/mapper/${group.replaceAll('-', '--')}-${volume.replaceAll('-', '--')}`;
}

function deviceOf(inventory: Inventory, device: string): InventoryDevice | undefined {
  const names = [device, mapperPath(device)];
  return inventory.devices.find((d) => names.includes(d.path) || names.includes(devicePath(d.name)));
}

/** The whole disk a name stands for; undefined when it is none, or none that is known. */
export function diskNamed(inventory: Inventory, device: string): InventoryDisk | undefined {
  return inventory.disks.find((d) => devicePath(d.name) === device || d.links.includes(device));
}

function reaches(inventory: Inventory, device: string, mount: InventoryMount): boolean {
  const disk = diskNamed(inventory, device);
  if (disk !== undefined) return mount.disks.includes(disk.name);
  const node = deviceOf(inventory, device);
  // a name that the inventory does not explain may be any device
  if (node === undefined || mount.device === node.name) return true;
  const isPlain = node.content !== undefined && !CONTAINERS.test(node.content);
  if (isPlain) return false;
  // partitions of a loop device and what is stacked on them lie on no disk that is known
  return mount.disks.length === 0 || mount.disks.some((d) => node.disks.includes(d));
}

/** File systems that are mounted for writing and may lie on one of the devices. */
export function writtenMounts(inventory: Inventory, devices: readonly string[]): InventoryMount[] {
  return inventory.mounts.filter((m) => m.writable && devices.some((d) => reaches(inventory, d, m)));
}
