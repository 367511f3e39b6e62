/** A snapshot of an EBS volume as a disk, read by the EBS direct API: no volume and no instance is made for it. */
import type { BlockAnswer, ByteRange, DiskSource, WantedBlock } from '../../core/disk-source.ts';
import { PortError } from '../../core/errors.ts';
import type { Source } from '../../core/source.ts';
import { printable } from '../../core/text.ts';
import { readInOrder } from '../disk-sources/read-ahead.ts';
import { EBS_BLOCK_BYTES, EbsApi } from './api.ts';
import { BlockTokens } from './block-tokens.ts';
import { isInvalid, nonsense } from './errors.ts';

/** Blocks kept because only a part of them was wanted: the next part is often wanted soon, and each request costs. */
const KEPT_BLOCKS = 8;
/** Most that one list of the API tells. */
const MOST_LISTED = 10_000;

/** Fills `target` with a block; one that is not listed is zeros. */
async function readBlock(
  api: EbsApi,
  tokens: BlockTokens,
  name: string,
  index: number,
  target: Buffer,
): Promise<void> {
  const token = await tokens.of(index);
  if (token === undefined) {
    target.fill(0);
    return;
  }
  try {
    await api.get(index, token, target);
  } catch (error) {
    // tokens are valid for days only, a capture that waits or is slow may be older
    if (!isInvalid(error)) throw error;
    tokens.forget(index, token);
    const newer = await tokens.of(index);
    // never zeros: it was stored a moment ago, and a snapshot does not change
    if (newer === undefined) throw nonsense(name, `block ${index} is no longer listed`);
    await api.get(index, newer, target);
  }
}

/** Blocks stored in the snapshot, neighbours joined. */
async function storedRanges(api: EbsApi, sizeBytes: number): Promise<ByteRange[]> {
  const ranges: ByteRange[] = [];
  for (let at = 0; at < sizeBytes / EBS_BLOCK_BYTES; ) {
    const list = await api.list(at, MOST_LISTED);
    for (const index of list.tokens.keys()) {
      const startBytes = index * EBS_BLOCK_BYTES;
      const last = ranges.at(-1);
      if (last !== undefined && last.startBytes + last.lengthBytes === startBytes)
        last.lengthBytes += EBS_BLOCK_BYTES;
      else ranges.push({ startBytes, lengthBytes: EBS_BLOCK_BYTES });
    }
    at = list.to;
  }
  return ranges;
}

/** Reads any bytes out of whole blocks, all blocks of one call at the same time. */
function partReader(read: (index: number, target: Buffer) => Promise<void>) {
  const kept = new Map<number, Promise<Buffer>>();
  const whole = (index: number): Promise<Buffer> => {
    const data =
      kept.get(index) ??
      (async () => {
        const buffer = Buffer.allocUnsafeSlow(EBS_BLOCK_BYTES);
        await read(index, buffer);
        return buffer;
      })();
    kept.delete(index);
    kept.set(index, data);
    data.catch(() => kept.get(index) === data && kept.delete(index));
    for (const oldest of kept.keys()) if (kept.size > KEPT_BLOCKS) kept.delete(oldest);
    return data;
  };
  return async (offset: number, target: Buffer): Promise<ByteRange[]> => {
    const reading: Promise<unknown>[] = [];
    for (let at = offset - (offset % EBS_BLOCK_BYTES); at < offset + target.length; at += EBS_BLOCK_BYTES) {
      const index = at / EBS_BLOCK_BYTES;
      const start = at - offset;
      if (start >= 0 && start + EBS_BLOCK_BYTES <= target.length)
        reading.push(read(index, target.subarray(start, start + EBS_BLOCK_BYTES)));
      else
        reading.push(whole(index).then((data) => data.copy(target, Math.max(0, start), Math.max(0, -start))));
    }
    // nobody may write into `target` any more when this is over
    for (const result of await Promise.allSettled(reading))
      if (result.status === 'rejected') throw result.reason;
    return [];
  };
}

/**
 * Opens a snapshot the operator named. It is only read: two questions are asked, for lists of blocks and for blocks.
 * Throws SOURCE_REMOTE (temporary when EBS is busy or cannot be reached now), INTERRUPTED.
 */
export async function openEbsSnapshot(
  source: Extract<Source, { kind: 'ebs' }>,
  options: { signal?: AbortSignal | undefined } = {},
): Promise<DiskSource> {
  const name = printable(`ebs://${source.region}/${source.snapshot}`);
  const api = await EbsApi.create(source.region, source.snapshot, name);
  const interrupt = () => api.close(new PortError('INTERRUPTED', 'reading the snapshot stopped'));
  const close = () => {
    options.signal?.removeEventListener('abort', interrupt);
    api.close(new PortError('SOURCE_REMOTE', `${name} is closed`));
  };
  if (options.signal?.aborted) interrupt();
  options.signal?.addEventListener('abort', interrupt);
  try {
    const tokens = new BlockTokens(api);
    const { sizeBytes } = await tokens.listOf(0);
    const readPart = partReader((index, target) => readBlock(api, tokens, name, index, target));
    return {
      name,
      sizeBytes,
      async read(offset, length): Promise<Buffer> {
        const target = Buffer.alloc(Math.max(0, Math.min(length, sizeBytes - offset)));
        await readPart(offset, target);
        return target;
      },
      dataRanges: () => storedRanges(api, sizeBytes),
      async *readBlocks(
        wanted: Iterable<WantedBlock> | AsyncIterable<WantedBlock>,
        signal?: AbortSignal,
      ): AsyncGenerator<BlockAnswer> {
        signal?.addEventListener('abort', interrupt);
        try {
          yield* readInOrder(readPart, wanted, signal);
        } finally {
          signal?.removeEventListener('abort', interrupt);
        }
      },
      async close(): Promise<void> {
        close();
      },
    };
  } catch (error) {
    close();
    throw error;
  }
}
