/** What a running source machine is, read before it is captured. Every string comes from the machine and is hostile. */
import * as z from 'zod';

/** A name, a label, a model: one line of bounded length. */
const text = z.string().max(1024);

/** Lists are bounded, so that no machine fills a journal. */
const many = <T extends z.ZodType>(item: T) => z.array(item).max(4096);

/** A partition of a disk. */
export const InventoryPartition = z.object({
  name: text.describe('kernel name: sda1'),
  number: z.number(),
  startBytes: z.number(),
  sizeBytes: z.number(),
  type: text.optional().describe('GPT type GUID, lower case, or MBR id such as 0x83'),
  uuid: text.optional().describe('partition UUID'),
  label: text.optional().describe('GPT partition name'),
});
export type InventoryPartition = z.infer<typeof InventoryPartition>;

/** A whole disk as the kernel shows it; never a loop, RAM or mapped device. */
export const InventoryDisk = z.object({
  name: text.describe('kernel name, for /dev/NAME: sda, nvme0n1, cciss!c0d0 (for a slash)'),
  links: many(text).describe('other paths of it, below /dev/disk/by-id and by-path'),
  sizeBytes: z.number(),
  sectorBytes: z.number().describe('logical sector: 512 or 4096'),
  vendor: text.optional(),
  model: text.optional(),
  serial: text.optional(),
  transport: text.optional().describe('ata, scsi, usb, nvme, virtio, … where it can be told'),
  rotational: z.boolean(),
  removable: z.boolean(),
  readOnly: z.boolean(),
  table: text.optional().describe('partition table: gpt, dos; absent when there is none or it is not known'),
  partitions: many(InventoryPartition),
  writtenThrough: many(text).describe(
    'mount points of file systems mounted for writing that lie on it, through partitions, LVM, md, LUKS',
  ),
  usedBy: many(text).describe('what uses it, for people: `/ (ext4)`, `swap dm-1`, `volume group vg0`'),
});
export type InventoryDisk = z.infer<typeof InventoryDisk>;

/** A block device of any kind that holds something: partition, logical volume, array, whole disk. */
export const InventoryDevice = z.object({
  name: text.describe('kernel name: sda1, dm-0, md127'),
  path: text.describe('as people write it: /dev/sda1, /dev/mapper/vg0-root'),
  kind: z.enum(['disk', 'partition', 'lvm', 'crypt', 'multipath', 'mapped', 'raid', 'loop', 'other']),
  sizeBytes: z.number(),
  disks: many(text).describe('names of the disks it lies on'),
  content: text.optional().describe('ext4, xfs, swap, LVM2_member, crypto_LUKS, linux_raid_member, …'),
  uuid: text.optional().describe('of the content'),
  label: text.optional().describe('of the content'),
});
export type InventoryDevice = z.infer<typeof InventoryDevice>;

/** A mounted file system that lies on block devices. */
export const InventoryMount = z.object({
  mountPoint: text,
  device: text.describe('kernel name of the device, or the source as the kernel says it'),
  type: text,
  writable: z.boolean(),
  disks: many(text),
  sizeBytes: z.number().optional(),
  usedBytes: z.number().optional(),
});
export type InventoryMount = z.infer<typeof InventoryMount>;

/** A network interface. */
export const InventoryInterface = z.object({
  name: text,
  mac: text.optional().describe('lower case; absent when it has none'),
  kind: z.enum(['physical', 'loopback', 'bridge', 'bond', 'virtual']),
  driver: text.optional(),
  mtu: z.number().optional(),
  up: z.boolean(),
  addresses: many(text).describe('CIDR'),
});
export type InventoryInterface = z.infer<typeof InventoryInterface>;

/** A port that is listened on. */
export const InventoryPort = z.object({
  protocol: z.enum(['tcp', 'udp']),
  address: text,
  port: z.number(),
  program: text.optional().describe('name of the process, without arguments'),
});
export type InventoryPort = z.infer<typeof InventoryPort>;

/** The whole. Nothing secret is in it: no arguments, no environments, no configuration files but the resolver's. */
export const Inventory = z.object({
  hostname: text,
  os: z
    .object({ id: text, name: text, version: text })
    .describe('os-release; empty strings when it is missing'),
  kernel: text,
  architecture: text.describe('as uname -m says'),
  firmware: z.enum(['uefi', 'bios', 'other']).describe('how it was started'),
  secureBoot: z.boolean().optional().describe('absent when the firmware does not tell'),
  vendor: text.optional().describe('of the hardware or hypervisor (DMI)'),
  product: text.optional(),
  memoryBytes: z.number(),
  cpus: z.number(),
  cpuModel: text.optional(),
  disks: many(InventoryDisk),
  devices: many(InventoryDevice),
  mounts: many(InventoryMount),
  swaps: many(z.object({ path: text, sizeBytes: z.number(), usedBytes: z.number(), disks: many(text) })),
  volumeGroups: many(
    z.object({ name: text, sizeBytes: z.number(), freeBytes: z.number(), physicalVolumes: many(text) }),
  ),
  logicalVolumes: many(
    z.object({
      name: text,
      volumeGroup: text,
      sizeBytes: z.number(),
      type: text.describe('linear, thin, raid1, …'),
    }),
  ),
  raids: many(z.object({ name: text, level: text, state: text, members: many(text) })),
  interfaces: many(InventoryInterface),
  routes: many(z.object({ to: text, via: text.optional(), interface: text.optional() })),
  dns: many(text),
  searchDomains: many(text),
  services: many(text).describe('running units; names of processes where systemd is not in charge'),
  ports: many(InventoryPort),
  agents: many(text).describe(
    'guest agents and cloud tools that are installed: qemu-ga, cloud-init, waagent, …',
  ),
  bootDisk: text.optional().describe('name of the disk that holds /boot (else /), by what is mounted'),
  notes: many(text).describe('what could not be read, or deserves attention'),
});
export type Inventory = z.infer<typeof Inventory>;
