/** OpenStack with KVM: qcow2 in Glance, virtio hardware, metadata by config drive. */
import type { Platform } from '../../core/platform.ts';
import { GIB } from '../../core/sizes.ts';

/** The OpenStack (KVM) row. */
export const openstack: Platform = {
  name: 'openstack',
  title: 'OpenStack (KVM)',
  image: {
    format: 'qcow2',
    extension: 'qcow2',
    // qcow2 sizes are whole sectors; flavours and volumes are whole GiB, but an image may be smaller than either.
    alignBytes: 512,
    // image_size_cap, default 1 TiB (openstack/glance:glance/common/config.py).
    maxBytes: 1024 * GIB,
    source: 'openstack/oslo.utils:oslo_utils/imageutils/format_inspector.py (qcow2 version 2 or 3)',
  },
  needs: {
    // virt-v2v:convert/convert_linux.ml; virtio_scsi because hw_disk_bus=scsi is common on Ceph-backed clouds.
    // sd_mod belongs to virtio_scsi: without it the disk appears as a SCSI device but not as /dev/sda.
    storageModules: ['virtio_pci', 'virtio_blk', 'virtio_scsi', 'sd_mod'],
    networkModules: ['virtio_net'],
    // The config drive is an ISO on an IDE (pc) or SATA (q35) CD drive. These are needed in the running system, not
    // in the initramfs; the rest are the usual virtio devices and the KVM clock (linux ptp_kvm).
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
    // The last console= owns /dev/console: `openstack console log show` reads ttyS0. no_timer_check spares old
    // kernels a failing timer self-test on busy hosts (openstack/diskimage-builder elements/bootloader).
    kernelArguments: ['console=tty0', 'console=ttyS0,115200', 'no_timer_check'],
    agents: ['cloud-init', 'growpart', 'qemu-guest-agent', 'fetch'],
    // cloud-init doc/rtd/reference/datasources; None last keeps a boot without metadata from waiting for the network.
    datasources: ['ConfigDrive', 'OpenStack', 'None'],
    clocks: [{ kind: 'phc', device: '/dev/ptp_kvm', options: 'poll 2 dpoll -2 offset 0 stratum 2' }],
  },
  boot: {
    // Nova's defaults for x86_64: pc for BIOS, q35 wherever UEFI is asked for.
    machine: { bios: 'pc', uefi: 'q35' },
    disk: 'virtio-blk',
    nic: 'virtio-net-pci',
    // cloud-init tools/ds-identify: DMI product name "OpenStack Nova" or "OpenStack Compute".
    smbios: {
      system: { manufacturer: 'OpenStack Foundation', product: 'OpenStack Nova', family: 'Virtual Machine' },
    },
    metadata: 'config-drive',
    datasource: 'configdrive',
    listedOnly: [],
  },
};
