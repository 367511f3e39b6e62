/** Plain QEMU or libvirt: qcow2 file, virtio hardware, metadata by a NoCloud seed. */
import type { Platform } from '../../core/platform.ts';

/** The QEMU/libvirt row. */
export const qemu: Platform = {
  name: 'qemu',
  title: 'QEMU and libvirt',
  image: {
    format: 'qcow2',
    extension: 'qcow2',
    alignBytes: 512,
    source: 'qemu-img(1): qcow2 sizes are whole sectors, no published limit below 2^63',
  },
  needs: {
    // virt-v2v:convert/convert_linux.ml. sd_mod turns virtio_scsi's devices into /dev/sdX.
    storageModules: ['virtio_pci', 'virtio_blk', 'virtio_scsi', 'sd_mod'],
    networkModules: ['virtio_net'],
    // The seed is an ISO or a small FAT disk, read by the running system.
    optionalModules: [
      'isofs',
      'sr_mod',
      'cdrom',
      'ata_piix',
      'ahci',
      'vfat',
      'virtio_balloon',
      'virtio_console',
      'virtio_rng',
      'ptp_kvm',
    ],
    // `virsh console` is ttyS0; the last console= owns /dev/console.
    kernelArguments: ['console=tty0', 'console=ttyS0,115200'],
    agents: ['cloud-init', 'growpart', 'qemu-guest-agent', 'fetch'],
    // cloud-init doc/rtd/reference/datasources: NoCloud is found by the label cidata.
    datasources: ['NoCloud', 'ConfigDrive', 'None'],
    clocks: [{ kind: 'phc', device: '/dev/ptp_kvm', options: 'poll 2 dpoll -2 offset 0 stratum 2' }],
  },
  boot: {
    machine: { bios: 'pc', uefi: 'q35' },
    disk: 'virtio-blk',
    nic: 'virtio-net-pci',
    smbios: { system: { manufacturer: 'QEMU', product: 'Standard PC' } },
    metadata: 'nocloud',
    datasource: 'nocloud',
    listedOnly: [],
  },
};
