/** What an image is, from what lies beside it: a description of the operator's, or the contract of a conversion. */
import * as z from 'zod';
import type { Contract } from '../../../core/contract.ts';
import { DATA_SET_ID } from '../../../core/data-set.ts';
import { PortError } from '../../../core/errors.ts';
import type { Facts } from '../../../core/facts.ts';
import { GIB } from '../../../core/sizes.ts';
import { SYNC_WORD, type SyncImage } from '../../../core/sync/types.ts';
import { printable } from '../../../core/text.ts';
import { openstack } from '../../../drivers/openstack/index.ts';
import { imageProperties, LEGAL } from '../../../drivers/openstack/properties.ts';

const Word = z.string().regex(SYNC_WORD, 'letters, digits, dot, dash, plus and underscore, at most 128');

/** `NAME.json` beside an image: what its name alone does not tell. docs/sync-sources.md explains it. */
export const ImageDescription = z.strictObject({
  series: Word,
  version: Word,
  arch: z
    .string()
    .regex(/^[a-z0-9_]{1,32}$/)
    .optional()
    .describe('as the kernel names it: x86_64'),
  firmware: z.enum(['bios', 'uefi']).optional(),
  os: z
    .strictObject({
      type: z.enum(['linux', 'windows']).optional(),
      distro: z
        .string()
        .regex(/^[a-z0-9._-]{1,64}$/)
        .optional(),
      version: z
        .string()
        .regex(/^[A-Za-z0-9._-]{1,64}$/)
        .optional(),
    })
    .optional(),
  minRamMib: z
    .int()
    .min(0)
    .max(2 ** 24)
    .optional(),
  properties: z
    .record(z.string().regex(/^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$/), z.string().max(255))
    .default({})
    .describe("by Glance's names"),
  dataSets: z
    .array(z.string().regex(DATA_SET_ID))
    .max(1000)
    .default([])
    .describe('ids in the store of the source'),
});
/** What the operator says about an image. */
export type ImageDescription = z.infer<typeof ImageDescription>;

/** What an image is, without what its file tells. */
export type About = Pick<
  SyncImage,
  'series' | 'version' | 'arch' | 'firmware' | 'minRamMib' | 'properties' | 'dataSets'
> & {
  /** 0 when nothing asks for more than the disk. */
  minDiskGib: number;
};

/** What is taken for granted where nothing is said. */
export interface Defaults {
  firmware: 'bios' | 'uefi';
  arch: string;
}

/** Reads a description. Throws CONFIG naming the field. */
export function parseDescription(text: string, where: string): ImageDescription {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw wrongDescription(where, 'it is not JSON');
  }
  const parsed = ImageDescription.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw wrongDescription(where, `${issue?.path.join('.') || 'it'}: ${issue?.message ?? 'wrong'}`);
}

function wrongDescription(where: string, why: string): PortError {
  return new PortError('CONFIG', `${printable(where)} does not describe an image: ${printable(why)}`, {
    hint: 'docs/sync-sources.md has the fields; move other files of this name elsewhere',
  });
}

/** An image the operator describes. */
export function describedImage(description: ImageDescription, defaults: Defaults): About {
  const { series, version, os, minRamMib = 0, dataSets } = description;
  const { arch = defaults.arch, firmware = defaults.firmware } = description;
  const said = {
    ...plainProperties({ arch, firmware }),
    ...(os?.type === undefined ? {} : { os_type: os.type }),
    ...(os?.distro === undefined ? {} : { os_distro: os.distro }),
    ...(os?.version === undefined ? {} : { os_version: os.version }),
  };
  const properties = { ...said, ...description.properties };
  return { series, version, arch, firmware, minRamMib, minDiskGib: 0, properties, dataSets };
}

/** An image that has nothing but its file's name and time. */
export function plainImage(series: string, version: string, { arch, firmware }: Defaults): About {
  const properties = plainProperties({ arch, firmware });
  return { series, version, arch, firmware, minRamMib: 0, minDiskGib: 0, properties, dataSets: [] };
}

/** What every image may claim. With UEFI the machine type is a must: OVMF wants it. */
function plainProperties({ arch, firmware }: Defaults): Record<string, string> {
  return {
    ...(LEGAL.architecture?.includes(arch) === true ? { architecture: arch } : {}),
    hw_firmware_type: firmware,
    ...(firmware === 'uefi' ? { hw_machine_type: openstack.boot.machine.uefi } : {}),
  };
}

/** What is known of an image besides its contract. */
export interface ContractFacts {
  /** Of the job; made up from the contract when absent. */
  facts?: Pick<Facts, 'os' | 'firmware' | 'packages'> | undefined;
  agentAdded: boolean;
  /** sha256 of contract.json, hex. */
  contractSha256: string;
  virtualBytes: number;
  /** Part of the name of a further disk's image; undefined for the disk the firmware starts from. */
  disk?: string | undefined;
}

/** An image of a conversion, or one of its further disks. Throws NO_CONTRACT when its names fit nowhere. */
export function contractImage(contract: Contract, known: ContractFacts): About {
  const { name, version } = contract.image;
  const series = known.disk === undefined ? name : `${name}-${known.disk}`;
  if (!SYNC_WORD.test(series) || !SYNC_WORD.test(version)) {
    throw new PortError(
      'NO_CONTRACT',
      `the contract of ${printable(series)} has a name or version that cannot be used: ${printable(version)}`,
      { hint: 'letters, digits, dot, dash, plus and underscore, at most 128' },
    );
  }
  const [firmware = 'bios'] = known.facts === undefined ? contract.facts.firmware : [known.facts.firmware];
  const found = imageProperties({
    facts: known.facts ?? factsOf(contract, firmware),
    contract,
    boot: openstack.boot,
    agentAdded: known.agentAdded,
    contractSha256: known.contractSha256,
    virtualBytes: known.virtualBytes,
    verified: undefined,
    jobId: '',
  });
  const { architecture } = found.properties;
  const arch = architecture ?? contract.facts.arch;
  const base = { series, version, arch, firmware };
  if (known.disk !== undefined) {
    // Of a further disk nothing is started, and its data sets belong to the system.
    return { ...base, minRamMib: 0, minDiskGib: 0, properties: {}, dataSets: [] };
  }
  return {
    ...base,
    minRamMib: contract.needs.minRamMiB,
    minDiskGib: contract.needs.minDiskGiB,
    properties: travelling(found.properties),
    dataSets: contract.data.map((set) => set.id),
  };
}

/** Of our own properties only the contract's digest travels: the others are of the job that made the image. */
function travelling(properties: Record<string, string>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(properties).filter(
      ([key]) => !key.startsWith('port_image_') || key === 'port_image_contract',
    ),
  );
}

function factsOf(
  { facts }: Contract,
  firmware: 'bios' | 'uefi',
): Pick<Facts, 'os' | 'firmware' | 'packages'> {
  const { distro, version } = facts.os;
  const os = { type: 'linux', arch: facts.arch, distro, version } as Facts['os'];
  return { os, firmware, packages: [] };
}

/** Text as a word of `SYNC_WORD`: what does not fit becomes a dash. Undefined when nothing is left of it. */
export function asSyncWord(text: string): string | undefined {
  const word = text
    .normalize('NFKD')
    .replace(/[^A-Za-z0-9._+-]+/g, '-')
    .replace(/^[^A-Za-z0-9]+/, '')
    .slice(0, 128)
    .replace(/-+$/, '');
  return SYNC_WORD.test(word) ? word : undefined;
}

/** Whole GiB a disk takes. */
export function gibOf(bytes: number): number {
  return Math.max(1, Math.ceil(bytes / GIB));
}
