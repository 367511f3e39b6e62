/** Digests of files that are read once and remembered while the file stays the very same. */
import type { BigIntStats } from 'node:fs';
import * as fs from 'node:fs/promises';
import { asPortError, PortError } from '../../../core/errors.ts';
import { sha256File } from '../../../core/files.ts';
import { printable } from '../../../core/text.ts';

/** A memory of digests; it may be lost, then files are read again. */
export interface DigestCache {
  get(key: string): string | undefined;
  set(key: string, value: string): void;
}

/** A file changed so short before it was read may change again without its times telling: clocks of file systems tick slowly. */
const SETTLED_MS = 2000;

/** Everything that tells one state of a file from another without reading it. */
export interface FileState {
  path: string;
  bytes: number;
  modifiedMs: number;
  /** The same key, the same content. */
  key: string;
  /** False while the times cannot tell yet. */
  settled: boolean;
}

/** State of a regular file. Throws HOST_IO when it is gone, NOT_A_DISK when it is no regular file. */
export async function fileState(file: string): Promise<FileState> {
  let stat: BigIntStats;
  try {
    stat = await fs.lstat(file, { bigint: true });
  } catch (error) {
    throw asPortError(error);
  }
  if (!stat.isFile()) {
    const what = stat.isSymbolicLink() ? 'a link' : 'no regular file';
    throw new PortError('NOT_A_DISK', `${printable(file)} is ${what}`, {
      hint: 'put the image itself there: what a link points to may be somebody else’s',
    });
  }
  const newest = Math.max(Number(stat.mtimeMs), Number(stat.ctimeMs));
  return {
    path: file,
    bytes: Number(stat.size),
    modifiedMs: Number(stat.mtimeMs),
    key: JSON.stringify([
      'file/1',
      file,
      ...[stat.size, stat.mtimeNs, stat.ctimeNs, stat.ino, stat.dev].map(String),
    ]),
    settled: Date.now() - newest > SETTLED_MS,
  };
}

/** `sha256:HEX` of a file in this state, from memory or by reading it. Throws SOURCE_CHANGED when it changes meanwhile. */
export async function fileDigest(
  state: FileState,
  digests: DigestCache,
  signal: AbortSignal,
  onProgress?: (doneBytes: number) => void,
): Promise<string> {
  const known = digests.get(state.key);
  if (known !== undefined && /^sha256:[0-9a-f]{64}$/.test(known)) return known;
  let digest: string;
  try {
    digest = `sha256:${await sha256File(state.path, signal, onProgress)}`;
  } catch (error) {
    if (signal.aborted) throw new PortError('INTERRUPTED', 'interrupted', { cause: error });
    throw asPortError(error);
  }
  if ((await fileState(state.path)).key !== state.key) throw changed(state.path);
  if (state.settled) digests.set(state.key, digest);
  return digest;
}

/** Whether the file has this digest still; without reading it when nothing speaks against it. Throws SOURCE_CHANGED. */
export async function requireUnchanged(
  file: string,
  expected: string | undefined,
  digests: DigestCache,
  signal: AbortSignal,
): Promise<void> {
  const state = await fileState(file).catch((cause: unknown) => {
    throw new PortError('SOURCE_CHANGED', `${printable(file)} is gone or something else now`, { cause });
  });
  if ((await fileDigest(state, digests, signal)) !== expected) throw changed(file);
}

function changed(file: string): PortError {
  return new PortError('SOURCE_CHANGED', `${printable(file)} changed while it was in use`, {
    hint: 'the next run takes it as it is then; write images under another name and rename them',
  });
}
