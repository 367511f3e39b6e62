/** `job.json`: what the user asked for. Holds no secrets. */
import * as z from 'zod';

/** Formats a source may have, by qemu-img's names (`vpc` is VHD). */
export const SOURCE_FORMATS = ['raw', 'qcow2', 'vmdk', 'vpc', 'vhdx', 'vdi'] as const;
export type SourceFormat = (typeof SOURCE_FORMATS)[number];

export const CaptureOptions = z.object({
  freeze: z
    .enum(['auto', 'none'])
    .default('auto')
    .describe('freeze the file systems of a running source for the last pass, or take it as it is'),
  quiesce: z
    .string()
    .optional()
    .describe(
      'command for the source, run by its sh before the freeze; kept in job.json, so no secrets in it',
    ),
  resume: z.string().optional().describe('command for the source, run by its sh after the last pass'),
  maxFreezeSeconds: z
    .number()
    .int()
    .min(5)
    .max(6 * 3600)
    .default(600)
    .describe('longest time file systems of the source stay frozen; a watchdog there thaws them'),
  limitBytesPerSecond: z
    .number()
    .int()
    .min(64 * 1024)
    .optional()
    .describe('most bytes read per second'),
  allowBad: z
    .number()
    .int()
    .min(0)
    .default(0)
    .describe('how many unreadable places of a disk are accepted; they read as zeros and are listed'),
  checksum: z
    .string()
    .optional()
    .describe('of a downloaded image: sha256:HEX, sha512:HEX or URL of a sums file'),
  maxBytes: z.number().int().min(1).optional().describe('most bytes a packed image may unpack to'),
  sshConfig: z
    .string()
    .optional()
    .describe('absolute path of an ssh_config(5) file instead of the usual ones'),
  sshIdentity: z.string().optional().describe('absolute path of a private key; its content is never stored'),
});
/** How the source is read. Without meaning for a file that is used in place. */
export type CaptureOptions = z.infer<typeof CaptureOptions>;

export const Request = z.object({
  schema: z.literal('port-image/request/1'),
  source: z
    .string()
    .describe('absolute path of an image file or block device, or a URL (see docs/sources.md)'),
  capture: CaptureOptions.prefault({}),
  moreSources: z
    .array(z.string())
    .default([])
    .describe('further disks of the same machine, written as `source`'),
  disks: z
    .record(z.string(), z.enum(['data', 'image', 'skip']))
    .default({})
    .describe('what a disk that holds no part of the system is for, by its id; `image` when it is not named'),
  format: z.enum(SOURCE_FORMATS).optional().describe('fixed by the user; otherwise found from the header'),
  root: z.string().optional().describe('device of the system to convert, when the disk has several'),
  to: z.array(z.string()).min(1).describe('platform names'),
  name: z
    .string()
    .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/)
    .describe('name of the image and of its files'),
  store: z
    .string()
    .describe(
      'URL of the data store: file:/srv/store, swift:PREFIX in the cloud of `storeCloud`, or s3:, azure:, gs: with their options',
    ),
  storeCloud: z.string().optional().describe('cloud of a swift: store, as in clouds.yaml'),
  strip: z.union([
    z.literal('none'),
    z.literal('auto'),
    z.array(z.union([z.literal('auto'), z.string().startsWith('/')])),
  ]),
  dataMode: z.enum(['eager', 'lazy', 'manual']).default('eager'),
  customize: z.string().optional().describe('absolute path of a virt-customize command file'),
  network: z.enum(['dhcp', 'keep']),
  nics: z.array(z.object({ mac: z.string(), name: z.string() })).default([]),
  packages: z.string().optional().describe('folder with packages for offline use'),
  encoding: z.enum(['zstd', 'compat', 'raw']).default('zstd'),
  generalize: z.boolean().default(false),
  verify: z.boolean(),
  verifyData: z
    .enum(['full', 'sampled'])
    .default('full')
    .describe('read every segment back from the store, or the sizes and tags of all and a sample'),
  urlHours: z
    .number()
    .int()
    .min(1)
    .max(24 * 365)
    .default(24)
    .describe('life of the signed URLs handed to the instance'),
  targets: z
    .record(z.string(), z.record(z.string(), z.unknown()))
    .default({})
    .describe(
      'options of the clouds an image is brought to, by platform; their schemas are in drivers/uploaders.ts',
    ),
  compare: z.boolean().default(true).describe('compare the encoded image with the work disk'),
});
/** What the user asked for. */
export type Request = z.infer<typeof Request>;
