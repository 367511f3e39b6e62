/**
 * `sync/` in the job folder of a server: its last good images. A conversion replaces what is in `out` before it is proved; when it
 * fails, these stay what the source offers. They are further names of the same files, so they take no space of their own until then.
 */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import * as z from 'zod';
import { DATA_SET_ID } from '../../../core/data-set.ts';
import { PortError } from '../../../core/errors.ts';
import { fsyncPath, makeDir, writeJson } from '../../../core/files.ts';
import { SYNC_WORD, type SyncImage } from '../../../core/sync/types.ts';
import { parsedJson, printable } from '../../../core/text.ts';

const Word = z.string().regex(SYNC_WORD);
/** As it is kept; `ref` is a file name of the folder. */
const KeptImage = z.object({
  series: Word,
  version: Word,
  ref: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._+-]{0,254}$/),
  name: z.string(),
  fileDigest: z.string().regex(/^sha256:[0-9a-f]{64}$/),
  format: z.string(),
  fileBytes: z.number(),
  virtualBytes: z.number(),
  createdAt: z.string(),
  arch: z.string(),
  firmware: z.enum(['bios', 'uefi']),
  minDiskGib: z.number(),
  minRamMib: z.number(),
  properties: z.record(z.string(), z.string()),
  dataSets: z.array(z.string().regex(DATA_SET_ID)),
});
const KeptState = z.object({
  schema: z.literal('port-image/sync-kept/1'),
  madeFrom: z.string().describe('digest of request and source; the same, nothing has to be converted again'),
  images: z.array(KeptImage),
});

/** The last good images of a server, and what they were made from. */
export interface Kept {
  madeFrom: string;
  images: SyncImage[];
}

const dirOf = (job: string) => path.join(job, 'sync');
const fileOf = (job: string) => path.join(dirOf(job), 'images.json');

/** Undefined when none were kept. Throws JOB_TAMPERED for a folder that is not what was written. */
export async function readKept(job: string): Promise<Kept | undefined> {
  const file = fileOf(job);
  const text = await fs.readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (text === undefined) return undefined;
  const parsed = KeptState.safeParse(parsedJson(text));
  if (!parsed.success) throw tampered(file);
  const images: SyncImage[] = [];
  for (const image of parsed.data.images) {
    const ref = path.join(dirOf(job), image.ref);
    const stat = await fs.lstat(ref).catch(() => undefined);
    if (stat?.isFile() !== true || stat.size !== image.fileBytes) throw tampered(ref);
    images.push({ ...image, ref });
  }
  return { madeFrom: parsed.data.madeFrom, images };
}

/** Keeps images of `out`, in the place of those before. A kill leaves the old ones or the new ones. */
export async function keepImages(job: string, { madeFrom, images }: Kept): Promise<void> {
  const dir = dirOf(job);
  await makeDir(dir);
  const kept: SyncImage[] = [];
  for (const image of images) {
    const ref = `${image.series}-${image.version}${path.extname(image.ref)}`;
    const target = path.join(dir, ref);
    await fs.rm(target, { force: true });
    await fs.link(image.ref, target).catch(async (error: NodeJS.ErrnoException) => {
      // Some file systems have no second names.
      if (!['EPERM', 'ENOTSUP', 'ENOSYS', 'EMLINK'].includes(error.code ?? '')) throw error;
      await fs.copyFile(image.ref, target, fs.constants.COPYFILE_FICLONE);
      await fsyncPath(target);
    });
    kept.push({ ...image, ref });
  }
  await fsyncPath(dir);
  await writeJson(fileOf(job), { schema: 'port-image/sync-kept/1', madeFrom, images: kept });
  const names = new Set([path.basename(fileOf(job)), ...kept.map((image) => image.ref)]);
  for (const name of await fs.readdir(dir)) if (!names.has(name)) await fs.rm(path.join(dir, name));
}

function tampered(file: string): PortError {
  return new PortError('JOB_TAMPERED', `${printable(file)} is not what a run of this sync left`, {
    hint: `remove the folder ${printable(path.dirname(file))}: the next run makes the image anew`,
  });
}
