/** Oracle Cloud Infrastructure: qcow2 by object storage, paravirtual launch mode. */
import type { Platform } from '../../core/platform.ts';
import { GIB } from '../../core/sizes.ts';

/** The OCI row. */
export const oci: Platform = {
  name: 'oci',
  title: 'Oracle Cloud Infrastructure',
  image: {
    format: 'qcow2',
    extension: 'qcow2',
    // What its importer is made of is not published: the compression every reader knows.
    compression: 'zlib',
    alignBytes: 512,
    maxBytes: 400 * GIB,
    source:
      'docs.oracle.com/iaas/Content/Compute/Tasks/importingcustomimagelinux.htm: QCOW2 or VMDK, at most 400 GB, one disk',
  },
  needs: {
    storageModules: ['virtio_pci', 'virtio_blk', 'virtio_scsi', 'sd_mod'],
    storageExtras: ['nvme', 'iscsi_tcp'],
    networkModules: ['virtio_net'],
    optionalModules: ['virtio_balloon', 'virtio_rng'],
    kernelArguments: ['console=tty0', 'console=ttyS0,115200n8', 'net.ifnames=0'],
    agents: ['cloud-init', 'growpart', 'fetch'],
    datasources: ['Oracle', 'OpenStack', 'None'],
    clocks: [{ kind: 'server', address: '169.254.169.254', options: 'iburst' }],
  },
  boot: {
    machine: { bios: 'pc', uefi: 'q35' },
    disk: 'virtio-scsi',
    nic: 'virtio-net-pci',
    smbios: {
      system: { manufacturer: 'QEMU', product: 'Standard PC (i440FX + PIIX, 1996)' },
      // cloud-init tools/ds-identify.
      chassis: { manufacturer: 'QEMU', asset: 'OracleCloud.com' },
    },
    metadata: 'oracle',
    datasource: 'oracle',
    listedOnly: [],
  },
};
