/**
 * GCE's container: a gzip-compressed GNU tar (old GNU format, sparse) with one member named `disk.raw`
 * (docs.cloud.google.com/compute/docs/import/import-existing-image).
 */
import * as fs from 'node:fs/promises';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { lastLine, run, start } from '../core/command.ts';
import { asPortError, PortError } from '../core/errors.ts';
import { KIB } from '../core/sizes.ts';
import { printable } from '../core/text.ts';

/** Name of the only member. */
export const GCE_MEMBER = 'disk.raw';

/**
 * Node's zlib at this level: measured on 400 MB of programs and libraries, 5.6 s for 42 % of the size; level 6 takes twice the
 * time for 2.5 points less, the gzip program at its fastest 9.1 s.
 */
export const GZIP_LEVEL = 2;
const CHUNK_BYTES = 256 * KIB;

/** How to write it. */
export interface GceTarOptions {
  signal: AbortSignal;
  /** Scratch folder. */
  tmp: string;
  /** Bytes of data packed so far, before compression. */
  onBytes?: (doneBytes: number) => void;
}

/**
 * Packs a raw disk whose file is named `disk.raw`; holes (SEEK_DATA) are not read. `target` must exist, so that its mode is the
 * caller's. Throws PROGRAM_MISSING, PROGRAM_FAILED, DISK_SPACE, HOST_IO, INTERRUPTED.
 */
export async function writeGceTar(folder: string, target: string, options: GceTarOptions): Promise<void> {
  const { signal, tmp, onBytes } = options;
  const stderrFile = `${tmp}/tar-${process.pid}-${Math.random().toString(36).slice(2)}.err`;
  const args = [
    '--format=oldgnu',
    '-S',
    '--hole-detection=seek',
    '--warning=no-file-changed',
    '--owner=0',
    '--group=0',
    '--numeric-owner',
  ];
  const names = ['--mode=0644', '--mtime=@0', '-C', folder, '-cf', '-', GCE_MEMBER];
  let doneBytes = 0;
  const count = new Transform({
    transform(piece: Buffer, _encoding, done) {
      doneBytes += piece.length;
      onBytes?.(doneBytes);
      done(null, piece);
    },
  });
  const handle = await fs.open(target, 'r+');
  // Nothing is awaited between the start and the reading: what comes while nobody listens is lost (see `start`).
  const tar = await start('tar', [...args, ...names], { signal, pipes: true, stderrFile }).catch(
    async (error: unknown) => {
      await handle.close();
      throw error;
    },
  );
  try {
    await pipeline(
      tar.stdout,
      count,
      createGzip({ level: GZIP_LEVEL, chunkSize: CHUNK_BYTES }),
      handle.createWriteStream(),
      { signal },
    );
    const { exitCode } = await tar.exited;
    const [first = ''] = (await fs.readFile(stderrFile, 'utf8')).split('\n');
    const said = lastLine(first);
    // 1 without a word: "file changed as we read it". QEMU's FUSE export shows the time of day as the time of the last change;
    // the disk is open for reading only, and what was written is compared afterwards.
    if (exitCode !== 0 && (exitCode !== 1 || said !== '')) {
      throw new PortError('PROGRAM_FAILED', `tar could not pack the disk: ${said || `status ${exitCode}`}`);
    }
  } catch (error) {
    if (signal.aborted) throw new PortError('INTERRUPTED', 'stopped', { cause: error });
    throw asPortError(error);
  } finally {
    await tar.stop();
    await handle.close().catch(() => {}); // the stream has closed it
    await fs.rm(stderrFile, { force: true });
  }
}

/** A member as GNU tar lists it. */
export interface ListedMember {
  name: string;
  sizeBytes: number;
  /** `-` for a regular file. */
  kind: string;
}

/** What GNU tar finds in an archive; it reads all of it, so gzip's checksum is checked too. Throws PROGRAM_FAILED. */
export async function listGceTar(file: string, signal: AbortSignal): Promise<ListedMember[]> {
  const args = ['-t', '-v', '-z', '--numeric-owner', '--full-time', '-f', file];
  const { stdout } = await run('tar', args, { signal, timeoutMs: 24 * 3_600_000 });
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [, kind, size, name] = /^(.)\S+ \S+ +(\d+) \S+ \S+ (.*)$/.exec(line) ?? [];
      if (kind === undefined) throw new PortError('PROGRAM_FAILED', `tar listed: ${printable(line)}`);
      return { kind, sizeBytes: Number(size), name: name ?? '' };
    });
}
