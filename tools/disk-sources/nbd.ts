/**
 * A disk behind an NBD server, read by our own client: only the protocol tells an unreadable sector from a server
 * that went away; through a file of qemu's or the kernel's, both are EIO, and a server that dies would look like a
 * disk full of bad sectors.
 */
import type { BlockAnswer, ByteRange, DiskSource, WantedBlock } from '../../core/disk-source.ts';
import { PortError } from '../../core/errors.ts';
import type { Source } from '../../core/source.ts';
import { printable } from '../../core/text.ts';
import { readAround } from './bad-sectors.ts';
import { NbdClient, UnreadableSectors } from './nbd-client.ts';
import { nonsense } from './nbd-handshake.ts';
import { readInOrder } from './read-ahead.ts';

/** Largest request we send: a block. */
const READ_BYTES = 4 * 1024 * 1024;
/** How much one question about what is stored covers; a multiple of every block size. */
const STATUS_BYTES = 1024 * 1024 * 1024;
/** Runs one disk may have; half a gigabyte of them is an attack. */
const MOST_RUNS = 10_000_000;

/** Reads what lies around when the server only reads larger pieces. */
async function readAligned(client: NbdClient, offset: number, target: Buffer): Promise<void> {
  const { minBlockBytes, maxBlockBytes, sizeBytes } = client.about;
  const most = Math.max(
    minBlockBytes,
    Math.floor(Math.min(READ_BYTES, maxBlockBytes) / minBlockBytes) * minBlockBytes,
  );
  for (let done = 0; done < target.length; ) {
    const lead = (offset + done) % minBlockBytes;
    const wanted = Math.min(target.length - done, most - lead);
    const length = Math.ceil((lead + wanted) / minBlockBytes) * minBlockBytes;
    const start = offset + done - lead;
    const fits = lead === 0 && length === wanted;
    const buffer = fits
      ? target.subarray(done, done + wanted)
      : Buffer.alloc(Math.min(length, sizeBytes - start));
    await client.read(start, buffer);
    if (!fits) buffer.copy(target, done, lead, lead + wanted);
    done += wanted;
  }
}

async function storedRanges(client: NbdClient, name: string): Promise<ByteRange[]> {
  const { sizeBytes } = client.about;
  const ranges: ByteRange[] = [];
  let told = 0;
  for (let at = 0; at < sizeBytes; ) {
    const extents = await client.status(at, Math.min(STATUS_BYTES, sizeBytes - at));
    told += extents.length;
    if (told > MOST_RUNS) throw nonsense(name, 'it tells of more runs than a disk has');
    for (const { lengthBytes: told, zero } of extents) {
      const lengthBytes = Math.min(told, sizeBytes - at);
      const last = ranges.at(-1);
      if (zero || lengthBytes === 0) at += lengthBytes;
      else {
        if (last !== undefined && last.startBytes + last.lengthBytes === at) last.lengthBytes += lengthBytes;
        else ranges.push({ startBytes: at, lengthBytes });
        at += lengthBytes;
      }
    }
  }
  return ranges;
}

/**
 * Connects to the export the operator named. It is only read: the client knows no other command.
 * Throws SOURCE_REMOTE (temporary when the server cannot be reached now), EMPTY_DISK, INTERRUPTED.
 */
export async function openNbdSource(
  source: Extract<Source, { kind: 'nbd' }>,
  options: { signal?: AbortSignal | undefined } = {},
): Promise<DiskSource> {
  const name = printable(source.url);
  const { socket, host = '', port = 0, exportName } = source;
  const address = socket === undefined ? { host, port } : { path: socket };
  const client = await NbdClient.connect(address, exportName, name, options.signal);
  const { sizeBytes, allocationId } = client.about;
  if (sizeBytes === 0) {
    client.close();
    throw new PortError('EMPTY_DISK', `${name} is empty: it has no bytes`, {
      hint: 'check the name of the export',
    });
  }
  const reader = {
    read: (offset: number, target: Buffer) => readAligned(client, offset, target),
    isUnreadable: (error: unknown) => error instanceof UnreadableSectors,
  };
  const readPart = (offset: number, target: Buffer) => readAround(reader, offset, target);
  return {
    name,
    sizeBytes,
    async read(offset, length): Promise<Buffer> {
      const target = Buffer.alloc(Math.max(0, Math.min(length, sizeBytes - offset)));
      const [bad] = await readPart(offset, target);
      if (bad === undefined) return target;
      throw new PortError('BAD_SECTORS', `${name} cannot be read at byte ${offset + bad.startBytes}`, {
        hint: 'copy the disk with ddrescue, then capture the copy',
      });
    },
    ...(allocationId === undefined ? {} : { dataRanges: () => storedRanges(client, name) }),
    async *readBlocks(
      wanted: Iterable<WantedBlock> | AsyncIterable<WantedBlock>,
      signal?: AbortSignal,
    ): AsyncGenerator<BlockAnswer> {
      const stop = () => client.close(new PortError('INTERRUPTED', 'reading the disk stopped'));
      signal?.addEventListener('abort', stop);
      try {
        yield* readInOrder(readPart, wanted, signal);
      } finally {
        signal?.removeEventListener('abort', stop);
      }
    },
    async close(): Promise<void> {
      client.close();
    },
  };
}
