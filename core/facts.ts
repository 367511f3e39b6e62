/** `facts.json`: what was found on the source. One schema gives the type, the check and the published JSON Schema. */
import * as z from 'zod';
import { Inventory } from './inventory.ts';
import { PackedMachine } from './packed-machine.ts';

/** Where a run of bytes of a block device lies on a disk of the job. */
export const DeviceExtent = z.object({
  startBytes: z.number().describe('offset in the device'),
  lengthBytes: z.number(),
  disk: z.number().describe('index in disks'),
  diskOffsetBytes: z.number().describe('offset on that disk'),
});
export type DeviceExtent = z.infer<typeof DeviceExtent>;

export const Partition = z.object({
  number: z.number(),
  device: z.string().describe('name in the appliance, such as /dev/sda1'),
  startBytes: z.number(),
  sizeBytes: z.number(),
  type: z.string().describe('GPT type GUID, upper case, or MBR id such as 0x83'),
  guid: z.string().optional(),
  bootable: z.boolean(),
});

/** What a disk is for: the system is on it, it becomes data sets, or an image of its own. */
export const DiskUse = z.enum(['system', 'data', 'image']);
export type DiskUse = z.infer<typeof DiskUse>;

export const Disk = z.object({
  id: z.string().default('disk0').describe('what `--disk` names'),
  path: z.string(),
  use: DiskUse.default('system'),
  format: z.string().describe('qemu-img format name'),
  virtualBytes: z.number(),
  table: z.enum(['gpt', 'dos', 'none']),
  partitions: z.array(Partition),
});

export const Filesystem = z.object({
  device: z.string(),
  type: z.string().describe('ext4, xfs, btrfs, vfat, swap, … as blkid says'),
  uuid: z.string(),
  label: z.string(),
  partUuid: z.string().optional(),
  sizeBytes: z.number(),
  disks: z.array(z.number()).optional().describe('indexes in disks of those it lies on'),
  usedBytes: z.number().optional().describe('only for mountable file systems'),
  freeBytes: z.number().optional(),
  freeInodes: z.number().optional(),
  dirty: z.boolean().optional().describe('the journal had to be replayed in the overlay'),
  map: z
    .array(DeviceExtent)
    .optional()
    .describe('absent when the device is not linear on the disks (LUKS, RAID, thin)'),
});
export type Filesystem = z.infer<typeof Filesystem>;

export const Kernel = z.object({
  version: z.string().describe('as in /lib/modules/VERSION'),
  image: z.string(),
  initramfs: z.string().optional(),
  inBootMenu: z.boolean(),
  isDefault: z.boolean(),
  builtin: z.array(z.string()).describe('modules.builtin, names with _'),
  modules: z.array(z.string()).describe('modules.dep, names with _'),
  initramfsModules: z.array(z.string()).describe('modules listed in the initramfs, names with _'),
  initramfsBytes: z.number().optional(),
  initramfsCompression: z.string().optional(),
});
export type Kernel = z.infer<typeof Kernel>;

export const NetworkInterface = z.object({
  name: z.string(),
  mac: z.string().optional().describe('lower case; when a configuration or udev rule names it'),
  method: z.enum(['static', 'dhcp', 'manual', 'loopback', 'unknown']),
  addresses: z.array(z.string()).describe('CIDR, IPv4 or IPv6'),
  gateways: z.array(z.string()),
  routes: z.array(z.object({ to: z.string(), via: z.string() })),
  dns: z.array(z.string()),
  searchDomains: z.array(z.string()),
  mtu: z.number().optional(),
  configuredIn: z.array(z.string()).describe('files it was read from'),
});
export type NetworkInterface = z.infer<typeof NetworkInterface>;

export const NetworkFacts = z.object({
  systems: z.array(
    z.enum(['ifupdown', 'netplan', 'networkd', 'networkmanager', 'ifcfg', 'wicked', 'openrc']),
  ),
  interfaces: z.array(NetworkInterface),
  pins: z
    .array(z.object({ file: z.string(), mac: z.string(), name: z.string() }))
    .describe('names pinned to hardware'),
  dns: z.array(z.string()).describe('from resolv.conf'),
  searchDomains: z.array(z.string()),
});
export type NetworkFacts = z.infer<typeof NetworkFacts>;

export const User = z.object({
  name: z.string(),
  uid: z.number(),
  gid: z.number(),
  home: z.string(),
  shell: z.string(),
  human: z.boolean().describe('uid >= 1000 with a login shell, or root'),
  authorizedKeys: z.number().describe('how many lines authorized_keys has'),
});

export const InstalledPackage = z.object({ name: z.string(), version: z.string(), architecture: z.string() });

export const Service = z.object({
  unit: z.string(),
  enabled: z.boolean(),
  file: z.string().optional(),
  paths: z.array(z.string()).describe('absolute paths its unit file and drop-ins name'),
});
export type Service = z.infer<typeof Service>;

export const Candidate = z.object({
  path: z.string(),
  bytes: z.number().describe('allocated'),
  files: z.number(),
  rule: z.string().describe('name of the rule that proposes it'),
  reason: z.string(),
  neededBy: z.array(z.string()).describe('units that need the path; else multi-user.target'),
});
export type Candidate = z.infer<typeof Candidate>;

export const MountPoint = z.object({
  path: z.string(),
  device: z.string(),
  options: z.string().optional(),
  atBoot: z.boolean().optional().describe('false when fstab mounts it only on demand'),
});

/** What unreadable bytes of a disk hit. */
export const BadRange = z.object({
  disk: z.number().describe('index in disks'),
  startBytes: z.number().describe('offset on that disk'),
  lengthBytes: z.number(),
  device: z.string().optional().describe('file system or swap they lie in; absent outside of all'),
  hit: z.enum(['files', 'metadata', 'free', 'swap', 'unknown']),
  files: z.array(z.string()).describe('guest paths, printable; the first few'),
  moreFiles: z.number().default(0).describe('how many more files'),
});
export type BadRange = z.infer<typeof BadRange>;

export const Facts = z.object({
  schema: z.literal('port-image/facts/1'),
  disks: z.array(Disk),
  bootDisk: z.number().default(0).describe('index of the disk the firmware starts from'),
  badRanges: z.array(BadRange).default([]).describe('what could not be read, and what it hit'),
  firmware: z.enum(['bios', 'uefi']),
  volumeGroups: z.array(
    z.object({
      name: z.string(),
      uuid: z.string(),
      physicalVolumes: z.array(z.string()),
      logicalVolumes: z.array(z.object({ name: z.string(), device: z.string(), sizeBytes: z.number() })),
      disks: z.array(z.number()).optional().describe('indexes in disks of those it lies on'),
    }),
  ),
  filesystems: z.array(Filesystem),
  root: z.string().describe('device of the root file system'),
  mounts: z.array(MountPoint).describe('guest mount points that are on these disks, shortest path first'),
  os: z.object({
    type: z.string(),
    distro: z.string(),
    version: z.string(),
    family: z.string(),
    arch: z.string(),
    productName: z.string(),
    hostname: z.string(),
    machineId: z.string(),
    init: z.enum(['systemd', 'openrc', 'sysv', 'unknown']),
  }),
  kernels: z.array(Kernel),
  bootloader: z.object({
    kind: z.enum(['grub2', 'none']),
    config: z.string().optional().describe('path of grub.cfg'),
    defaults: z.string().optional().describe('path of /etc/default/grub'),
    efiLoaders: z.array(z.string()).describe('paths below the ESP mount point'),
    fallbackLoader: z.boolean(),
    espMount: z.string().optional(),
  }),
  network: NetworkFacts,
  agents: z.array(
    z.object({ platform: z.string(), package: z.string().optional(), path: z.string().optional() }),
  ),
  services: z.array(Service),
  users: z.array(User),
  packages: z.array(InstalledPackage),
  candidates: z.array(Candidate),
  inventory: Inventory.optional().describe('of the running machine the disks were copied from'),
  hardware: PackedMachine.optional().describe('virtual hardware the package told of'),
  pages: z
    .array(z.object({ path: z.string(), file: z.string(), sha256: z.string() }))
    .describe('static pages the local web server answers on port 80, with the sha256 of their files'),
});
/** What was found on the source. */
export type Facts = z.infer<typeof Facts>;
