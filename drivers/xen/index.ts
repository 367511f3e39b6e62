/** XCP-ng and XenServer: dynamic VHD, Xen block and network front ends. */
import type { Platform } from '../../core/platform.ts';
import { MIB } from '../../core/sizes.ts';

/** The Xen row. */
export const xen: Platform = {
  name: 'xen',
  title: 'XCP-ng and XenServer',
  image: {
    format: 'vpc',
    extension: 'vhd',
    formatOptions: { subformat: 'dynamic', force_size: 'on' },
    alignBytes: 2 * MIB,
    // 2 TiB is the format's limit; the block allocation table and footer need a little of it (qemu block/vpc.c).
    maxBytes: 2040 * 1024 * MIB,
    source:
      'xcp-ng/xcp-ng-org:docs/storage/qcow2_faq.md: VHD at most 2 TiB; whole 2 MiB blocks of the VHD specification',
  },
  needs: {
    storageModules: ['xen_blkfront'],
    storageExtras: ['ata_piix', 'sd_mod'],
    networkModules: ['xen_netfront'],
    optionalModules: ['isofs', 'sr_mod', 'cdrom', 'vfat'],
    kernelArguments: ['console=tty0', 'console=hvc0'],
    agents: ['cloud-init', 'growpart', 'fetch', 'xe-guest-utilities'],
    datasources: ['NoCloud', 'ConfigDrive', 'None'],
  },
  boot: {
    // A Xen HVM guest starts from emulated IDE or SATA until its front ends take over.
    machine: { bios: 'pc', uefi: 'q35' },
    disk: { bios: 'ide', uefi: 'ahci' },
    nic: 'e1000',
    smbios: {
      bios: { vendor: 'Xen', version: '4.17' },
      system: { manufacturer: 'Xen', product: 'HVM domU' },
    },
    metadata: 'nocloud',
    datasource: 'nocloud',
    listedOnly: [
      { module: 'xen_blkfront', device: 'Xen block device' },
      { module: 'xen_netfront', device: 'Xen network device' },
    ],
  },
};
