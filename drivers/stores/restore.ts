/** Putting a data set back onto any machine, with the system's GNU tar, the way the instance does it. */
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createZstdDecompress } from 'node:zlib';
import { start } from '../../core/command.ts';
import type { Manifest, Segment } from '../../core/data-set.ts';
import { asPortError, PortError } from '../../core/errors.ts';
import { exists, FILE_MODE, makeDir, renameDurable } from '../../core/files.ts';
import { printable } from '../../core/text.ts';
import { readManifest } from './read-back.ts';
import type { Store } from './store.ts';

/** Arguments with which GNU tar restores everything a segment holds. */
const TAR_EXTRACT = [
  '--extract',
  '--numeric-owner',
  '--same-owner',
  '--preserve-permissions',
  '--xattrs',
  '--xattrs-include=*',
  '--acls',
  '--delay-directory-restore',
  '--warning=no-timestamp',
  // All segments go to one tar as one archive: only within one archive does GNU tar keep a link out of the way of what
  // comes after it, so a hostile set cannot write through a link of an earlier segment to a place outside the folder.
  '--ignore-zeros',
] as const;

/** What GNU tar prints for an error, in the language of our environment. */
const ERROR_LINE = /: (Cannot |No space left )/;

const SCRATCH = '.port-image-restore-';

/** Removes what killed restores into the same folder left beside it. */
async function removeStale(parent: string, base: string): Promise<void> {
  for (const name of await fs.readdir(parent)) {
    if (!name.startsWith(`${SCRATCH}${base}-`)) continue;
    const pid = /^(\d+)-[A-Za-z0-9]{6}$/.exec(name.slice(SCRATCH.length + base.length + 1))?.[1];
    if (pid === undefined || (await exists(`/proc/${pid}`))) continue;
    await fs.rm(path.join(parent, name), { recursive: true, force: true });
  }
}

/** How to restore. */
export interface RestoreOptions {
  /** Digest of the manifest, from the contract. */
  manifestSha256?: string;
  signal?: AbortSignal | undefined;
}

/** Gets a segment into a file and checks it. Throws STORE, STORE_MISMATCH. */
async function fetchSegment(
  store: Store,
  id: string,
  segment: Segment,
  file: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  const hash = createHash('sha256');
  await pipeline(
    await store.get(`${id}/${segment.key}`, { signal }),
    async function* (source: AsyncIterable<Buffer>) {
      for await (const chunk of source) {
        hash.update(chunk);
        yield chunk;
      }
    },
    createZstdDecompress(),
    createWriteStream(file, { mode: FILE_MODE }),
  ).catch((error: unknown) => {
    const known = asPortError(error);
    throw known.code === 'BUG'
      ? new PortError('STORE_MISMATCH', `${segment.key} cannot be unpacked`, { cause: error })
      : known;
  });
  if (hash.digest('hex') !== segment.sha256) {
    throw new PortError('STORE_MISMATCH', `${id}/${segment.key} is not what was written`);
  }
}

/**
 * Restores data set `id` into `target`, which must not exist or be empty. Each segment is checked before it is
 * extracted, and the folder appears when all are (a mount point is filled in place). Needs root for owners and privileged xattrs. Throws STORE, STORE_MISMATCH, PROGRAM_FAILED, USAGE.
 */
export async function restoreDataSet(
  store: Store,
  id: string,
  target: string,
  options: RestoreOptions = {},
): Promise<Manifest> {
  const { signal } = options;
  const { manifest } = await readManifest(store, id, options.manifestSha256);
  await makeDir(target);
  if ((await fs.readdir(target)).length > 0) throw new PortError('USAGE', `${target} is not empty`);
  const final = await fs.realpath(target);
  const parent = path.dirname(final);
  await removeStale(parent, path.basename(final));
  const scratch = await fs.mkdtemp(path.join(parent, `${SCRATCH}${path.basename(final)}-${process.pid}-`));
  // What is mounted at the target cannot be replaced by a rename.
  const isMount = (await fs.stat(final)).dev !== (await fs.stat(parent)).dev;
  const tree = isMount ? final : path.join(scratch, 'tree');
  if (!isMount) await makeDir(tree);
  try {
    const stderrFile = path.join(scratch, 'tar.err');
    const tar = await start('tar', [...TAR_EXTRACT, '--file', '-', '--directory', tree], {
      pipes: true,
      stderrFile,
      signal,
    });
    tar.stdout.resume();
    const failed = async (key: string) => {
      // The last line of tar only says that there were errors before.
      const [line = ''] = (await fs.readFile(stderrFile, 'utf8')).split('\n');
      const cause = printable(line).slice(0, 500);
      return new PortError('PROGRAM_FAILED', `tar could not restore ${id}/${key}: ${cause}`);
    };
    let key = '';
    const archives = async function* () {
      for (const segment of manifest.segments) {
        key = segment.key;
        const file = path.join(scratch, 'segment.tar');
        await fetchSegment(store, id, segment, file, signal);
        yield* createReadStream(file, { highWaterMark: 1 << 18 }) as AsyncIterable<Buffer>;
        // tar goes on after an error and tells at its end: a full disk must not wait for that
        if (ERROR_LINE.test(await fs.readFile(stderrFile, 'utf8'))) throw await failed(key);
      }
    };
    try {
      await pipeline(archives, tar.stdin).catch(async (error: unknown) => {
        if (signal?.aborted) throw new PortError('INTERRUPTED', 'interrupted', { cause: error });
        if (error instanceof PortError) throw error;
        // the pipe broke: tar ended before its input did
        await tar.stop();
        throw await failed(key);
      });
      const { exitCode } = await tar.exited;
      if (signal?.aborted) throw new PortError('INTERRUPTED', 'interrupted');
      if (exitCode !== 0) throw await failed(key);
      // An empty folder is replaced by rename: the data set appears whole.
      if (!isMount) await renameDurable(tree, final);
    } finally {
      await tar.stop();
    }
  } finally {
    await fs.rm(scratch, { recursive: true, force: true });
  }
  return manifest;
}
