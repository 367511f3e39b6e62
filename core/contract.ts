/**
 * The contract: what an image says about itself (`/usr/lib/port-image/contract.json`), and the provision document: what
 * a cloud answers. Readers ignore fields they do not know unless the field is listed in `critical`.
 */
import * as z from 'zod';
import { DATA_SET_ID, DataMode, type DataSetSummary, DISK_RULE } from './data-set.ts';
import type { Facts } from './facts.ts';
import type { Platform } from './platform.ts';
import type { Request } from './request.ts';
import { GIB } from './sizes.ts';

/** Where the contract lies in the image. */
export const CONTRACT_PATH = '/usr/lib/port-image/contract.json';

const ContractData = z.object({
  id: z.string().regex(DATA_SET_ID),
  mount: z.string().describe('path in the guest'),
  bytes: z.number(),
  files: z.number(),
  manifest: z
    .string()
    .regex(/^sha256:[0-9a-f]{64}$/)
    .describe('digest of manifest.json'),
  segments: z
    .string()
    .regex(/^sha256:[0-9a-f]{64}$/)
    .describe('digest of segments.sha256'),
  mode: DataMode,
  before: z.array(z.string()).describe('units that must not start without it'),
  credential: z.string().describe('where the provision document gives the URL: data.ID.url'),
});

export const Contract = z.object({
  contract: z.literal('port-image/1'),
  critical: z.array(z.string()).describe('fields a reader must understand'),
  image: z.object({
    id: z.string(),
    name: z.string(),
    version: z.string(),
    source: z.string().describe('p2v: made from an installed server'),
  }),
  facts: z.object({
    os: z.object({ distro: z.string(), version: z.string() }),
    arch: z.string(),
    firmware: z.array(z.enum(['bios', 'uefi'])),
    drivers: z
      .array(z.string())
      .describe('storage and network modules every boot-menu initramfs holds, or built in'),
    networkDrivers: z
      .array(z.string())
      .optional()
      .describe(
        'network modules every boot-menu kernel has, in its initramfs or not; absent in older images',
      ),
    datasources: z.array(z.string()),
    platforms: z.array(z.string()),
  }),
  needs: z.object({
    minDiskGiB: z.number(),
    minRamMiB: z.number(),
    configDrive: z.enum(['none', 'optional', 'mandatory']),
    egress: z.array(z.string()),
  }),
  data: z.array(ContractData),
  credentials: z.array(z.object({ name: z.string(), required: z.boolean() })),
  stripped: z.array(z.object({ path: z.string(), why: z.string() })),
  disks: z
    .array(
      z.object({
        id: z.string().describe('the image is NAME-ID'),
        bytes: z.number(),
        required: z.boolean().describe('the system is on it too: without it the instance does not start'),
      }),
    )
    .optional()
    .describe('further images that belong to this one; absent when there are none'),
});
/** What an image says about itself. */
export type Contract = z.infer<typeof Contract>;

/** Instead of a signed URL: the instance gets a token itself. Give it access rules for GET below the prefix alone. */
export const ProvisionAuth = z.object({
  type: z.literal('v3applicationcredential').describe('OpenStack Keystone v3 application credential'),
  authUrl: z
    .string()
    .regex(/^https?:\/\/[^\s"\\]+$/)
    .describe('Keystone, with or without /v3'),
  id: z.string().min(1).describe('id of the application credential'),
  secret: z.string().min(1),
});
/** An application credential in a provision document. */
export type ProvisionAuth = z.infer<typeof ProvisionAuth>;

export const Provision = z.object({
  version: z.literal(1),
  data: z
    .record(
      z.string().regex(DATA_SET_ID),
      z.object({
        url: z
          .string()
          .regex(/^https?:\/\//)
          .describe('prefix; the keys are put behind its path, before a ?query'),
        expires: z.string().optional().describe('ISO 8601, for messages only'),
        auth: ProvisionAuth.optional().describe('for a URL that is not signed'),
      }),
    )
    .default({}),
  prefetch: z
    .array(z.string().regex(DATA_SET_ID))
    .optional()
    .describe('lazy data sets in the order of their use; fetched after the boot, when nothing else is to do'),
});
/** What a cloud tells an instance: the value of `port_image` in vendor_data2.json. */
export type Provision = z.infer<typeof Provision>;

/** What the contract is made of. */
export interface ContractInput {
  facts: Facts;
  request: Request;
  platforms: readonly Platform[];
  dataSets: readonly DataSetSummary[];
  /** Version of this image; part of its id. */
  version: string;
}

/** Modules that every boot-menu kernel has in its initramfs or built in, out of those the platforms ask for. */
export function driversOf(facts: Facts, platforms: readonly Platform[]): string[] {
  const wanted = new Set(
    platforms.flatMap((p) => [
      ...p.needs.storageModules,
      ...p.needs.networkModules,
      ...p.needs.optionalModules,
    ]),
  );
  const kernels = facts.kernels.filter((k) => k.inBootMenu);
  return [...wanted]
    .filter(
      (m) =>
        kernels.length > 0 && kernels.every((k) => k.initramfsModules.includes(m) || k.builtin.includes(m)),
    )
    .sort();
}

/** Network modules the platforms ask for that every boot-menu kernel can load, once its root is mounted. */
export function networkDriversOf(facts: Facts, platforms: readonly Platform[]): string[] {
  const wanted = new Set(platforms.flatMap((p) => [...p.needs.networkModules]));
  const kernels = facts.kernels.filter((k) => k.inBootMenu);
  return [...wanted]
    .filter(
      (m) =>
        kernels.length > 0 &&
        kernels.every((k) => [k.modules, k.builtin, k.initramfsModules].some((l) => l.includes(m))),
    )
    .sort();
}

/** Builds the contract. Pure: the same input gives the same document. */
export function buildContract(input: ContractInput): Contract {
  const { facts, request, platforms, dataSets } = input;
  // data of a disk that does not come along is fetched into the root file system
  const diskBytes =
    (facts.disks[facts.bootDisk]?.virtualBytes ?? 0) +
    dataSets.filter((d) => d.rule === DISK_RULE).reduce((sum, d) => sum + d.bytes, 0);
  const more = facts.disks.filter((d, i) => d.use !== 'data' && i !== facts.bootDisk);
  return {
    contract: 'port-image/1',
    critical: dataSets.length > 0 ? ['data'] : [],
    image: {
      id: `${request.name}-${input.version}`,
      name: request.name,
      version: input.version,
      source: 'p2v',
    },
    facts: {
      os: { distro: facts.os.distro, version: facts.os.version },
      arch: facts.os.arch,
      firmware: [facts.firmware],
      drivers: driversOf(facts, platforms),
      networkDrivers: networkDriversOf(facts, platforms),
      datasources: [...new Set(platforms.flatMap((p) => [...p.needs.datasources]))],
      platforms: platforms.map((p) => p.name),
    },
    needs: {
      minDiskGiB: Math.ceil(diskBytes / GIB),
      minRamMiB: 512,
      configDrive: dataSets.some((d) => d.mode !== 'manual') ? 'mandatory' : 'optional',
      egress: dataSets.length > 0 ? ['store'] : [],
    },
    data: dataSets.map((d) => ({
      id: d.id,
      mount: d.path,
      bytes: d.bytes,
      files: d.files,
      manifest: `sha256:${d.manifest.sha256}`,
      segments: `sha256:${d.segmentsSha256}`,
      mode: d.mode,
      before: d.neededBy,
      credential: `data.${d.id}.url`,
    })),
    credentials: dataSets.map((d) => ({ name: `data.${d.id}.url`, required: d.mode === 'eager' })),
    ...(more.length === 0
      ? {}
      : {
          disks: more.map(({ id, use, virtualBytes }) => ({
            id,
            bytes: virtualBytes,
            required: use === 'system',
          })),
        }),
    stripped: dataSets.map((d) => ({ path: d.path, why: d.rule })),
  };
}
