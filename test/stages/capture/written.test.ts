/** Which mounts write to a device, whatever name it was given by. */
import { expect, test } from 'vitest';
import type { Inventory } from '../../../core/inventory.ts';
import { writtenMounts } from '../../../stages/capture/written.ts';

const device = (name: string, path: string, kind: string, disks: string[], content?: string) => ({
  ...{ name, path, kind, disks, content },
  sizeBytes: 1,
});
const mount = (mountPoint: string, on: string, disks: string[], writable = true) => ({
  ...{ mountPoint, device: on, type: 'ext4', writable, disks },
});

const machine = {
  disks: [
    { name: 'sda', links: ['/dev/disk/by-id/ata-1'] },
    { name: 'sdb', links: [] },
  ],
  devices: [
    device('sda', '/dev/sda', 'disk', ['sda']),
    device('sda1', '/dev/sda1', 'partition', ['sda'], 'ext4'),
    device('sda2', '/dev/sda2', 'partition', ['sda'], 'LVM2_member'),
    device('dm-0', '/dev/mapper/vg0-my--root', 'lvm', ['sda'], 'ext4'),
    device('dm-1', '/dev/mapper/vg0-snap', 'lvm', ['sda'], 'ext4'),
    device('sdb', '/dev/sdb', 'disk', ['sdb']),
    device('loop0', '/dev/loop0', 'loop', []),
    device('loop0p1', '/dev/loop0p1', 'partition', [], 'ext4'),
    device('md0', '/dev/md0', 'raid', ['sda', 'sdb']),
  ],
  mounts: [
    mount('/', 'dm-0', ['sda']),
    mount('/boot', 'sda1', ['sda']),
    mount('/old', 'sdb', ['sdb'], false),
    mount('/loop', 'loop0p1', []),
  ],
} as unknown as Inventory;

test.each([
  ['/dev/sda', ['/', '/boot']],
  ['/dev/disk/by-id/ata-1', ['/', '/boot']],
  ['/dev/sdb', []],
  // a partition and a volume that hold a file system: only its own mount
  ['/dev/sda1', ['/boot']],
  ['/dev/mapper/vg0-my--root', ['/']],
  ['/dev/vg0/my-root', ['/']],
  ['/dev/vg0/snap', []],
  // what may hold others counts with all that lies on its disks
  ['/dev/sda2', ['/', '/boot', '/loop']],
  ['/dev/md0', ['/', '/boot', '/loop']],
  ['/dev/loop0', ['/loop']],
  // a name nobody explains may be any device
  ['/dev/disk/by-uuid/1234', ['/', '/boot', '/loop']],
])('%s', (name, points) => {
  expect(writtenMounts(machine, [name]).map((m) => m.mountPoint)).toEqual(points);
});
