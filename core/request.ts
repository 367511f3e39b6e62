/** `job.json`: what the user asked for. Holds no secrets. */
import * as z from 'zod';

/** Formats a source may have, by qemu-img's names (`vpc` is VHD). */
export const SOURCE_FORMATS = ['raw', 'qcow2', 'vmdk', 'vpc', 'vhdx', 'vdi'] as const;
export type SourceFormat = (typeof SOURCE_FORMATS)[number];

export const Request = z.object({
  schema: z.literal('port-image/request/1'),
  source: z.string().describe('absolute path of an image file or block device'),
  format: z.enum(SOURCE_FORMATS).optional().describe('fixed by the user; otherwise found from the header'),
  root: z.string().optional().describe('device of the system to convert, when the disk has several'),
  to: z.array(z.string()).min(1).describe('platform names'),
  name: z
    .string()
    .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/)
    .describe('name of the image and of its files'),
  store: z.string().describe('URL of the data store, such as file:/srv/store'),
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
  compare: z.boolean().default(true).describe('compare the encoded image with the work disk'),
});
/** What the user asked for. */
export type Request = z.infer<typeof Request>;
