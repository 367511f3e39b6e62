/** Alibaba Cloud ECS: qcow2 by OSS, virtio hardware. */
import type { Platform } from '../../core/platform.ts';

/** The Alibaba row. */
export const alibaba: Platform = {
  name: 'alibaba',
  title: 'Alibaba Cloud ECS',
  image: {
    format: 'qcow2',
    extension: 'qcow2',
    compression: 'zlib',
    alignBytes: 512,
    source: 'alibabacloud.com/help/en/ecs/user-guide/import-a-custom-image: QCOW2, VHD or RAW',
  },
  needs: {
    storageModules: ['virtio_pci', 'virtio_blk'],
    storageExtras: ['nvme', 'virtio_scsi', 'sd_mod'],
    networkModules: ['virtio_net'],
    optionalModules: ['virtio_balloon', 'virtio_rng'],
    kernelArguments: ['console=tty0', 'console=ttyS0,115200n8'],
    agents: ['cloud-init', 'growpart', 'fetch'],
    datasources: ['AliYun', 'None'],
  },
  boot: {
    machine: { bios: 'pc', uefi: 'q35' },
    disk: 'virtio-blk',
    nic: 'virtio-net-pci',
    smbios: { system: { manufacturer: 'Alibaba Cloud', product: 'Alibaba Cloud ECS' } },
    metadata: 'aliyun',
    datasource: 'aliyun',
    listedOnly: [],
  },
};
