/**
 * One qcow2 file over stored blocks: a head of tables, then parts of packs as they lie in the store. The order of clusters in the file is
 * free, so packs go in whole; blocks in them that this image does not need are simply not referred to.
 */
import { createHash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { PortError } from '../../core/errors.ts';
import { MIB } from '../../core/sizes.ts';
import { BLOCK_BYTES, type BlockIndex } from '../../core/sync/block-index.ts';
import { readBlock } from './index-disk.ts';
import { packBlock, type StoredBlock, storedBytes, unpackBlock } from './pack.ts';
import { headOf, layoutOf } from './qcow2-head.ts';
import type { BlockTable } from './table.ts';

/** Swift reads at most one part under 1 MiB per second after the tenth (slo.py, rate_limit_under_size), so parts are not made smaller. */
export const LEAST_PART_BYTES = MIB;

/** A piece of the file: bytes made here, or a range of a pack. */
export type ComposedPart =
  | { kind: 'bytes'; bytes: Buffer }
  | { kind: 'pack'; pack: string; offset: number; length: number };

/** A file, described. */
export interface Composed {
  parts: ComposedPart[];
  totalBytes: number;
  /** Bytes of packs in it that the image does not need. */
  deadBytes: number;
  /** Bytes of packs in it that it does. */
  liveBytes: number;
  virtualBytes: number;
}

interface PackRange {
  pack: string;
  offset: number;
  length: number;
}

/**
 * Parts of a pack that hold live blocks; gaps of 1 MiB and more are left out. A short part takes dead neighbours along, so that only
 * a pack that is short itself makes a short part.
 */
function rangesOf(blocks: readonly StoredBlock[], isLive: (block: StoredBlock) => boolean): PackRange[] {
  const startAt = (at: number): number => blocks[at]?.offset ?? 0;
  const endAt = (at: number): number => {
    const block = blocks[at];
    return block === undefined ? 0 : block.offset + storedBytes(block);
  };
  let runs: { first: number; last: number }[] = [];
  const join = (first: number, last: number): void => {
    const before = runs.at(-1);
    if (before !== undefined && startAt(first) - endAt(before.last) < LEAST_PART_BYTES)
      before.last = Math.max(before.last, last);
    else runs.push({ first, last });
  };
  for (const [at, block] of blocks.entries()) if (isLive(block)) join(at, at);
  const live = runs;
  runs = [];
  for (let { first, last } of live) {
    while (endAt(last) - startAt(first) < LEAST_PART_BYTES && last + 1 < blocks.length) last++;
    while (endAt(last) - startAt(first) < LEAST_PART_BYTES && first > 0) first--;
    join(first, last);
  }
  const pack = blocks[0]?.pack ?? '';
  return runs.map(({ first, last }) => ({
    pack,
    offset: startAt(first),
    length: endAt(last) - startAt(first),
  }));
}

/** Describes the file. Throws BUG when a block of the disk is not in the table. */
export function compose(index: BlockIndex, table: BlockTable): Composed {
  // 16 bits are what everything writes and reads; a block that is on the disk thousands of times needs more.
  const composed = composeWith(index, table, 2) ?? composeWith(index, table, 4);
  if (composed === undefined) throw new PortError('BUG', 'too many clusters in one');
  return composed;
}

function composeWith(index: BlockIndex, table: BlockTable, refcountBytes: 2 | 4): Composed | undefined {
  const { virtualBytes } = index;
  const live = new Map<string, StoredBlock>();
  for (let at = 0; at < index.count; at++) {
    const digest = index.digestAt(at);
    const stored = table.find(digest);
    if (stored === undefined) throw new PortError('BUG', 'a block of the disk was not stored');
    live.set(digest, stored);
  }
  const used = new Set([...live.values()].map((block) => block.pack));
  const ranges: PackRange[] = [];
  for (const [pack, blocks] of table.packs()) {
    if (used.has(pack)) ranges.push(...rangesOf(blocks, (block) => live.get(block.digest) === block));
  }
  const packBytes = ranges.reduce((sum, range) => sum + range.length, 0);
  const liveBytes = [...live.values()].reduce((sum, block) => sum + storedBytes(block), 0);
  const layout = layoutOf(index, packBytes, refcountBytes);
  const starts = new Map<string, { range: PackRange; hostBytes: number }[]>();
  let host = layout.headBytes;
  for (const range of ranges) {
    const list = starts.get(range.pack) ?? [];
    starts.set(range.pack, list);
    list.push({ range, hostBytes: host });
    host += range.length;
  }
  const hostOf = ({ pack, offset }: StoredBlock): number => {
    const found = starts
      .get(pack)
      ?.find(({ range }) => offset >= range.offset && offset < range.offset + range.length);
    // A block whose clusters are all zeros has no bytes, and no place.
    return found === undefined ? 0 : found.hostBytes + offset - found.range.offset;
  };
  const head = headOf(index, layout, (digest) => {
    const stored = live.get(digest);
    if (stored === undefined) throw new PortError('BUG', 'a block of the disk was not stored');
    return { hostBytes: hostOf(stored), lengths: stored.lengths };
  });
  if (head === undefined) return undefined;
  const tail = layout.totalBytes - host;
  const parts: ComposedPart[] = [{ kind: 'bytes', bytes: head }];
  for (const range of ranges) if (range.length > 0) parts.push({ kind: 'pack', ...range });
  if (tail > 0) parts.push({ kind: 'bytes', bytes: Buffer.alloc(tail) });
  return { parts, totalBytes: layout.totalBytes, deadBytes: packBytes - liveBytes, liveBytes, virtualBytes };
}

/** What the composed file is, byte by byte. */
export interface ComposedDigests {
  sha512: string;
  sha256: string;
  bytes: number;
  /** Bytes that had to be asked from the store. */
  fetchedBytes: number;
}

/** Where the bytes of a composed file come from. */
export interface ComposedReader {
  /** The disk as a plain file. */
  handle: FileHandle;
  index: BlockIndex;
  table: BlockTable;
  /** Bytes of a pack as the store has them: blocks this disk has no more, or that another zstd packed. Throws as the store does. */
  fetch: (pack: string, offset: number, length: number) => Promise<Buffer>;
  signal?: AbortSignal | undefined;
}

/**
 * The file as a stream: blocks are read from the disk here and packed again, what differs from the store or is not here is fetched and
 * compared with its digest. Throws DAMAGED when the store gives something else.
 */
export async function* composedStream(
  { parts }: Pick<Composed, 'parts'>,
  reader: ComposedReader,
  onFetched?: (bytes: number) => void,
): AsyncGenerator<Buffer> {
  const { handle, index, table, fetch, signal } = reader;
  const numbers = new Map<string, number>();
  for (let at = 0; at < index.count; at++) numbers.set(index.digestAt(at), index.numbers[at] ?? 0);
  const buffer = Buffer.allocUnsafeSlow(BLOCK_BYTES);
  for (const part of parts) {
    if (part.kind === 'bytes') {
      yield part.bytes;
      continue;
    }
    for (const block of table.packs().get(part.pack) ?? []) {
      if (signal?.aborted) throw new PortError('INTERRUPTED', 'interrupted');
      const length = storedBytes(block);
      if (length === 0 || block.offset < part.offset || block.offset >= part.offset + part.length) continue;
      const number = numbers.get(block.digest);
      if (number !== undefined) {
        const { bytes, lengths } = await packBlock(
          await readBlock(handle, number, buffer, index.virtualBytes),
        );
        // The lengths are what the image's tables were made of.
        if (hex(bytes) === block.sha256 && lengths.every((n, at) => n === block.lengths[at])) {
          yield bytes;
          continue;
        }
      }
      const bytes = await fetch(block.pack, block.offset, length);
      if (bytes.length !== length || hex(bytes) !== block.sha256)
        throw new PortError('DAMAGED', `pack ${block.pack} is not what was stored`, {
          hint: 'remove it from the store; its blocks are sent again',
        });
      // Nothing here says what a dead block was; a live one must unpack to what the disk holds, frame by frame.
      if (number !== undefined) unpackBlock(bytes, block);
      onFetched?.(length);
      yield bytes;
    }
  }
}

/** Digests the cloud must find when it reads the composed file. Throws as composedStream. */
export async function composedDigests(
  composed: Pick<Composed, 'parts'>,
  reader: ComposedReader,
): Promise<ComposedDigests> {
  const sha512 = createHash('sha512');
  const sha256 = createHash('sha256');
  let bytes = 0;
  let fetchedBytes = 0;
  for await (const chunk of composedStream(composed, reader, (n) => {
    fetchedBytes += n;
  })) {
    sha512.update(chunk);
    sha256.update(chunk);
    bytes += chunk.length;
  }
  return { sha512: sha512.digest('hex'), sha256: sha256.digest('hex'), bytes, fetchedBytes };
}

function hex(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}
