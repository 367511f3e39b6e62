/** A kind of place an image runs, as data. `drivers/<platform>/` fills these rows. */

/** How an image is written for a platform. */
export interface ImageFormat {
  /** qemu-img output format (`vpc` is VHD). */
  format: 'qcow2' | 'raw' | 'vpc' | 'vhdx' | 'vmdk';
  extension: string;
  /** `-o` options of qemu-img this platform demands, such as `subformat`. */
  formatOptions?: Readonly<Record<string, string>>;
  /**
   * Compression of a qcow2: `asked` is what the request says (zstd by default), `zlib` what readers of any age know.
   * Meaningless for other formats.
   */
  compression?: 'asked' | 'zlib';
  /** What the disk file travels in: nothing, GCE's `disk.raw` tarball, or an OVA with its OVF descriptor. */
  container?: 'gce-tar' | 'ova';
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
  /** Modules for less usual disks of the platform: in the initramfs wherever the kernel has them. */
  storageExtras?: readonly string[];
  /** Kernel modules that must exist in /lib/modules (or built in) for the network. */
  networkModules: readonly string[];
  /** Modules that are welcome where the kernel has them. */
  optionalModules: readonly string[];
  /** Kernel arguments; for `console=` the last one owns /dev/console. */
  kernelArguments: readonly string[];
  /** Package roles to install, mapped to names by the distribution family. */
  agents: readonly AgentRole[];
  /** Roles that only a template gets: they change who may log in, which a moved server decides itself. */
  templateAgents?: readonly AgentRole[];
  /** cloud-init datasources in order. */
  datasources: readonly string[];
  /** Settings of a datasource, as cloud-init's `datasource:` has them; each value one line of YAML. */
  datasourceSettings?: Readonly<Record<string, Readonly<Record<string, string>>>>;
  /** Clocks chrony is given on this platform. */
  clocks?: readonly Clock[];
}

/** A clock of a platform. It is only used where the guest finds itself on that platform. */
export type Clock =
  | { kind: 'phc'; device: string; options: string }
  | { kind: 'server'; address: string; options: string };

/**
 * Roles of packages a platform asks for. Those a conversion cannot do without are in every row; the others are agents of one
 * platform, which a distribution may lack.
 */
export type AgentRole =
  | 'cloud-init'
  | 'growpart'
  | 'fetch'
  | 'qemu-guest-agent'
  | 'amazon-ec2-utils'
  | 'azure-agent'
  | 'hyperv-daemons'
  | 'google-guest-agent'
  | 'google-oslogin'
  | 'open-vm-tools'
  | 'xe-guest-utilities';

/** Kinds of metadata service or disk an instance reads; `tools/metadata` can show each. */
export type MetadataKind = 'config-drive' | 'nocloud' | 'ec2' | 'azure' | 'gce' | 'ovf' | 'oracle' | 'aliyun';

/** SMBIOS strings by structure, with the names of QEMU's `-smbios`. */
export interface Smbios {
  /** Type 0. */
  bios?: Readonly<Record<string, string>>;
  /** Type 1. */
  system?: Readonly<Record<string, string>>;
  /** Type 2. */
  board?: Readonly<Record<string, string>>;
  /** Type 3. */
  chassis?: Readonly<Record<string, string>>;
}

/** QEMU hardware that stands in for the platform in the verification boot. */
export interface BootProfile {
  machine: { bios: string; uefi: string };
  /** Bus of the boot disk; by firmware where the platform has another one for a machine that starts by UEFI. */
  disk: DiskBus | { bios: DiskBus; uefi: DiskBus };
  nic: 'virtio-net-pci' | 'e1000' | 'vmxnet3';
  /** What cloud-init's ds-identify and agents look at. */
  smbios: Smbios;
  /** How the instance gets its metadata. */
  metadata: MetadataKind;
  /** `ID` cloud-init reports, in lower case: `configdrive`, `ec2`. */
  datasource: string;
  /**
   * Modules of the platform's own devices that QEMU has not, with the device they drive: proven by listing, never by a boot.
   */
  listedOnly: readonly { module: string; device: string }[];
}

/** Disk buses QEMU can show. */
export type DiskBus = 'virtio-blk' | 'virtio-scsi' | 'nvme' | 'ahci' | 'ide' | 'pvscsi';

/** A platform. */
export interface Platform {
  name: string;
  title: string;
  image: ImageFormat;
  needs: GuestNeeds;
  boot: BootProfile;
}
