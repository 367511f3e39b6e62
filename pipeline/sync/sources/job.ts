/** Finished conversions as a source: the image in the `out` folder of a job, or of several when the path has a `*`. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { asPortError, PortError } from '../../../core/errors.ts';
import type { SourceConfig } from '../../../core/sync/config.ts';
import type {
  FetchedSyncImage,
  ListContext,
  SyncContext,
  SyncImage,
  SyncSource,
} from '../../../core/sync/types.ts';
import { printable } from '../../../core/text.ts';
import { type DigestCache, requireUnchanged } from './file-digest.ts';
import { eachOnce, type LocalSourceOptions } from './folder.ts';
import { jobImages } from './job-images.ts';

/** A source of this kind in the configuration. */
export type JobConfig = Extract<SourceConfig, { job: unknown }>;

/** Opens it; touches nothing yet. */
export function openJobSource(name: string, config: JobConfig, options: LocalSourceOptions): SyncSource {
  return new JobSource(name, config, options);
}

class JobSource implements SyncSource {
  readonly name: string;
  readonly #pattern: string;
  readonly #digests: DigestCache;

  constructor(name: string, { job }: JobConfig, { base, digests }: LocalSourceOptions) {
    this.name = name;
    this.#pattern = path.resolve(base, job);
    this.#digests = digests;
  }

  /** Throws what `jobImages` throws when one job is named; of several, one that cannot be used is left out. */
  async list(ctx: ListContext): Promise<SyncImage[]> {
    if (!this.#pattern.includes('*')) return jobImages(this.#pattern);
    const images: SyncImage[] = [];
    for (const dir of await foldersOf(this.#pattern)) {
      ctx.signal.throwIfAborted();
      try {
        images.push(...(await jobImages(dir)));
      } catch (error) {
        const told = asPortError(error);
        if (told.code === 'BUG') throw error;
        ctx.leaveOut(dir, told);
      }
    }
    return eachOnce(images, ctx);
  }

  /** The file itself, when it is still what the conversion wrote. Throws SOURCE_CHANGED. */
  fetch(image: SyncImage, _dir: string, { signal }: SyncContext): Promise<FetchedSyncImage> {
    return fetchInPlace(image, this.#digests, signal);
  }

  async close(): Promise<void> {}
}

/** An image of a job as it lies there. Throws SOURCE_CHANGED. */
export async function fetchInPlace(
  image: SyncImage,
  digests: DigestCache,
  signal: AbortSignal,
): Promise<FetchedSyncImage> {
  await requireUnchanged(image.ref, image.fileDigest, digests, signal);
  return { path: image.ref, format: image.format, receivedBytes: 0 };
}

/** Folders a pattern fits, in order. */
async function foldersOf(pattern: string): Promise<string[]> {
  const folders: string[] = [];
  try {
    for await (const entry of fs.glob(pattern, { withFileTypes: true }))
      if (entry.isDirectory()) folders.push(path.join(entry.parentPath, entry.name));
  } catch (error) {
    throw asPortError(error);
  }
  if (folders.length === 0)
    throw new PortError('CONFIG', `no folder fits ${printable(pattern)}`, {
      hint: 'check the path of the source',
    });
  return folders.sort();
}
