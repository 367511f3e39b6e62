/**
 * Data sets: one stripped tree each, kept in a store as
 *
 *     ID/manifest.json          what is there, with digests; its own sha256 is in the image's contract
 *     ID/entries.jsonl.zst      one line per file, folder, link … with everything needed to compare it
 *     ID/segments/000001.tar.zst …  complete tar archives (pax), extracted in order into one folder
 *     ID/segments.sha256        the segments' digests in `sha256sum` form, for the shell client
 */
import { createHash } from 'node:crypto';
import * as z from 'zod';

/** When the instance fetches a data set: before the services that need it, at first access, or on command. */
export const DataMode = z.enum(['eager', 'lazy', 'manual']);
export type DataMode = z.infer<typeof DataMode>;

/** Rule of a data set that holds a whole file system of a disk that is not part of the image. */
export const DISK_RULE = 'disk';

/** Form of a data set's id: safe as an object key, as a systemd instance name and as a file name. */
export const DATA_SET_ID = /^[a-z0-9][a-z0-9._-]{0,63}$/;

const Sha256 = z.string().regex(/^[0-9a-f]{64}$/);

export const Segment = z.object({
  key: z.string().describe('below the data set: segments/000001.tar.zst'),
  bytes: z.number().int().nonnegative().describe('compressed'),
  tarBytes: z.number().int().nonnegative().describe('uncompressed'),
  sha256: Sha256.describe('of the compressed bytes'),
  entries: z.number().int().nonnegative().describe('tar members'),
});
export type Segment = z.infer<typeof Segment>;

export const Manifest = z.object({
  schema: z.literal('port-image/data-set/1'),
  id: z.string().regex(DATA_SET_ID),
  path: z.string().startsWith('/').describe('absolute path of the tree in the guest'),
  bytes: z.number().int().nonnegative().describe('content of regular files, hard links counted once'),
  allocatedBytes: z.number().int().nonnegative().describe('bytes the tree took on its disk'),
  files: z.number().int().nonnegative().describe('regular files, hard links counted once'),
  entryCount: z.number().int().nonnegative(),
  entries: z.object({ key: z.string(), bytes: z.number().int().nonnegative(), sha256: Sha256 }),
  compression: z.literal('zstd'),
  segments: z.array(Segment),
  segmentsSha256: Sha256.describe('of segments.sha256'),
});
/** The manifest of one data set. */
export type Manifest = z.infer<typeof Manifest>;

/** Bytes an instance needs free to restore a set: the tree, and the largest segment while it is unpacked. */
export function neededBytes(manifest: Manifest): number {
  return manifest.allocatedBytes + Math.max(0, ...manifest.segments.map((s) => s.bytes));
}

/** What a member of the tree is; `link` is a further name of a regular file (hard link). */
export const EntryType = z.enum(['file', 'dir', 'symlink', 'link', 'fifo', 'char', 'block']);
export type EntryType = z.infer<typeof EntryType>;

export const Entry = z.object({
  path: z.string().describe('base64 of the raw bytes, relative to the tree, empty for its root'),
  type: EntryType,
  mode: z.number().int().describe('permission bits, 0 to 07777'),
  uid: z.number().int(),
  gid: z.number().int(),
  size: z.number().int().describe('bytes of a regular file, else 0'),
  mtimeNs: z
    .string()
    .regex(/^-?\d+$/)
    .describe('nanoseconds since 1970'),
  ctimeNs: z
    .string()
    .regex(/^-?\d+$/)
    .describe('change time at the source; tells whether a later look sees the same'),
  sha256: Sha256.optional().describe('of the content with holes read as zeros; regular files only'),
  link: z
    .string()
    .optional()
    .describe('base64: target of a symlink, or path of the first name of a hard link'),
  xattrs: z
    .record(z.string(), z.string())
    .optional()
    .describe(
      'names with % and bytes outside printable ASCII as %xx, values in base64; ACLs as system.posix_acl_*',
    ),
  sparse: z
    .array(z.tuple([z.number().int(), z.number().int()]))
    .optional()
    .describe('offset and length of the data; absent when the file has no hole'),
  device: z.tuple([z.number().int(), z.number().int()]).optional().describe('major and minor'),
  segment: z.number().int().describe('number of the segment that carries it, from 1'),
});
/** One line of entries.jsonl.zst. */
export type Entry = z.infer<typeof Entry>;

export const DataSetSummary = z.object({
  id: z.string(),
  path: z.string(),
  bytes: z.number(),
  storedBytes: z.number().describe('compressed segments'),
  files: z.number(),
  entries: z.number(),
  segments: z.number(),
  manifest: z.object({ key: z.string(), sha256: Sha256 }),
  segmentsSha256: Sha256,
  neededBy: z.array(z.string()).describe('units that must not start without it'),
  mode: DataMode,
  rule: z.string().describe('why it was taken: a rule of inspect, or `requested`'),
  reused: z.boolean().describe('the store already held it'),
});
/** What the strip stage reports about one data set. */
export type DataSetSummary = z.infer<typeof DataSetSummary>;

/**
 * A stable id: the readable part comes from the image's name and the path, the rest keeps different jobs, sources and
 * paths apart, so an older image never finds its data replaced. `salt` is anything that names job and source.
 */
export function dataSetId(name: string, path: string, salt: string): string {
  const clean = (text: string) =>
    text
      .normalize('NFKD')
      .toLowerCase()
      .replace(/[^a-z0-9]+/g, '-')
      .replace(/^-+|-+$/g, '');
  const tail = createHash('sha256').update(`${name}\0${path}\0${salt}`).digest('hex').slice(0, 10);
  const head = [clean(name).slice(0, 20), clean(path).slice(0, 30)].filter((p) => p !== '').join('-');
  return head === '' ? tail : `${head.replace(/-+$/, '')}-${tail}`;
}

/** Key of segment `number` (from 1) below its data set. */
export function segmentKey(number: number): string {
  return `segments/${String(number).padStart(6, '0')}.tar.zst`;
}

/** The segments' digests as `sha256sum -c` reads them, names relative to the data set. */
export function segmentDigests(segments: readonly Pick<Segment, 'key' | 'sha256'>[]): string {
  return segments.map((s) => `${s.sha256}  ${s.key}\n`).join('');
}
