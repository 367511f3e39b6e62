/** How the parsers read: windows of a disk, several reads in flight, an end to everything. */
import { PortError } from '../../core/errors.ts';
import type { ByteSource } from '../image-format/reader.ts';

/** Reads in flight: each costs a round trip when the disk is behind ssh. */
const IN_FLIGHT = 8;

/** Metadata that is read at all: this much, and a part of the disk. The densest honest case, btrfs full of 4 KiB files, needs 1/50. */
const BUDGET_BYTES = 64 * 1024 * 1024;
const BUDGET_PART = 32;

/** A stretch of a source as a source of its own. */
export function windowOf(source: ByteSource, startBytes: number, sizeBytes: number): ByteSource {
  const size = Math.max(0, Math.min(sizeBytes, source.sizeBytes - startBytes));
  return {
    name: source.name,
    sizeBytes: size,
    read: async (offset, length) =>
      offset >= size
        ? Buffer.alloc(0)
        : await source.read(startBytes + offset, Math.min(length, size - offset)),
  };
}

/** The source with a signal and a limit on what is read in all. Throws INTERRUPTED; DAMAGED when the limit is reached. */
export function limitedSource(source: ByteSource, signal: AbortSignal | undefined): ByteSource {
  let left = BUDGET_BYTES + source.sizeBytes / BUDGET_PART;
  return {
    name: source.name,
    sizeBytes: source.sizeBytes,
    async read(offset, length) {
      if (signal?.aborted) throw new PortError('INTERRUPTED', 'interrupted', { cause: signal.reason });
      left -= length;
      if (left < 0) throw new PortError('DAMAGED', `${source.name}: its metadata has no end`);
      return await source.read(offset, length);
    },
  };
}

/** Visits all items, several at a time, in order of start. The first failure ends it, after those under way have ended. */
export async function inFlight<T>(items: Iterable<T>, visit: (item: T) => Promise<void>): Promise<void> {
  const next = items[Symbol.iterator]();
  let failed = false;
  const worker = async (): Promise<void> => {
    for (let item = next.next(); !failed && item.done !== true; item = next.next()) {
      try {
        await visit(item.value);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  const results = await Promise.allSettled(Array.from({ length: IN_FLIGHT }, worker));
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}

/** Bytes as a UUID with its dashes. */
export function uuidText(data: Buffer): string {
  const hex = data.toString('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}
