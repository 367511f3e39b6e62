/** A disk that this machine sees as a file or block device, read in blocks. */
import type { BlockAnswer, ByteRange, DiskSource, WantedBlock } from '../../core/disk-source.ts';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { type OpenedSource, openSource } from '../image-format/open.ts';
import * as qemuImg from '../qemu-img.ts';
import { readAround, type SectorReader } from './bad-sectors.ts';
import { readInOrder } from './read-ahead.ts';

/** How to open a file as a disk. */
export interface FileSourceOptions {
  /** Printable, for messages; by default the path. */
  name?: string | undefined;
  signal?: AbortSignal | undefined;
}

const READ_BYTES = 1024 * 1024;

/** Whether the device is still there: one that was pulled out answers every read as if its sectors were bad. */
async function isThere(opened: OpenedSource): Promise<boolean> {
  const again = await openSource(opened.path).catch(() => undefined);
  await again?.close();
  return again?.sizeBytes === opened.sizeBytes;
}

/** Reads through `opened`; what a disk cannot read is told apart from a disk that is gone. */
function sectorReader(opened: OpenedSource, name: string): SectorReader {
  return {
    async read(offset, target) {
      for (let filled = 0; filled < target.length; ) {
        const length = Math.min(READ_BYTES, target.length - filled);
        const { bytesRead } = await opened.handle.read(target, filled, length, offset + filled);
        if (bytesRead === 0)
          throw new PortError('SOURCE_CHANGED', `${name} became shorter while it was read`);
        filled += bytesRead;
      }
    },
    isUnreadable: (error) => (error as NodeJS.ErrnoException).code === 'EIO',
  };
}

function sourceError(error: unknown, name: string): unknown {
  const { code, message } = error as NodeJS.ErrnoException;
  if (error instanceof PortError || code === undefined) return error;
  return new PortError('SOURCE_REMOTE', `${name} cannot be read: ${printable(message)}`, {
    cause: error,
    temporary: code !== 'EACCES' && code !== 'EPERM',
    hint: 'is the disk still attached?',
  });
}

/**
 * Opens a regular file with raw content, or a block device, read-only. A device must not be in use by this machine:
 * then the kernel keeps no bytes of it from one opening to the next (the last close drops its cache), so each pass
 * reads what is there now, and readahead is for free. The content of a mounted file system can be newer than what its
 * device shows.
 * Throws what `openSource` throws.
 */
export async function openFileSource(file: string, options: FileSourceOptions = {}): Promise<DiskSource> {
  const opened = await openSource(file);
  const name = options.name ?? opened.name;
  const reader = sectorReader(opened, name);
  const readPart = async (offset: number, target: Buffer): Promise<ByteRange[]> => {
    try {
      const bad = await readAround(reader, offset, target);
      if (bad.length === 0 || (await isThere(opened))) return bad;
    } catch (error) {
      throw sourceError(error, name);
    }
    throw new PortError('SOURCE_REMOTE', `${name} is gone`, {
      temporary: true,
      hint: 'attach the disk again',
    });
  };
  return {
    name,
    sizeBytes: opened.sizeBytes,
    async read(offset, length): Promise<Buffer> {
      const target = Buffer.alloc(Math.max(0, Math.min(length, opened.sizeBytes - offset)));
      const [bad] = await readPart(offset, target);
      if (bad === undefined) return target;
      throw new PortError('BAD_SECTORS', `${name} cannot be read at byte ${offset + bad.startBytes}`, {
        hint: 'copy the disk with ddrescue, then capture the copy',
      });
    },
    async dataRanges(): Promise<ByteRange[]> {
      const extents = await qemuImg.map({ path: opened.path, format: 'raw' }, { signal: options.signal });
      return extents
        .filter((e) => e.data)
        .map(({ startBytes, lengthBytes }) => ({ startBytes, lengthBytes }));
    },
    readBlocks(
      wanted: Iterable<WantedBlock> | AsyncIterable<WantedBlock>,
      signal?: AbortSignal,
    ): AsyncGenerator<BlockAnswer> {
      return readInOrder(readPart, wanted, signal);
    },
    async close(): Promise<void> {
      await opened.close().catch(() => {}); // nothing was written that could be lost
    },
  };
}
