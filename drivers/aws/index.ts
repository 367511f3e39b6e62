/** Amazon EC2: raw blocks written into an EBS snapshot, Nitro and Xen hardware, IMDSv2. */
import type { Platform } from '../../core/platform.ts';
import { GIB, TIB } from '../../core/sizes.ts';

/** The AWS row. */
export const aws: Platform = {
  name: 'aws',
  title: 'Amazon EC2',
  image: {
    format: 'raw',
    extension: 'raw',
    // Snapshots and volumes are whole GiB (EBS direct APIs, StartSnapshot VolumeSize).
    alignBytes: GIB,
    maxBytes: 64 * TIB,
    source: 'docs.aws.amazon.com/ebs/latest/APIReference/API_StartSnapshot.html: VolumeSize 1 to 65536 GiB',
  },
  needs: {
    // Nitro shows EBS as NVMe; older types are Xen (docs.aws.amazon.com/ebs, "Amazon EBS and NVMe").
    storageModules: ['nvme', 'nvme_core', 'xen_blkfront'],
    networkModules: ['ena', 'xen_netfront'],
    optionalModules: ['ixgbevf', 'virtio_rng'],
    // The longest timeout: EBS answers late rather than never (docs.aws.amazon.com/ebs, "NVMe I/O operation timeout").
    kernelArguments: [
      'console=tty0',
      'console=ttyS0,115200n8',
      'net.ifnames=0',
      'nvme_core.io_timeout=4294967295',
    ],
    agents: ['cloud-init', 'growpart', 'fetch', 'amazon-ec2-utils'],
    datasources: ['Ec2', 'None'],
    clocks: [{ kind: 'server', address: '169.254.169.123', options: 'prefer iburst minpoll 4 maxpoll 4' }],
  },
  boot: {
    machine: { bios: 'pc', uefi: 'q35' },
    disk: 'nvme',
    // ENA is not in QEMU: it is listed.
    nic: 'e1000',
    smbios: {
      bios: { vendor: 'Amazon EC2', version: '1.0' },
      // cloud-init tools/ds-identify: product_uuid begins with ec2, and equals the serial.
      system: {
        manufacturer: 'Amazon EC2',
        product: 'm5.large',
        uuid: 'ec2f0b5e-6d2f-4c8a-9d5b-3c1f2a7e9b04',
        serial: 'ec2f0b5e-6d2f-4c8a-9d5b-3c1f2a7e9b04',
      },
      chassis: { manufacturer: 'Amazon EC2', asset: 'Amazon EC2' },
    },
    metadata: 'ec2',
    datasource: 'ec2',
    listedOnly: [
      { module: 'ena', device: 'Elastic Network Adapter' },
      { module: 'xen_blkfront', device: 'Xen disk of older instance types' },
      { module: 'xen_netfront', device: 'Xen network card of older instance types' },
    ],
  },
};
