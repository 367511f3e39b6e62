/** Can this image live there? A contract against what a target offers: pure, so it can be asked of many targets. */
import type { Contract, Provision } from '../../core/contract.ts';
import type { BootProfile, DiskBus, Platform } from '../../core/platform.ts';
import { GIB, MIB } from '../../core/sizes.ts';
import { unknownCritical } from './check.ts';
import { provisionNeeds } from './provision.ts';

/** What a target offers. Made from a platform's row; a cloud's own facts may narrow or widen it. */
export interface MatchTarget {
  name: string;
  /** As `uname -m` says; empty when not known. */
  architectures: readonly string[];
  firmware: readonly ('bios' | 'uefi')[];
  /** Disk hardware an instance may get; one kind the image has drivers for is enough. */
  disks: readonly Hardware[];
  /** Network hardware, in the same way. */
  nics: readonly Hardware[];
  /** Datasources of cloud-init that find this target's metadata; one is enough. */
  datasources: readonly string[];
  /** True when metadata can come on a disk of its own (config drive, NoCloud seed). */
  metadataDisk: boolean;
  /** Largest virtual size of an image, in bytes; absent when there is no limit. */
  maxImageBytes?: number;
  /** Disk and memory of the chosen flavour, in bytes. */
  flavorDiskBytes?: number;
  flavorRamBytes?: number;
}

/** Hardware by what it is called, and the kernel modules that drive it, names with `_`. */
export interface Hardware {
  name: string;
  modules: readonly string[];
}

/** Kinds of needs a target may leave unmet. */
export const NEED_KINDS = [
  'critical',
  'architecture',
  'firmware',
  'storage-driver',
  'network-driver',
  'datasource',
  'config-drive',
  'image-size',
  'flavor-disk',
  'flavor-ram',
  'credential',
  'expired',
] as const;
export type NeedKind = (typeof NEED_KINDS)[number];

/** One need that is not met. */
export interface UnmetNeed {
  need: NeedKind;
  /** What is asked for and what is there, one line. */
  detail: string;
  /** What can be done, one line. */
  hint: string;
}

/** The answer. */
export interface Match {
  target: string;
  /** True when no need is unmet. */
  matches: boolean;
  unmet: UnmetNeed[];
  /** What stops nothing but is worth knowing. */
  notes: string[];
}

/** Kernel modules each kind of disk needs before the root file system is mounted. */
const DISK_MODULES: Readonly<Record<DiskBus, readonly string[]>> = {
  'virtio-blk': ['virtio_pci', 'virtio_blk'],
  'virtio-scsi': ['virtio_pci', 'virtio_scsi', 'sd_mod'],
  pvscsi: ['vmw_pvscsi', 'sd_mod'],
  nvme: ['nvme'],
  ahci: ['ahci', 'sd_mod'],
  ide: ['ata_piix', 'sd_mod'],
};
/** Kernel modules each kind of network card needs; the bus of virtio is a disk matter and in the kernel by then. */
const NIC_MODULES: Readonly<Record<BootProfile['nic'], readonly string[]>> = {
  'virtio-net-pci': ['virtio_net'],
  e1000: ['e1000'],
  vmxnet3: ['vmxnet3'],
};
/** Machines of QEMU and the processors they are for. */
const MACHINE_ARCHITECTURES: Readonly<Record<string, string>> = {
  pc: 'x86_64',
  q35: 'x86_64',
  virt: 'aarch64',
};
const METADATA: Readonly<Record<BootProfile['metadata'], readonly string[]>> = {
  'config-drive': ['ConfigDrive'],
  nocloud: ['NoCloud'],
  ec2: ['Ec2'],
  azure: ['Azure'],
  gce: ['GCE'],
  ovf: ['VMware', 'OVF'],
  oracle: ['Oracle'],
  aliyun: ['AliYun'],
};

/** A bus by its name. */
export function diskHardware(bus: DiskBus): Hardware {
  return { name: bus, modules: DISK_MODULES[bus] };
}

/**
 * The hardware of the verification boot where the platform itself has it. Where it only stands in (EC2 and Azure have
 * no e1000), the drivers the platform asks for.
 */
function disksOf({ boot, needs }: Platform): Hardware[] {
  const buses = typeof boot.disk === 'string' ? [boot.disk] : [...new Set(Object.values(boot.disk))];
  const real = buses
    .map(diskHardware)
    .filter(({ modules }) => modules.every((m) => needs.storageModules.includes(m)));
  return real.length > 0 ? real : [{ name: 'its disk', modules: needs.storageModules }];
}

function nicsOf({ boot, needs }: Platform): Hardware[] {
  const modules = NIC_MODULES[boot.nic];
  if (modules.every((m) => needs.networkModules.includes(m))) return [{ name: boot.nic, modules }];
  // The first is the usual card; the others are of older or rarer types of instance.
  return needs.networkModules.slice(0, 1).map((module) => ({ name: module, modules: [module] }));
}

/** What a platform offers, by its row alone. */
export function targetOf(platform: Platform): MatchTarget {
  const { boot, image } = platform;
  const machines = Object.values(boot.machine);
  const known = machines.map((m) => MACHINE_ARCHITECTURES[m]).filter((a) => a !== undefined);
  return {
    name: platform.name,
    architectures: known.length === machines.length ? [...new Set(known)] : [],
    firmware: ['bios', 'uefi'],
    disks: disksOf(platform),
    nics: nicsOf(platform),
    datasources: METADATA[boot.metadata],
    metadataDisk: true,
    ...(image.maxBytes === undefined ? {} : { maxImageBytes: image.maxBytes }),
  };
}

/** Names what of the contract a target does not meet. Pure; `nowMs` is only looked at with a provision document. */
export function matchContract(
  contract: Contract,
  target: MatchTarget,
  given: { provision?: Provision; nowMs?: number } = {},
): Match {
  const unmet = [
    ...criticalNeeds(contract),
    ...machineNeeds(contract, target),
    ...driverNeeds(contract, target),
    ...metadataNeeds(contract, target),
    ...sizeNeeds(contract, target),
  ];
  const notes: string[] = [];
  if (given.provision !== undefined) {
    const answer = provisionNeeds(contract, given.provision, given.nowMs ?? Date.now());
    unmet.push(...answer.unmet);
    notes.push(...answer.notes);
  } else if (contract.credentials.some((c) => c.required)) {
    notes.push('its data needs a provision document; check one with --provision FILE');
  }
  return { target: target.name, matches: unmet.length === 0, unmet, notes };
}

function criticalNeeds(contract: Contract): UnmetNeed[] {
  return unknownCritical(contract).map((field) => ({
    need: 'critical',
    detail: `the contract says ${field} must be understood, and this program does not`,
    hint: 'use a newer port-image',
  }));
}

function machineNeeds({ facts }: Contract, target: MatchTarget): UnmetNeed[] {
  const unmet: UnmetNeed[] = [];
  if (target.architectures.length > 0 && !target.architectures.includes(facts.arch)) {
    unmet.push({
      need: 'architecture',
      detail: `the image is for ${facts.arch}, ${target.name} runs ${target.architectures.join(', ')}`,
      hint: 'choose a target with machines of this architecture',
    });
  }
  if (!facts.firmware.some((f) => target.firmware.includes(f))) {
    unmet.push({
      need: 'firmware',
      detail: `the image starts by ${facts.firmware.join(' or ') || 'nothing'}, ${target.name} by ${target.firmware.join(' or ')}`,
      hint: 'choose a machine type with this firmware',
    });
  }
  return unmet;
}

const fold = (names: readonly string[]): Set<string> => new Set(names.map((n) => n.replaceAll('-', '_')));

/** For each kind of hardware what the image lacks; undefined when one kind lacks nothing. */
function lacking(kinds: readonly Hardware[], has: ReadonlySet<string>): string | undefined {
  const gaps = kinds.map(({ name, modules }) => ({ name, missing: modules.filter((m) => !has.has(m)) }));
  if (gaps.some((g) => g.missing.length === 0)) return undefined;
  return gaps.map((g) => `${g.name} needs ${g.missing.join(', ')}`).join('; ') || 'no hardware is known';
}

function driverNeeds({ facts }: Contract, target: MatchTarget): UnmetNeed[] {
  const unmet: UnmetNeed[] = [];
  const hint = `convert the server with --to ${target.name}`;
  const early = fold(facts.drivers);
  const disk = lacking(target.disks, early);
  if (disk !== undefined)
    unmet.push({ need: 'storage-driver', detail: `not in every initramfs of the image: ${disk}`, hint });
  const nic = lacking(target.nics, fold([...facts.drivers, ...(facts.networkDrivers ?? [])]));
  if (nic !== undefined)
    unmet.push({ need: 'network-driver', detail: `not in every kernel of the image: ${nic}`, hint });
  return unmet;
}

function metadataNeeds({ facts, needs }: Contract, target: MatchTarget): UnmetNeed[] {
  const unmet: UnmetNeed[] = [];
  if (!target.datasources.some((d) => facts.datasources.includes(d))) {
    unmet.push({
      need: 'datasource',
      detail: `${target.name} answers as ${target.datasources.join(', ') || 'nothing'}, the image asks ${facts.datasources.join(', ') || 'nothing'}`,
      hint: `convert the server with --to ${target.name}`,
    });
  }
  if (needs.configDrive === 'mandatory' && !target.metadataDisk) {
    unmet.push({
      need: 'config-drive',
      detail: `the image gets its provision document from a metadata disk, ${target.name} has none`,
      hint: 'choose a target with config drives, or strip no data',
    });
  }
  return unmet;
}

/** Whole units, rounded down: `1025 GiB` beside `1024 GiB` says more than `1.0 TiB` beside `1.0 TiB`. */
const gib = (bytes: number): string => `${Math.floor(bytes / GIB)} GiB`;
const mib = (bytes: number): string => `${Math.floor(bytes / MIB)} MiB`;

function sizeNeeds({ needs }: Contract, target: MatchTarget): UnmetNeed[] {
  const unmet: UnmetNeed[] = [];
  const diskBytes = needs.minDiskGiB * GIB;
  const ramBytes = needs.minRamMiB * MIB;
  const { maxImageBytes, flavorDiskBytes, flavorRamBytes } = target;
  if (maxImageBytes !== undefined && diskBytes > maxImageBytes) {
    unmet.push({
      need: 'image-size',
      detail: `the image needs a disk of ${gib(diskBytes)}, ${target.name} takes ${gib(maxImageBytes)} at most`,
      hint: 'make the source disk smaller, or raise the limit of the target',
    });
  }
  if (flavorDiskBytes !== undefined && diskBytes > flavorDiskBytes) {
    unmet.push({
      need: 'flavor-disk',
      detail: `the image needs a disk of ${gib(diskBytes)}, the flavour has ${gib(flavorDiskBytes)}`,
      hint: 'choose a larger flavour, or boot from a volume',
    });
  }
  if (flavorRamBytes !== undefined && ramBytes > flavorRamBytes) {
    unmet.push({
      need: 'flavor-ram',
      detail: `the image needs ${mib(ramBytes)} of memory, the flavour has ${mib(flavorRamBytes)}`,
      hint: 'choose a larger flavour',
    });
  }
  return unmet;
}
