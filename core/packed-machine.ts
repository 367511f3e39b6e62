/** What a package says about the machine it came from: facts for the report and for the hardware to offer. */
import { z } from 'zod';

/** Kinds of disk controllers. */
export const BUSES = ['ide', 'scsi', 'sata', 'nvme', 'virtio', 'unknown'] as const;
/** A kind of disk controller. */
export type Bus = (typeof BUSES)[number];

/** A network card. */
export const PackedNic = z.object({
  mac: z.string().optional().describe('lower case with colons, when the package fixes it'),
  model: z.string().optional().describe('as written: E1000, VmxNet3, virtio; untrusted text'),
  network: z.string().optional().describe('name of the network it was attached to; untrusted text'),
});

/** A disk controller. */
export const PackedController = z.object({
  bus: z.enum(BUSES),
  number: z.number().int().describe('number of the controller among those of its bus'),
  model: z.string().optional().describe('as written: lsilogic, VirtualSCSI, AHCI; untrusted text'),
});

/** The virtual hardware of a packed machine. */
export const PackedMachine = z.object({
  name: z.string().optional().describe('name of the machine; untrusted text'),
  firmware: z.enum(['bios', 'uefi']),
  guestOsId: z.string().optional().describe('the hypervisor’s own word for the system; untrusted text'),
  cpus: z.number().int().positive().optional().describe('virtual processors'),
  memoryBytes: z.number().int().positive().optional().describe('memory in bytes'),
  nics: z.array(PackedNic),
  controllers: z.array(PackedController),
});

/** The virtual hardware of a packed machine. */
export type PackedMachine = z.infer<typeof PackedMachine>;
