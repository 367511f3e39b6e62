/**
 * Blocks as they are stored: each in as many zstd frames as it has qcow2 clusters, back to back, so that an image can be composed over
 * them without touching a byte. Packs are blocks in a row, named by their content.
 */
import { createHash } from 'node:crypto';
import { promisify } from 'node:util';
import * as zlib from 'node:zlib';
import { PortError } from '../../core/errors.ts';
import { KIB, MIB } from '../../core/sizes.ts';
import { BLOCK_BYTES } from '../../core/sync/block-index.ts';

/** Cluster of the images that are composed: qemu-img's own default, so reading a little decompresses a little. */
export const CLUSTER_BYTES = 64 * KIB;
/** Frames of a block. */
export const CLUSTERS_PER_BLOCK = BLOCK_BYTES / CLUSTER_BYTES;
/**
 * Packs are about this large: few enough for one manifest of 1000 parts over an image of 16 GiB, small enough that what a cut costs is
 * sent again in a second or two, and below the 64 MiB a small Swift may have as its limit.
 */
export const PACK_BYTES = 16 * MIB;
/** Higher levels save some per cent and cost several times as long; fixed, because the same block must give the same bytes. */
const LEVEL = 3;

const compress = promisify(zlib.zstdCompress);
const ZEROS = Buffer.alloc(CLUSTER_BYTES);

/** A block as it is stored somewhere. */
export interface StoredBlock {
  /** sha256 of its BLOCK_BYTES, hex. */
  digest: string;
  /** sha256 of the pack it is in, hex. */
  pack: string;
  /** Where in the pack, bytes. */
  offset: number;
  /** Bytes of each cluster's frame, in order; 0 for a cluster of zeros, which has none. */
  lengths: readonly number[];
  /** sha256 of the stored bytes, hex. */
  sha256: string;
}

/** Bytes a stored block takes. */
export function storedBytes(block: Pick<StoredBlock, 'lengths'>): number {
  return block.lengths.reduce((sum, length) => sum + length, 0);
}

/** A block in its stored form: the same bytes for the same block, as long as the zstd library stays the same. */
export async function packBlock(block: Buffer): Promise<{ bytes: Buffer; lengths: number[] }> {
  const frames = await Promise.all(
    Array.from({ length: CLUSTERS_PER_BLOCK }, (_, at) => {
      const cluster = block.subarray(at * CLUSTER_BYTES, (at + 1) * CLUSTER_BYTES);
      return cluster.equals(ZEROS)
        ? Buffer.alloc(0)
        : compress(cluster, { params: { [zlib.constants.ZSTD_c_compressionLevel]: LEVEL } });
    }),
  );
  return { bytes: Buffer.concat(frames), lengths: frames.map((frame) => frame.length) };
}

/** The block a stored form stands for. Throws DAMAGED. */
export function unpackBlock(
  bytes: Buffer,
  { lengths, digest }: Pick<StoredBlock, 'lengths' | 'digest'>,
): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES);
  let at = 0;
  try {
    for (const [cluster, length] of lengths.entries()) {
      if (length === 0) continue;
      const frame = bytes.subarray(at, at + length);
      zlib.zstdDecompressSync(frame, { maxOutputLength: CLUSTER_BYTES }).copy(block, cluster * CLUSTER_BYTES);
      at += length;
    }
  } catch (cause) {
    throw new PortError('DAMAGED', 'a stored block cannot be unpacked', { cause });
  }
  if (createHash('sha256').update(block).digest('hex') !== digest)
    throw new PortError('DAMAGED', 'a stored block is not what was stored');
  return block;
}

/** A pack that is ready to be sent. */
export interface Pack {
  /** sha256 of its bytes, hex. */
  id: string;
  bytes: Buffer;
  blocks: StoredBlock[];
}

/**
 * Makes packs of blocks, each digest once, in the order given. `read` gives a block; its buffer may be used again afterwards.
 * Throws SOURCE_CHANGED when a block is not what its digest says.
 */
export async function* packsOf(
  blocks: Iterable<{ digest: string; number: number }>,
  read: (number: number) => Promise<Buffer>,
): AsyncGenerator<Pack> {
  let parts: Buffer[] = [];
  let waiting: Omit<StoredBlock, 'pack'>[] = [];
  let filled = 0;
  const seen = new Set<string>();
  const close = (): Pack => {
    const bytes = Buffer.concat(parts);
    const id = createHash('sha256').update(bytes).digest('hex');
    const pack = { id, bytes, blocks: waiting.map((block) => ({ ...block, pack: id })) };
    parts = [];
    waiting = [];
    filled = 0;
    return pack;
  };
  for (const { digest, number } of blocks) {
    if (seen.has(digest)) continue;
    seen.add(digest);
    const block = await read(number);
    // Other images may count on this block by its digest alone.
    if (createHash('sha256').update(block).digest('hex') !== digest)
      throw new PortError('SOURCE_CHANGED', `the disk changed since it was read, in its block ${number}`);
    const { bytes, lengths } = await packBlock(block);
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    waiting.push({ digest, offset: filled, lengths, sha256 });
    parts.push(bytes);
    filled += bytes.length;
    if (filled >= PACK_BYTES) yield close();
  }
  if (waiting.length > 0) yield close();
}
