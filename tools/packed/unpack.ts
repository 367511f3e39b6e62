/** Writing the disks of a package into a folder of ours, under our names. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { asPortError, PortError } from '../../core/errors.ts';
import { exists, writeJson } from '../../core/files.ts';
import { formatBytes, GIB } from '../../core/sizes.ts';
import { printable } from '../../core/text.ts';
import { sourceDigest } from '../source-digest.ts';
import { diskContent } from './disk-content.ts';
import { type WrittenFile, writeSparse } from './sparse-file.ts';
import type { PackedDisk, PackedPlan, UnpackedDisk, UnpackLimits } from './types.ts';

/** The largest disk there is. */
const DEFAULT_MAX_BYTES = 64 * 1024 ** 4;
const DEFAULT_RESERVE_BYTES = GIB;

/** How to unpack. */
export interface UnpackOptions {
  signal?: AbortSignal | undefined;
  /** Called often: which disk, bytes of the package read for it, and how many there are. */
  onProgress?: ((progress: { id: string; doneBytes: number; totalBytes: number }) => void) | undefined;
  limits?: UnpackLimits | undefined;
}

/** What is kept beside an unpacked disk, to know it again. */
interface DoneRecord extends WrittenFile {
  /** Everything the disk depends on, as one text. */
  from: string;
}

function tooLong(disk: PackedDisk, limitBytes: number): PortError {
  const limit = disk.declaredBytes === limitBytes ? 'as its header says' : 'the limit';
  return new PortError(
    'UNSAFE_IMAGE',
    `${printable(disk.name)} is refused: its content is longer than ${formatBytes(limitBytes)}, ${limit}`,
    { hint: 'copy or compress the image again' },
  );
}

async function writeDisk(
  plan: PackedPlan,
  disk: PackedDisk,
  target: string,
  { signal, onProgress, limits }: UnpackOptions,
): Promise<WrittenFile> {
  const maxBytes = Math.min(limits?.maxBytes ?? DEFAULT_MAX_BYTES, disk.declaredBytes ?? DEFAULT_MAX_BYTES);
  const onRead = (doneBytes: number) =>
    onProgress?.({ id: disk.id, doneBytes, totalBytes: disk.origin.sizeBytes });
  return writeSparse(target, diskContent(plan, disk, onRead, signal), {
    reserveBytes: limits?.reserveBytes ?? DEFAULT_RESERVE_BYTES,
    maxBytes,
    tooLong: () => tooLong(disk, maxBytes),
    signal,
  });
}

/** Removes what a killed run was writing: nobody else writes here, and a disk may be large. */
async function removeHalves(folder: string, disk: PackedDisk): Promise<void> {
  for (const name of await fs.readdir(folder)) {
    // as temporaryName makes them
    if (name.startsWith(`.${disk.id}.`) && name.endsWith('.tmp')) await fs.rm(path.join(folder, name));
  }
}

/** What an earlier run left, when it is whole: made from the same bytes, and its content unchanged. */
async function doneBefore(
  target: string,
  record: string,
  from: string,
  signal?: AbortSignal,
): Promise<WrittenFile | undefined> {
  if (!(await exists(target)) || !(await exists(record))) return undefined;
  let done: Partial<DoneRecord>;
  try {
    done = JSON.parse(await fs.readFile(record, 'utf8')) as Partial<DoneRecord>;
  } catch {
    return undefined; // half a record is none
  }
  const { blocksSha256, sizeBytes } = done;
  if (done.from !== from || blocksSha256 === undefined || sizeBytes === undefined) return undefined;
  if ((await fs.stat(target)).size !== sizeBytes) return undefined;
  const { sha256 } = await sourceDigest(target, { kind: 'blocks', signal });
  return sha256 === blocksSha256 ? { blocksSha256, sizeBytes } : undefined;
}

/**
 * Writes every disk of the plan into `folder` (existing, private): `disk0`, `disk1`, and beside each a record `disk0.json`. What an
 * earlier run completed is not written again. The files are as hostile as the package: the gate looks at them next.
 * Throws DAMAGED (wrong digest, cut), UNSAFE_IMAGE (longer than it says), DISK_SPACE, SOURCE_CHANGED, INTERRUPTED.
 */
export async function unpack(
  plan: PackedPlan,
  folder: string,
  options: UnpackOptions = {},
): Promise<UnpackedDisk[]> {
  const unpacked: UnpackedDisk[] = [];
  try {
    for (const disk of plan.disks) {
      options.signal?.throwIfAborted();
      const target = path.join(path.resolve(folder), disk.id);
      await removeHalves(folder, disk);
      const record = `${target}.json`;
      const from = JSON.stringify([plan.path, plan.sizeBytes, plan.modifiedMs, disk]);
      const before = await doneBefore(target, record, from, options.signal);
      if (before === undefined) await fs.rm(record, { force: true });
      const file = before ?? (await writeDisk(plan, disk, target, options));
      if (before === undefined) await writeJson(record, { from, ...file } satisfies DoneRecord);
      unpacked.push({
        id: disk.id,
        path: target,
        format: disk.format,
        written: before === undefined,
        ...file,
      });
    }
  } catch (error) {
    throw asPortError(error);
  }
  return unpacked;
}
