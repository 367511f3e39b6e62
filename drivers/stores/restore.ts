/** Putting a data set back onto any machine, with the system's GNU tar, the way the instance does it. */
import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createZstdDecompress } from 'node:zlib';
import { run } from '../../core/command.ts';
import type { Manifest } from '../../core/data-set.ts';
import { asPortError, PortError } from '../../core/errors.ts';
import { FILE_MODE, makeDir } from '../../core/files.ts';
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
] as const;

/** How to restore. */
export interface RestoreOptions {
  /** Digest of the manifest, from the contract. */
  manifestSha256?: string;
  signal?: AbortSignal;
}

/**
 * Restores data set `id` into `target`, which must not exist or be empty. Each segment is checked before it is
 * extracted. Needs root for owners and privileged xattrs. Throws STORE, STORE_MISMATCH, PROGRAM_FAILED, USAGE.
 */
export async function restoreDataSet(
  store: Store,
  id: string,
  target: string,
  options: RestoreOptions = {},
): Promise<Manifest> {
  const { manifest } = await readManifest(store, id, options.manifestSha256);
  await makeDir(target);
  if ((await fs.readdir(target)).length > 0) throw new PortError('USAGE', `${target} is not empty`);
  const scratch = await fs.mkdtemp(path.join(path.dirname(path.resolve(target)), '.port-image-restore-'));
  try {
    for (const segment of manifest.segments) {
      const file = path.join(scratch, 'segment.tar');
      const hash = createHash('sha256');
      await pipeline(
        await store.get(`${id}/${segment.key}`, { signal: options.signal }),
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
      const { exitCode, stderr } = await run('tar', [...TAR_EXTRACT, '--file', file, '--directory', target], {
        signal: options.signal,
        okStatus: [0, 1, 2],
      });
      // The last line of tar only says that there were errors before.
      if (exitCode !== 0) {
        const cause = printable(stderr.split('\n')[0] ?? '').slice(0, 500);
        throw new PortError('PROGRAM_FAILED', `tar could not restore ${id}/${segment.key}: ${cause}`);
      }
    }
  } finally {
    await fs.rm(scratch, { recursive: true, force: true });
  }
  return manifest;
}
