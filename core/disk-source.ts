/**
 * A disk that is somewhere else, or in use: read block by block, in passes. Capture copies it into the job; what stands
 * behind it (a helper over ssh, an NBD server, a local device) does not show.
 */

/** Bytes of a block: what is summed, compared, sent and recorded as one (the last block of a disk may be shorter). */
export const BLOCK_BYTES = 4 * 1024 * 1024;

/** A run of bytes. */
export interface ByteRange {
  startBytes: number;
  lengthBytes: number;
}

/** A block somebody wants. */
export interface WantedBlock {
  /** Number of the block on the disk: its offset divided by BLOCK_BYTES. */
  index: number;
  /** Bytes of the block: BLOCK_BYTES, less for the last one of the disk. */
  lengthBytes: number;
  /**
   * What to read of it: ascending, not touching, offsets from the start of the block, multiples of 512. The rest counts as
   * zeros: nothing is stored there. Not empty.
   */
  parts: readonly ByteRange[];
  /** sha256 of the content the receiver has already; equal content is answered as `same` and not sent. */
  known?: Buffer | undefined;
}

/** A block as it was read. */
export interface BlockAnswer {
  index: number;
  /** `zero`: the whole block reads as zeros. `same`: equal to `known`. */
  kind: 'data' | 'zero' | 'same';
  /** The whole block, what was not wanted as zeros; only for `data`. Valid until the next answer is asked for. */
  data?: Buffer;
  /** sha256 of the whole block (unwanted and unreadable parts as zeros), made at the source. */
  sha256: Buffer;
  /** Parts that could not be read after retries, offsets from the start of the block; zeros in `data`. */
  bad: readonly ByteRange[];
  /** Content bytes sent for it, before compression; 0 for `zero` and `same`. */
  sentBytes: number;
  /** Bytes that travelled for it, after compression and with framing. */
  wireBytes: number;
}

/** A disk to capture. */
export interface DiskSource {
  /** Printable, for messages: `/dev/sda on shop01`. */
  readonly name: string;
  readonly sizeBytes: number;
  /**
   * Bytes as they are on the disk now, never from a stale cache; fewer than asked only at the end of the disk. For metadata: a few MiB at
   * most in one call. Throws SOURCE_REMOTE (temporary when trying again may heal it), BAD_SECTORS, INTERRUPTED.
   */
  read(offset: number, length: number): Promise<Buffer>;
  /** Runs that may hold data as the transport knows them (holes of a file, NBD allocation); absent when it knows nothing. */
  dataRanges?(): Promise<ByteRange[]>;
  /**
   * Reads blocks in the order they are asked for; reads ahead, so that disk, network and receiver work together. Memory stays
   * below 64 MiB. Each block is summed where it is read and checked again where it arrives. Throws as `read`; unreadable
   * sectors are no error here, they are told as `bad`.
   */
  readBlocks(
    wanted: Iterable<WantedBlock> | AsyncIterable<WantedBlock>,
    signal?: AbortSignal,
  ): AsyncGenerator<BlockAnswer>;
  close(): Promise<void>;
}
