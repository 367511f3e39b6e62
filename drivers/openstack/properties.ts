/**
 * Properties of an image in Glance, from what was found and what was proved. Names and legal values:
 * openstack/glance:doc/source/admin/useful-image-properties.rst, openstack/nova:nova/objects/fields.py.
 */
import type { Contract } from '../../core/contract.ts';
import type { Facts } from '../../core/facts.ts';
import type { BootProfile } from '../../core/platform.ts';
import { GIB } from '../../core/sizes.ts';

/** What a property may be; a value outside of its set is left out rather than sent. */
export const LEGAL: Readonly<Record<string, readonly string[]>> = {
  architecture: ['x86_64', 'i686', 'aarch64', 'armv7l', 'ppc64le', 's390x'],
  os_type: ['linux', 'windows'],
  hw_firmware_type: ['bios', 'uefi'],
  hw_machine_type: ['pc', 'q35', 'virt'],
  hw_disk_bus: ['virtio', 'scsi', 'sata', 'ide'],
  hw_scsi_model: ['virtio-scsi'],
  hw_vif_model: ['virtio', 'e1000', 'e1000e', 'vmxnet3'],
  hw_qemu_guest_agent: ['yes'],
  hw_video_model: ['vga', 'virtio'],
  img_config_drive: ['mandatory', 'optional'],
};

/** Kernel architectures by the names of Debian and of RPM. */
const ARCHITECTURE: Readonly<Record<string, string>> = {
  amd64: 'x86_64',
  x86_64: 'x86_64',
  i386: 'i686',
  i486: 'i686',
  i586: 'i686',
  i686: 'i686',
  arm64: 'aarch64',
  aarch64: 'aarch64',
  armhf: 'armv7l',
  armv7l: 'armv7l',
  ppc64el: 'ppc64le',
  ppc64le: 'ppc64le',
  s390x: 's390x',
};

/** `ID` of os-release as the short id of libosinfo, which is what Nova looks up. */
export const DISTRIBUTIONS: Readonly<Record<string, string>> = {
  debian: 'debian',
  ubuntu: 'ubuntu',
  linuxmint: 'ubuntu',
  raspbian: 'debian',
  devuan: 'debian',
  rhel: 'rhel',
  redhat: 'rhel',
  centos: 'centos',
  fedora: 'fedora',
  rocky: 'rocky',
  almalinux: 'almalinux',
  ol: 'ol',
  oraclelinux: 'ol',
  opensuse: 'opensuse',
  'opensuse-leap': 'opensuse',
  'opensuse-tumbleweed': 'opensuse',
  sles: 'sled',
  sled: 'sled',
  arch: 'arch',
  archlinux: 'arch',
  gentoo: 'gentoo',
  alpine: 'alpinelinux',
  freebsd: 'freebsd',
  windows: 'windows',
};

/** Names a driver of the guest gives to a device of the machine; the first that the guest has is used. */
const DISK_BUS: readonly { module: string; bus: string; scsiModel?: string }[] = [
  { module: 'virtio_blk', bus: 'virtio' },
  { module: 'virtio_scsi', bus: 'scsi', scsiModel: 'virtio-scsi' },
  { module: 'ahci', bus: 'sata' },
  { module: 'ata_piix', bus: 'ide' },
];
const VIF_MODEL: readonly { module: string; model: string }[] = [
  { module: 'virtio_net', model: 'virtio' },
  { module: 'e1000', model: 'e1000' },
  { module: 'e1000e', model: 'e1000e' },
  { module: 'vmxnet3', model: 'vmxnet3' },
];

/** A plain version number, as os-release has it: `12`, `24.04`, `9.5`, `15-SP6`, `20240101`. */
const VERSION = /^[0-9][0-9A-Za-z._-]{0,31}$/;

/** Keys of ours; with those of `LEGAL` and a few more, the only ones that are ever set or removed. */
const OWN = 'port_image_';
const FURTHER = [
  'os_distro',
  'os_version',
  'os_secure_boot',
  'img_signature',
  'img_signature_hash_method',
  'img_signature_key_type',
  'img_signature_certificate_uuid',
];

/** Whether port-image manages this property, and may remove it when it no longer holds. */
export function isManaged(key: string): boolean {
  return key.startsWith(OWN) || Object.hasOwn(LEGAL, key) || FURTHER.includes(key);
}

/** Whether a property says something about the image itself that holds in every cloud: what a copy is given too. */
export function isPortable(key: string): boolean {
  return (
    Object.hasOwn(LEGAL, key) ||
    key === 'os_distro' ||
    key === 'os_version' ||
    /^hw_[a-z0-9_]{1,60}$/.test(key)
  );
}

/** Ids of data sets in one property; longer lists are left out (a value of more than 255 characters is refused by some clients). */
const DATA_CHARS = 255;

/** What the properties are made of. */
export interface PropertyInput {
  facts: Pick<Facts, 'os' | 'firmware' | 'packages'>;
  contract: Pick<Contract, 'image' | 'facts' | 'needs' | 'data'>;
  boot: Pick<BootProfile, 'machine'>;
  /** Whether the guest agent's package was installed by the conversion. */
  agentAdded: boolean;
  /** sha256 of contract.json, hex. */
  contractSha256: string;
  virtualBytes: number;
  /** Passed the verification boot; undefined when none was asked for. */
  verified: boolean | undefined;
  jobId: string;
}

/** Properties and the two attributes that say where the image fits. */
export interface ImageProperties {
  properties: Record<string, string>;
  /** GiB. */
  minDisk: number;
  /** MiB. */
  minRam: number;
}

/** States of an upload, in `port_image_state`. */
export const STATE = { inProgress: 'in-progress', complete: 'complete' } as const;

/** Builds them. Pure; nothing the guest wrote gets through but a plain version and words from the tables. */
export function imageProperties(input: PropertyInput): ImageProperties {
  const { facts, contract, boot } = input;
  const found: Record<string, string | undefined> = {
    architecture: lookUp(ARCHITECTURE, facts.os.arch),
    os_type: facts.os.type,
    os_distro: lookUp(DISTRIBUTIONS, facts.os.distro.toLowerCase()),
    os_version: VERSION.test(facts.os.version) ? facts.os.version : undefined,
    hw_firmware_type: facts.firmware,
    // OVMF wants q35. With BIOS the cloud's own default stays: newer hosts no longer have `pc`, and both boot.
    hw_machine_type: facts.firmware === 'uefi' ? boot.machine.uefi : undefined,
    ...devices(contract.facts),
    hw_qemu_guest_agent: hasAgent(input) ? 'yes' : undefined,
    // Every kernel and firmware draws on it without a driver of its own.
    hw_video_model: 'vga',
    img_config_drive:
      contract.needs.configDrive === 'none'
        ? undefined
        : contract.needs.configDrive === 'mandatory'
          ? 'mandatory'
          : 'optional',
  };
  const properties: Record<string, string> = {};
  const data = contract.data.map((set) => set.id).join(',');
  for (const [key, value] of Object.entries(found)) {
    if (value !== undefined && (LEGAL[key]?.includes(value) ?? true)) properties[key] = value;
  }
  return {
    properties: {
      ...properties,
      port_image_id: contract.image.id,
      port_image_version: contract.image.version,
      port_image_source: contract.image.source,
      port_image_contract: input.contractSha256,
      port_image_verified: input.verified === true ? 'yes' : 'no',
      port_image_job: input.jobId,
      ...(data === '' || data.length > DATA_CHARS ? {} : { port_image_data: data }),
    },
    minDisk: Math.max(1, Math.ceil(input.virtualBytes / GIB)),
    minRam: contract.needs.minRamMiB,
  };
}

/**
 * Properties of the image of a further disk: whose it is, and nothing a machine would be started by (Nova reads `hw_*`
 * and `img_*` of the image or volume it boots from alone).
 */
export function diskProperties(whole: ImageProperties, disk: string): ImageProperties {
  const own = Object.entries(whole.properties).filter(([key]) => key.startsWith(OWN));
  return {
    properties: { ...Object.fromEntries(own), port_image_disk: disk },
    minDisk: whole.minDisk,
    minRam: 0,
  };
}

function lookUp(table: Readonly<Record<string, string>>, key: string): string | undefined {
  return Object.hasOwn(table, key) ? table[key] : undefined;
}

function devices(facts: Contract['facts']): Record<string, string | undefined> {
  const disk = DISK_BUS.find((row) => facts.drivers.includes(row.module));
  // The root disk needs its driver in the initramfs; the network does not.
  const network = VIF_MODEL.find(
    (row) => facts.drivers.includes(row.module) || facts.networkDrivers?.includes(row.module),
  );
  return {
    hw_disk_bus: disk?.bus,
    hw_scsi_model: disk?.scsiModel,
    hw_vif_model: network?.model,
  };
}

/** Claimed only for an agent that is there: Nova waits for its answers when it makes a snapshot. */
function hasAgent({ facts, agentAdded }: PropertyInput): boolean {
  // A masked unit is unmasked by the conversion, so the package is enough.
  return agentAdded || facts.packages.some((p) => p.name === 'qemu-guest-agent');
}
