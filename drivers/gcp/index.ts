/** Google Compute Engine: `disk.raw` in a tarball, virtio-scsi or NVMe, its metadata server. */
import type { Platform } from '../../core/platform.ts';
import { GIB } from '../../core/sizes.ts';

/** The GCP row. */
export const gcp: Platform = {
  name: 'gcp',
  title: 'Google Compute Engine',
  image: {
    format: 'raw',
    extension: 'tar.gz',
    container: 'gce-tar',
    alignBytes: GIB,
    source:
      'docs.cloud.google.com/compute/docs/images/building-custom-os: disk.raw, whole GiB, oldgnu tar, gzip',
  },
  needs: {
    storageModules: ['virtio_pci', 'virtio_scsi', 'sd_mod'],
    storageExtras: ['nvme', 'nvme_core'],
    networkModules: ['virtio_net'],
    optionalModules: ['gve', 'idpf', 'virtio_rng', 'virtio_balloon'],
    kernelArguments: ['console=ttyS0,115200', 'net.ifnames=0'],
    agents: ['cloud-init', 'growpart', 'fetch', 'google-guest-agent'],
    // It puts itself into NSS, PAM and sshd.
    templateAgents: ['google-oslogin'],
    datasources: ['GCE', 'None'],
    // By its address: before the network is up for good no name can be resolved.
    datasourceSettings: { GCE: { metadata_url: 'http://169.254.169.254/computeMetadata/v1/' } },
    clocks: [{ kind: 'server', address: 'metadata.google.internal', options: 'prefer iburst' }],
  },
  boot: {
    machine: { bios: 'pc', uefi: 'q35' },
    disk: 'virtio-scsi',
    nic: 'virtio-net-pci',
    smbios: {
      bios: { vendor: 'Google', version: 'Google' },
      // cloud-init tools/ds-identify: the product name; the serial where DMI is all there is.
      system: {
        manufacturer: 'Google',
        product: 'Google Compute Engine',
        serial: 'GoogleCloud-8B2F4C6D1E3A5B7C9D0F2E4A6B8C0D1E',
      },
      board: { manufacturer: 'Google', product: 'Google Compute Engine' },
    },
    metadata: 'gce',
    datasource: 'gce',
    listedOnly: [{ module: 'gve', device: 'gVNIC network card' }],
  },
};
