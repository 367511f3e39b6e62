/** VMware vSphere and ESXi: OVA with a stream-optimised VMDK, paravirtual SCSI, vmxnet3. */
import type { Platform } from '../../core/platform.ts';
import { MIB, TIB } from '../../core/sizes.ts';

/** The VMware row. */
export const vmware: Platform = {
  name: 'vmware',
  title: 'VMware vSphere',
  image: {
    format: 'vmdk',
    extension: 'ova',
    // hwversion: as in the descriptor (tools/ova); lsilogic is the adapter type of disks on a paravirtual controller too.
    formatOptions: { subformat: 'streamOptimized', adapter_type: 'lsilogic', hwversion: '13' },
    container: 'ova',
    alignBytes: MIB,
    maxBytes: 62 * TIB,
    source: 'DMTF DSP0243 1.1 (OVF), VMware Virtual Disk Format 5.0; 62 TB: vSphere configuration maximums',
  },
  needs: {
    storageModules: ['vmw_pvscsi', 'sd_mod'],
    // What an administrator may choose instead of the paravirtual controller.
    storageExtras: ['mptspi', 'mptsas', 'ahci', 'nvme'],
    networkModules: ['vmxnet3'],
    optionalModules: ['e1000', 'e1000e', 'vmw_balloon', 'vmwgfx', 'vmw_vsock_vmci_transport'],
    kernelArguments: [],
    agents: ['cloud-init', 'growpart', 'fetch', 'open-vm-tools'],
    datasources: ['VMware', 'OVF', 'None'],
  },
  boot: {
    machine: { bios: 'pc', uefi: 'q35' },
    disk: 'pvscsi',
    nic: 'vmxnet3',
    smbios: {
      bios: { vendor: 'Phoenix Technologies LTD', version: '6.00' },
      system: {
        manufacturer: 'VMware, Inc.',
        product: 'VMware Virtual Platform',
        serial: 'VMware-56 4d 1f 2e 3c 4b 5a 69-78 87 96 a5 b4 c3 d2 e1',
      },
      board: { manufacturer: 'Intel Corporation', product: '440BX Desktop Reference Platform' },
    },
    metadata: 'ovf',
    datasource: 'ovf',
    listedOnly: [],
  },
};
