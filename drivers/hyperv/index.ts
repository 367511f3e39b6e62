/** Hyper-V on Windows Server: VHDX, generation 1 and 2 machines. */
import type { Platform } from '../../core/platform.ts';
import { MIB, TIB } from '../../core/sizes.ts';

/** The Hyper-V row. */
export const hyperv: Platform = {
  name: 'hyperv',
  title: 'Microsoft Hyper-V',
  image: {
    format: 'vhdx',
    extension: 'vhdx',
    // 1 MiB blocks keep a file with ext4 small (windowsserverdocs, "Best Practices for running Linux on Hyper-V").
    formatOptions: { subformat: 'dynamic', block_size: String(MIB) },
    alignBytes: MIB,
    maxBytes: 64 * TIB,
    source:
      'MS-VHDX 2.6.2.4: VirtualDiskSize at most 64 TB; MicrosoftDocs/windowsserverdocs for the block size',
  },
  needs: {
    storageModules: ['hv_vmbus', 'hv_storvsc', 'sd_mod'],
    // virtio for the verification boot.
    storageExtras: ['ata_piix', 'virtio_pci', 'virtio_scsi'],
    networkModules: ['hv_netvsc'],
    optionalModules: ['hv_utils', 'hv_balloon', 'hyperv_keyboard', 'isofs', 'sr_mod', 'cdrom', 'vfat'],
    // As for Azure: how long an initramfs waits for the disk of a busy host.
    // Not rootdelay=300: initramfs-tools sleeps all of it, disk or not (its init, ROOTDELAY).
    kernelArguments: ['console=tty0', 'console=ttyS0,115200'],
    agents: ['cloud-init', 'growpart', 'fetch', 'hyperv-daemons'],
    datasources: ['NoCloud', 'ConfigDrive', 'None'],
    clocks: [{ kind: 'phc', device: '/dev/ptp_hyperv', options: 'poll 3 dpoll -2 offset 0 stratum 2' }],
  },
  boot: {
    machine: { bios: 'pc', uefi: 'q35' },
    // A SCSI disk, though not on Hyper-V's bus. Not generation 1's IDE: where DMI says Hyper-V, ata_piix leaves disks to
    // hv_storvsc (linux drivers/ata/ata_piix.c, piix_ignore_devices_quirk).
    disk: 'virtio-scsi',
    nic: 'e1000',
    smbios: {
      bios: { vendor: 'American Megatrends Inc.', version: '090008' },
      system: { manufacturer: 'Microsoft Corporation', product: 'Virtual Machine', version: '7.0' },
    },
    metadata: 'nocloud',
    datasource: 'nocloud',
    listedOnly: [
      { module: 'hv_vmbus', device: 'Hyper-V bus' },
      { module: 'hv_storvsc', device: 'Hyper-V SCSI controller' },
      { module: 'hv_netvsc', device: 'Hyper-V network card' },
    ],
  },
};
