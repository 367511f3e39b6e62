/** The content of a packed disk as a stream: opened again, proven unchanged since the plan, checked against the manifest. */
import { createHash, type Hash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { type OpenedSource, openSource } from '../image-format/open.ts';
import type { ByteSource } from '../image-format/reader.ts';
import { map } from '../qemu-img.ts';
import { partOf, readRange } from './byte-stream.ts';
import { decompress } from './decompress.ts';
import { openBeside } from './sibling.ts';
import type { Content } from './sparse-file.ts';
import type { DiskExtent, PackedDisk, PackedPlan } from './types.ts';
import { inspectPiece, pieceContent } from './vmdk-content.ts';

/** What a file was when it was planned. */
interface Known {
  sizeBytes: number;
  modifiedMs: number;
}

function requireSame(name: string, now: Known, planned: Known): void {
  if (now.sizeBytes === planned.sizeBytes && now.modifiedMs === planned.modifiedMs) return;
  throw new PortError('SOURCE_CHANGED', `${name} changed since it was looked at`, {
    hint: 'start again when nothing writes to it',
  });
}

/** Opens a file again, and yields from it; the file must be what it was, before and after. */
async function* reading(
  open: () => Promise<OpenedSource | undefined>,
  name: string,
  planned: Known,
  read: (source: OpenedSource) => AsyncIterable<Content>,
): AsyncGenerator<Content> {
  const source = await open();
  if (source === undefined) {
    throw new PortError('SOURCE_CHANGED', `${name} is gone`, { hint: 'start again' });
  }
  try {
    requireSame(name, source, planned);
    yield* read(source);
    const { size, mtimeMs } = await fs.stat(source.path);
    requireSame(name, { sizeBytes: size, modifiedMs: mtimeMs }, planned);
  } finally {
    await source.close();
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

/** Content of a disk that is one run of bytes; its digests are checked before the stream ends. */
async function* runContent(
  disk: PackedDisk,
  part: ByteSource,
  onRead: (doneBytes: number) => void,
  signal: AbortSignal | undefined,
): AsyncGenerator<Content> {
  const hashes = disk.digests.map(({ algorithm }) => createHash(algorithm));
  const source = hashing(part, hashes, onRead);
  if (disk.compression === undefined) yield* readRange(source, 0, source.sizeBytes, signal);
  else yield* decompress(source, disk.compression, signal);
  for (const [i, { algorithm, hex }] of disk.digests.entries()) {
    if (hashes[i]?.digest('hex') === hex) continue;
    const name = printable(disk.name);
    throw new PortError('DAMAGED', `${name} is damaged: it has not the ${algorithm} its manifest says`, {
      hint: 'copy or export the machine again',
    });
  }
}

/** A flat file without reading its holes: thin disks have more of them than of anything else. */
async function* flatContent(source: OpenedSource, signal: AbortSignal | undefined): AsyncGenerator<Content> {
  for (const { startBytes, lengthBytes, data } of await map(
    { path: source.path, format: 'raw' },
    { signal },
  )) {
    const length = Math.min(lengthBytes, source.sizeBytes - startBytes);
    if (data) yield* readRange(source, startBytes, length, signal);
    else yield { zeroBytes: length };
  }
}

function extentContent(
  extent: DiskExtent,
  owner: string,
  signal: AbortSignal | undefined,
): AsyncIterable<Content> {
  if (extent.kind === 'zero') {
    return (async function* () {
      yield { zeroBytes: extent.sizeBytes };
    })();
  }
  const open = () => openBeside(path.dirname(extent.path), path.basename(extent.path), owner);
  const planned = { sizeBytes: extent.fileBytes, modifiedMs: extent.modifiedMs };
  return reading(open, printable(extent.path), planned, async function* (source) {
    if (extent.kind === 'flat') yield* flatContent(source, signal);
    else yield* pieceContent(source, await inspectPiece(source, extent.sizeBytes / 512), signal);
  });
}

/**
 * Content of a disk of the plan. `onRead` is told the bytes of the package that were read for it, of `origin.sizeBytes`. Throws
 * DAMAGED, SOURCE_CHANGED, UNSAFE_PATH, INTERRUPTED and what decompression throws.
 */
export async function* diskContent(
  plan: PackedPlan,
  disk: PackedDisk,
  onRead: (doneBytes: number) => void,
  signal?: AbortSignal,
): AsyncGenerator<Content> {
  const { origin } = disk;
  const owner = printable(plan.path);
  if (origin.kind === 'extents') {
    let doneBytes = 0;
    for (const extent of origin.extents) {
      for await (const piece of extentContent(extent, owner, signal)) {
        yield piece;
        doneBytes += Buffer.isBuffer(piece) ? piece.length : piece.zeroBytes;
        onRead(doneBytes);
      }
    }
    if (doneBytes !== origin.sizeBytes) {
      throw new PortError('BUG', `${owner} came out with ${doneBytes} of ${origin.sizeBytes} bytes`);
    }
    return;
  }
  if (origin.kind === 'member') {
    const name = plan.machine === undefined ? owner : printable(disk.name);
    yield* reading(
      () => openSource(plan.path),
      owner,
      plan,
      (source) =>
        runContent(disk, partOf(source, name, origin.offsetBytes, origin.sizeBytes), onRead, signal),
    );
    return;
  }
  const open = () => openBeside(path.dirname(origin.path), path.basename(origin.path), owner);
  yield* reading(open, printable(disk.name), origin, (source) => runContent(disk, source, onRead, signal));
}
