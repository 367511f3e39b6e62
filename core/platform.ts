/** A kind of place an image runs, as data. `drivers/<platform>/` fills these rows. */

/** How an image is written for a platform. */
export interface ImageFormat {
  /** qemu-img output format. */
  format: 'qcow2' | 'raw' | 'vpc' | 'vhdx' | 'vmdk';
  extension: string;
  /** Virtual size must be a multiple of this. */
  alignBytes: number;
  /** Largest virtual size, or undefined when no limit is published. */
  maxBytes?: number;
  /** Where the numbers come from. */
  source: string;
}

/** What a guest needs to live on a platform. Several platforms give the union. */
export interface GuestNeeds {
  /** Kernel modules the initramfs must hold (or the kernel have built in) to find its root disk. */
  storageModules: readonly string[];
  /** Kernel modules that must exist in /lib/modules (or built in) for the network. */
  networkModules: readonly string[];
  /** Modules that are welcome where the kernel has them. */
  optionalModules: readonly string[];
  /** Kernel arguments; for `console=` the last one owns /dev/console. */
  kernelArguments: readonly string[];
  /** Package roles to install, mapped to names by the distribution family. */
  agents: readonly AgentRole[];
  /** cloud-init datasources in order. */
  datasources: readonly string[];
}

/** Roles of packages a platform asks for. */
export type AgentRole = 'cloud-init' | 'growpart' | 'qemu-guest-agent' | 'fetch';

/** QEMU hardware that stands in for the platform in the verification boot. */
export interface BootProfile {
  machine: { bios: string; uefi: string };
  /** Disk bus of the boot disk. */
  disk: 'virtio-blk' | 'virtio-scsi' | 'nvme' | 'ahci' | 'ide';
  nic: 'virtio-net-pci' | 'e1000' | 'vmxnet3';
  /** SMBIOS strings cloud-init's ds-identify looks at. */
  smbios: Readonly<Record<string, string>>;
  /** How the instance gets its metadata. */
  metadata: 'config-drive' | 'nocloud';
}

/** A platform. */
export interface Platform {
  name: string;
  title: string;
  image: ImageFormat;
  needs: GuestNeeds;
  boot: BootProfile;
}
