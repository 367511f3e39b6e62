/** Microsoft Azure: fixed VHD, Hyper-V devices, provisioning by cloud-init or the Azure agent. */
import type { Platform } from '../../core/platform.ts';
import { GIB, MIB } from '../../core/sizes.ts';

/** The Azure row. */
export const azure: Platform = {
  name: 'azure',
  title: 'Microsoft Azure',
  image: {
    format: 'vpc',
    extension: 'vhd',
    // force_size: the size as it is, not rounded to CHS geometry (MicrosoftDocs/azure-compute-docs create-upload-generic).
    formatOptions: { subformat: 'fixed', force_size: 'on' },
    alignBytes: MIB,
    maxBytes: 1023 * GIB,
    source: 'MicrosoftDocs/azure-compute-docs:articles/virtual-machines/linux/create-upload-generic.md',
  },
  needs: {
    storageModules: ['hv_vmbus', 'hv_storvsc', 'sd_mod'],
    // NVMe sizes, and the IDE disk of generation 1.
    storageExtras: ['nvme', 'pci_hyperv', 'ata_piix'],
    networkModules: ['hv_netvsc'],
    optionalModules: [
      'hv_utils',
      'hv_balloon',
      'hyperv_keyboard',
      'mlx4_core',
      'mlx5_core',
      'mana',
      'udf',
      'vfat',
    ],
    // Not Azure's rootdelay=300: initramfs-tools sleeps all of it, disk or not (its init, ROOTDELAY).
    kernelArguments: [
      'console=tty1',
      'console=ttyS0,115200n8',
      'earlyprintk=ttyS0,115200',
      'net.ifnames=0',
      'nvme_core.io_timeout=240',
    ],
    agents: ['cloud-init', 'growpart', 'fetch', 'azure-agent', 'hyperv-daemons'],
    datasources: ['Azure'],
    clocks: [{ kind: 'phc', device: '/dev/ptp_hyperv', options: 'poll 3 dpoll -2 offset 0 stratum 2' }],
  },
  boot: {
    machine: { bios: 'pc', uefi: 'q35' },
    // As sizes with NVMe have it. Not generation 1's IDE: where DMI says Hyper-V, ata_piix leaves disks to hv_storvsc
    // (linux drivers/ata/ata_piix.c, piix_ignore_devices_quirk), and QEMU has no bus for that.
    disk: 'nvme',
    nic: 'e1000',
    smbios: {
      bios: { vendor: 'American Megatrends Inc.', version: '090008' },
      system: {
        manufacturer: 'Microsoft Corporation',
        product: 'Virtual Machine',
        version: '7.0',
        uuid: '6d2f0b5e-4c8a-4d5b-9c1f-3c1f2a7e9b04',
      },
      // cloud-init tools/ds-identify: this asset tag is how Azure says that it is Azure.
      chassis: { manufacturer: 'Microsoft Corporation', asset: '7783-7084-3265-9085-8269-3286-77' },
    },
    metadata: 'azure',
    datasource: 'azure',
    listedOnly: [
      { module: 'hv_vmbus', device: 'Hyper-V bus' },
      { module: 'hv_storvsc', device: 'Hyper-V SCSI controller' },
      { module: 'hv_netvsc', device: 'Hyper-V network card' },
    ],
  },
};
