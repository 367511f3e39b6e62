/** What of a platform the verification proves, and how: booted, listed, or not at all. */
import type { BootProfile, DiskBus, Platform } from '../../core/platform.ts';
import type { Check, Claim, ModuleListing } from '../../core/types.ts';

/** Drivers a guest may use for each disk bus, by the names of /sys/bus/…/drivers, with `_`. */
const DISK_DRIVERS: Readonly<Record<DiskBus, readonly string[]>> = {
  'virtio-blk': ['virtio_blk'],
  'virtio-scsi': ['virtio_scsi'],
  nvme: ['nvme'],
  ahci: ['ahci'],
  ide: ['ata_piix', 'ahci'],
  pvscsi: ['vmw_pvscsi'],
};
const NIC_DRIVERS: Readonly<Record<BootProfile['nic'], readonly string[]>> = {
  'virtio-net-pci': ['virtio_net'],
  e1000: ['e1000'],
  vmxnet3: ['vmxnet3'],
};

/** How people call the devices. */
const DISK_TITLES: Readonly<Record<DiskBus, string>> = {
  'virtio-blk': 'virtio block disk',
  'virtio-scsi': 'virtio SCSI disk',
  nvme: 'NVMe disk',
  ahci: 'SATA disk',
  ide: 'IDE disk',
  pvscsi: 'paravirtual SCSI disk',
};

function busOf({ disk, machine }: BootProfile, firmware: 'bios' | 'uefi'): DiskBus {
  if (typeof disk !== 'string') return disk[firmware];
  return disk === 'ide' && machine[firmware].startsWith('q35') ? 'ahci' : disk;
}

/** Drivers the checks must find in use on this platform's machine. */
export function hardwareOf(
  boot: BootProfile,
  firmware: 'bios' | 'uefi' = 'bios',
): { disk: readonly string[]; nic: readonly string[] } {
  return { disk: DISK_DRIVERS[busOf(boot, firmware)], nic: NIC_DRIVERS[boot.nic] };
}

/** Claims about a platform from its checks and the listing of modules. */
export function claimsOf(
  { title, boot, needs }: Platform,
  firmware: 'bios' | 'uefi' = 'bios',
  checks: readonly Check[],
  listings: readonly ModuleListing[] = [],
): Claim[] {
  const check = (name: string) => checks.find((c) => c.name === name);
  const booted = (name: string, of: Check | undefined): Claim[] =>
    of === undefined ? [] : [{ name, proof: of.ok ? 'booted' : 'missing', detail: of.detail }];
  const storage = new Set(needs.storageModules.map((m) => m.replaceAll('-', '_')));
  return [
    ...booted(`${DISK_TITLES[busOf(boot, firmware)]}, ${firmware.toUpperCase()}`, check('disk')),
    ...booted(`network card ${boot.nic}`, check('network card')),
    ...booted(`metadata as ${title} gives it (${boot.datasource})`, check('cloud-init')),
    ...boot.listedOnly.map(({ module, device }) => listed(module, device, storage.has(module), listings)),
    {
      name: `${title} itself`,
      proof: 'unproven',
      detail: 'the real hypervisor and its services; QEMU and a server of our own stood in for them',
    },
  ];
}

/**
 * A driver counts where it must be: early for the root disk, anywhere for the rest. The default kernel decides; what other
 * entries of the boot menu lack is told.
 */
function listed(module: string, device: string, isEarly: boolean, listings: readonly ModuleListing[]): Claim {
  const found = listings.filter((l) => l.module === module.replaceAll('-', '_'));
  if (found.length === 0) {
    return {
      name: device,
      proof: 'unproven',
      detail: `${module}: nobody has listed the modules of this image`,
    };
  }
  const wrong = found.filter(
    ({ where, lackingDependencies }) =>
      where === 'missing' || (isEarly && where === 'image') || lackingDependencies.length > 0,
  );
  const tell = ({ kernel, where, lackingDependencies }: ModuleListing) =>
    `${kernel}: ${where}${lackingDependencies.length === 0 ? '' : ` without ${lackingDependencies.join(', ')}`}`;
  return {
    name: device,
    proof: wrong.some((l) => l.isDefault) ? 'missing' : 'listed',
    detail: `${module}: ${found.map(tell).join('; ')}`,
  };
}
