/** Blocks read in the order they are wanted, several at once, so that disk, sums and the receiver work together. */
import { webcrypto } from 'node:crypto';
import { BLOCK_BYTES, type BlockAnswer, type ByteRange, type WantedBlock } from '../../core/disk-source.ts';
import { PortError } from '../../core/errors.ts';
import { isZero, zeroSum } from '../disk-copy/zeros.ts';

/**
 * Fills `target` with what stands at `offset` of the disk; returns what could not be read (zeros in `target`), as
 * offsets in `target`.
 */
export type PartReader = (offset: number, target: Buffer) => Promise<ByteRange[]>;

/** Blocks read at the same time: with the one the receiver holds 20 MiB, and as many again where sums are made. */
const DEPTH = 4;

async function readBlock(read: PartReader, wanted: WantedBlock, buffer: Buffer): Promise<BlockAnswer> {
  const { index, known } = wanted;
  const data = buffer.subarray(0, wanted.lengthBytes);
  const bad: ByteRange[] = [];
  let filled = 0;
  for (const { startBytes, lengthBytes } of wanted.parts) {
    data.fill(0, filled, startBytes);
    filled = startBytes + lengthBytes;
    const found = await read(index * BLOCK_BYTES + startBytes, data.subarray(startBytes, filled));
    bad.push(...found.map((r) => ({ ...r, startBytes: r.startBytes + startBytes })));
  }
  data.fill(0, filled);
  const nothing = { index, bad, sentBytes: 0, wireBytes: 0 };
  if (isZero(data)) return { ...nothing, kind: 'zero', sha256: zeroSum(data.length) };
  // summed by a thread of the pool: this one copies and writes meanwhile
  const sha256 = Buffer.from(await webcrypto.subtle.digest('SHA-256', data as Buffer<ArrayBuffer>));
  if (known?.equals(sha256)) return { ...nothing, kind: 'same', sha256 };
  return { ...nothing, kind: 'data', data, sha256, sentBytes: data.length, wireBytes: data.length };
}

/** Answers the wanted blocks in their order. Throws what `read` throws, and INTERRUPTED. */
export async function* readInOrder(
  read: PartReader,
  wanted: Iterable<WantedBlock> | AsyncIterable<WantedBlock>,
  signal?: AbortSignal,
): AsyncGenerator<BlockAnswer> {
  const iterator =
    Symbol.asyncIterator in wanted ? wanted[Symbol.asyncIterator]() : wanted[Symbol.iterator]();
  const free: Buffer[] = [];
  const reading: { answer: Promise<BlockAnswer>; buffer: Buffer }[] = [];
  let asking: Promise<IteratorResult<WantedBlock>> | undefined;
  let ended = false;
  try {
    while (!ended || reading.length > 0) {
      if (signal?.aborted) throw new PortError('INTERRUPTED', 'reading the disk stopped');
      if (!ended && reading.length < DEPTH) {
        asking ??= Promise.resolve(iterator.next());
        // who wants may take its time (a rate limit); what is read must not wait for it
        const next = await Promise.race([asking, reading[0]?.answer.then(() => undefined) ?? asking]);
        if (next !== undefined) {
          asking = undefined;
          if (next.done === true) ended = true;
          else {
            const buffer = free.pop() ?? Buffer.allocUnsafeSlow(BLOCK_BYTES);
            const answer = readBlock(read, next.value, buffer);
            answer.catch(() => {}); // seen when its turn comes
            reading.push({ answer, buffer });
          }
          continue;
        }
      }
      const first = reading.shift();
      if (first === undefined) continue;
      yield await first.answer;
      free.push(first.buffer);
    }
  } finally {
    asking?.catch(() => {});
    void Promise.resolve(iterator.return?.()).catch(() => {});
    await Promise.allSettled(reading.map((r) => r.answer));
  }
}
