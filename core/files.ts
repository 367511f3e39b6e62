/** Files of ours on the host: written whole or not at all, private to their owner. */
import { createHash, randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { PortError } from './errors.ts';
import { formatBytes } from './sizes.ts';

/** Mode of every folder of a job. */
export const DIR_MODE = 0o700;
/** Mode of every file of a job. */
export const FILE_MODE = 0o600;

/** A temporary name beside `target`, so a rename stays on one file system. */
export function temporaryName(target: string): string {
  return path.join(path.dirname(target), `.${path.basename(target)}.${randomBytes(6).toString('hex')}.tmp`);
}

/** Flushes a file or folder to the disk. */
export async function fsyncPath(target: string): Promise<void> {
  const handle = await fs.open(target, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Renames and flushes the folder, so the name survives a power loss. */
export async function renameDurable(from: string, to: string): Promise<void> {
  await fs.rename(from, to);
  await fsyncPath(path.dirname(to));
}

/** Writes to a temporary name, flushes, renames: readers see the old content or the new, never half. */
export async function writeFileAtomic(target: string, content: string | Uint8Array): Promise<void> {
  const temporary = temporaryName(target);
  try {
    const handle = await fs.open(temporary, 'wx', FILE_MODE);
    try {
      await handle.writeFile(content);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await renameDurable(temporary, target);
  } catch (error) {
    await fs.rm(temporary, { force: true });
    throw error;
  }
}

/** Writes all of `data` at an offset: one write may stop short, as the last one does before a disk is full. */
export async function writeFull(handle: fs.FileHandle, data: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < data.length; ) {
    const { bytesWritten } = await handle.write(data, done, data.length - done, offset + done);
    done += bytesWritten;
  }
}

/** Writes JSON, indented, atomically. */
export async function writeJson(target: string, value: unknown): Promise<void> {
  await writeFileAtomic(target, `${JSON.stringify(value, null, 2)}\n`);
}

/** True when something exists under this name. */
export async function exists(target: string): Promise<boolean> {
  return fs.lstat(target).then(
    () => true,
    () => false,
  );
}

/** Creates a private folder and its parents. */
export async function makeDir(target: string): Promise<void> {
  await fs.mkdir(target, { recursive: true, mode: DIR_MODE });
}

const HASH_BYTES = 1024 * 1024;

/** Digests of a file in hex, in one reading. One buffer serves the whole file, so memory stays flat. */
export async function fileDigests(
  target: string,
  algorithms: readonly string[],
  signal?: AbortSignal,
  onProgress?: (doneBytes: number) => void,
): Promise<string[]> {
  const hashes = algorithms.map((name) => createHash(name));
  const buffer = Buffer.allocUnsafeSlow(HASH_BYTES);
  const handle = await fs.open(target, 'r');
  let doneBytes = 0;
  try {
    for (;;) {
      signal?.throwIfAborted();
      const { bytesRead } = await handle.read(buffer, 0, HASH_BYTES, null);
      if (bytesRead === 0) return hashes.map((hash) => hash.digest('hex'));
      for (const hash of hashes) hash.update(buffer.subarray(0, bytesRead));
      doneBytes += bytesRead;
      onProgress?.(doneBytes);
    }
  } finally {
    await handle.close();
  }
}

/** sha256 of a file in hex. */
export async function sha256File(
  target: string,
  signal?: AbortSignal,
  onProgress?: (doneBytes: number) => void,
): Promise<string> {
  const [digest = ''] = await fileDigests(target, ['sha256'], signal, onProgress);
  return digest;
}

/** Throws DISK_SPACE when the file system of `dir` has less than `neededBytes` free. */
export async function requireFreeSpace(dir: string, neededBytes: number, forWhat: string): Promise<void> {
  const stat = await fs.statfs(dir);
  const freeBytes = stat.bavail * stat.bsize;
  if (freeBytes < neededBytes) {
    throw new PortError(
      'DISK_SPACE',
      `${forWhat} needs ${formatBytes(neededBytes)} in ${dir}, ${formatBytes(freeBytes)} are free`,
      { hint: 'free some space or choose another folder with --job' },
    );
  }
}
