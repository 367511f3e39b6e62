/** Writing the disks of a package into a folder of ours, under our names. */
import { createHash, type Hash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { asPortError, PortError } from '../../core/errors.ts';
import { exists, sha256File, writeJson } from '../../core/files.ts';
import { GIB } from '../../core/sizes.ts';
import { printable } from '../../core/text.ts';
import { type OpenedSource, openSource } from '../image-format/open.ts';
import type { ByteSource } from '../image-format/reader.ts';
import { partOf, readRange } from './byte-stream.ts';
import { decompress } from './decompress.ts';
import { openBeside } from './sibling.ts';
import { type WrittenFile, writeSparse } from './sparse-file.ts';
import type { PackedDisk, PackedPlan, UnpackedDisk, UnpackLimits } from './types.ts';

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

function changed(plan: PackedPlan): PortError {
  return new PortError('SOURCE_CHANGED', `${printable(plan.path)} changed since it was looked at`, {
    hint: 'start again when nothing writes to it',
  });
}

function requireSame(plan: PackedPlan, source: OpenedSource, sizeBytes: number, modifiedMs: number): void {
  if (source.sizeBytes !== sizeBytes || source.modifiedMs !== modifiedMs) throw changed(plan);
}

/** The file that holds the disk's bytes; the caller closes it. */
async function openOrigin(plan: PackedPlan, disk: PackedDisk): Promise<[OpenedSource, ByteSource]> {
  const { origin } = disk;
  const isMember = origin.kind === 'member';
  const opened = isMember
    ? await openSource(plan.path)
    : await openBeside(path.dirname(origin.path), path.basename(origin.path), printable(plan.path));
  if (opened === undefined) throw changed(plan);
  try {
    const [size, time] = isMember ? [plan.sizeBytes, plan.modifiedMs] : [origin.sizeBytes, origin.modifiedMs];
    requireSame(plan, opened, size, time);
    const name = plan.machine === undefined ? opened.name : printable(disk.name);
    return [opened, partOf(opened, name, isMember ? origin.offsetBytes : 0, origin.sizeBytes)];
  } catch (error) {
    await opened.close();
    throw error;
  }
}

/** A source that hashes what is read of it from start to end, in the same pass. */
function hashing(
  source: ByteSource,
  hashes: readonly Hash[],
  onRead: (doneBytes: number) => void,
): ByteSource {
  let seen = 0;
  return {
    ...source,
    async read(offset, length) {
      const data = await source.read(offset, length);
      if (offset <= seen && offset + data.length > seen) {
        for (const hash of hashes) hash.update(data.subarray(seen - offset));
        seen = offset + data.length;
        onRead(seen);
      }
      return data;
    },
  };
}

function tooLong(disk: PackedDisk, limitBytes: number): PortError {
  return new PortError(
    'UNSAFE_IMAGE',
    `${printable(disk.name)} is refused: its content is longer than ${limitBytes} bytes, ${
      disk.declaredBytes === limitBytes ? 'as it says itself' : 'the limit'
    }`,
    { hint: 'copy or compress the image again' },
  );
}

async function unpackOne(
  plan: PackedPlan,
  disk: PackedDisk,
  target: string,
  options: UnpackOptions,
): Promise<WrittenFile> {
  const { signal, onProgress, limits } = options;
  const [opened, part] = await openOrigin(plan, disk);
  try {
    const hashes = disk.digests.map(({ algorithm }) => createHash(algorithm));
    const source = hashing(part, hashes, (doneBytes) =>
      onProgress?.({ id: disk.id, doneBytes, totalBytes: part.sizeBytes }),
    );
    const maxBytes = Math.min(limits?.maxBytes ?? DEFAULT_MAX_BYTES, disk.declaredBytes ?? DEFAULT_MAX_BYTES);
    const content = async function* (): AsyncGenerator<Buffer> {
      if (disk.compression === undefined) yield* readRange(source, 0, source.sizeBytes, signal);
      else yield* decompress(source, disk.compression, signal);
      // before the file gets its name
      for (const [i, { algorithm, hex }] of disk.digests.entries()) {
        if (hashes[i]?.digest('hex') === hex) continue;
        throw new PortError(
          'DAMAGED',
          `${printable(disk.name)} is damaged: it has not the ${algorithm} its manifest says`,
          {
            hint: 'copy or export the machine again',
          },
        );
      }
      const stat = await fs.stat(opened.path);
      requireSame(plan, opened, stat.size, stat.mtimeMs);
    };
    return await writeSparse(target, content(), {
      reserveBytes: limits?.reserveBytes ?? DEFAULT_RESERVE_BYTES,
      maxBytes,
      tooLong: () => tooLong(disk, maxBytes),
      signal,
    });
  } finally {
    await opened.close();
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
  const { sha256, sizeBytes } = done;
  if (done.from !== from || sha256 === undefined || sizeBytes === undefined) return undefined;
  if ((await fs.stat(target)).size !== sizeBytes || (await sha256File(target, signal)) !== sha256)
    return undefined;
  return { sha256, sizeBytes };
}

/**
 * Writes every disk of the plan into `folder` (existing, private): `disk0`, `disk1` and beside each a record `disk0.json`. What an
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
      const record = `${target}.json`;
      const from = JSON.stringify([plan.path, plan.sizeBytes, plan.modifiedMs, disk]);
      const before = await doneBefore(target, record, from, options.signal);
      if (before === undefined) await fs.rm(record, { force: true });
      const file = before ?? (await unpackOne(plan, disk, target, options));
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
