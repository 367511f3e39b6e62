/** The two questions of the EBS direct API that read a snapshot. Nothing but reading is asked here. */
import { createHash } from 'node:crypto';
import type { Readable } from 'node:stream';
import type * as Sdk from '@aws-sdk/client-ebs';
import { PortError } from '../../core/errors.ts';
import { ebsError, nonsense } from './errors.ts';

/** Bytes of a block of a snapshot (EBS direct API); the last one is as long, volumes are whole GiB. */
export const EBS_BLOCK_BYTES = 512 * 1024;
const GIB = 1024 ** 3;
/** Largest EBS volume (io2 Block Express): 64 TiB. */
const MOST_GIB = 64 * 1024;
/** Longest block token of the API. */
const MOST_TOKEN_CHARS = 256;
/** A list may be empty and still not the last one; this many in a row are not from EBS. */
const MOST_EMPTY_LISTS = 100;
/** Requests for one answer; the SDK makes those that follow a failure, after pauses that grow to 20 seconds. */
const MOST_REQUESTS = 6;
const CONNECT_MS = 10_000;
const SILENCE_MS = 60_000;
/** The SDK repeats requests, but no body that broke off or is not what its checksum says. */
const MOST_BODIES = 3;

/** Blocks of a snapshot that lie in one stretch of it. */
export interface BlockList {
  /** First block the list tells about. */
  from: number;
  /** First block it does not tell about. */
  to: number;
  /** Tokens of the blocks that are stored, by number, ascending. */
  tokens: Map<number, string>;
  sizeBytes: number;
}

/** Asks EBS about one snapshot. Throws SOURCE_REMOTE, INTERRUPTED. */
export class EbsApi {
  readonly #sdk: typeof Sdk;
  readonly #client: Sdk.EBSClient;
  readonly #snapshot: string;
  readonly #name: string;
  readonly #stop = new AbortController();

  private constructor(sdk: typeof Sdk, region: string, snapshot: string, name: string) {
    this.#sdk = sdk;
    this.#snapshot = snapshot;
    this.#name = name;
    this.#client = new sdk.EBSClient({
      region,
      maxAttempts: MOST_REQUESTS,
      retryMode: 'standard',
      requestHandler: { connectionTimeout: CONNECT_MS, socketTimeout: SILENCE_MS },
    });
  }

  /** Credentials and endpoint are the SDK's standard ones (environment, profile, role, AWS_ENDPOINT_URL_EBS). */
  static async create(region: string, snapshot: string, name: string): Promise<EbsApi> {
    // not loaded by the many runs that read something else
    return new EbsApi(await import('@aws-sdk/client-ebs'), region, snapshot, name);
  }

  /** Lists at most `most` (100 to 10000) stored blocks, from block `from` on. */
  async list(from: number, most: number): Promise<BlockList> {
    let page: { NextToken?: string } = {};
    for (let asked = 0; asked < MOST_EMPTY_LISTS; asked++) {
      const answer = await this.#ask((abortSignal) =>
        this.#client.send(
          new this.#sdk.ListSnapshotBlocksCommand({
            SnapshotId: this.#snapshot,
            MaxResults: most,
            // a token for the next list is valid for a short time only, a number always
            ...(page.NextToken === undefined ? { StartingBlockIndex: from } : page),
          }),
          { abortSignal },
        ),
      );
      const { Blocks = [], NextToken } = answer;
      if (Blocks.length === 0 && NextToken) page = { NextToken };
      else return this.#listOf(from, most, answer);
    }
    throw nonsense(this.#name, 'its lists of blocks are empty and do not end');
  }

  /** Fills `target`, EBS_BLOCK_BYTES long, with a block; it is what its checksum says. */
  async get(index: number, token: string, target: Buffer): Promise<void> {
    for (let tried = 1; ; tried++) {
      const answer = await this.#ask((abortSignal) =>
        this.#client.send(
          new this.#sdk.GetSnapshotBlockCommand({
            SnapshotId: this.#snapshot,
            BlockIndex: index,
            BlockToken: token,
          }),
          { abortSignal },
        ),
      );
      const trouble = await this.#receive(index, answer, target);
      if (this.#stop.signal.aborted) throw this.#stop.signal.reason;
      if (trouble === undefined) return;
      if (tried >= MOST_BODIES) throw trouble;
    }
  }

  /** Ends what is asked now, and every later question, with the error. */
  close(error: PortError): void {
    this.#stop.abort(error);
    this.#client.destroy();
  }

  async #ask<T>(send: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const { signal } = this.#stop;
    try {
      signal.throwIfAborted();
      return await send(signal);
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      throw ebsError(error, this.#name);
    }
  }

  #listOf(from: number, most: number, answer: Sdk.ListSnapshotBlocksCommandOutput): BlockList {
    const { Blocks = [], NextToken, VolumeSize = 0, BlockSize } = answer;
    if (BlockSize !== EBS_BLOCK_BYTES) throw nonsense(this.#name, 'its blocks are not of 512 KiB');
    if (!Number.isInteger(VolumeSize) || VolumeSize < 1 || VolumeSize > MOST_GIB)
      throw nonsense(this.#name, 'its size is none of a volume');
    const sizeBytes = VolumeSize * GIB;
    const tokens = new Map<number, string>();
    let to = from;
    for (const { BlockIndex: index = -1, BlockToken: token = '' } of Blocks) {
      const fits = Number.isInteger(index) && index >= to && index < sizeBytes / EBS_BLOCK_BYTES;
      if (!fits || token === '' || token.length > MOST_TOKEN_CHARS || tokens.size >= most)
        throw nonsense(this.#name, 'its list of blocks is not in order');
      tokens.set(index, token);
      to = index + 1;
    }
    return { from, to: NextToken ? to : sizeBytes / EBS_BLOCK_BYTES, tokens, sizeBytes };
  }

  /** Reads a body into `target`; what is wrong with it is returned. */
  async #receive(
    index: number,
    answer: Sdk.GetSnapshotBlockCommandOutput,
    target: Buffer,
  ): Promise<PortError | undefined> {
    const { DataLength, Checksum, ChecksumAlgorithm } = answer;
    const body = answer.BlockData as Readable | undefined;
    if (DataLength !== target.length || Checksum === undefined || ChecksumAlgorithm !== 'SHA256') {
      body?.destroy();
      throw nonsense(this.#name, `block ${index} comes without its length of 512 KiB or its SHA-256`);
    }
    const sum = createHash('sha256');
    let filled = 0;
    try {
      for await (const chunk of body ?? []) {
        const piece = chunk as Buffer;
        // leaving the loop ends the body, however long it is
        if (piece.length > target.length - filled) throw new Error('longer than it said');
        filled += piece.copy(target, filled);
        sum.update(piece);
      }
      if (filled < target.length) throw new Error('shorter than it said');
    } catch (cause) {
      return new PortError('SOURCE_REMOTE', `${this.#name}: block ${index} broke off`, {
        cause,
        temporary: true,
        hint: 'check the network',
      });
    }
    if (sum.digest('base64') === Checksum) return undefined;
    return new PortError('SOURCE_REMOTE', `${this.#name}: block ${index} is not what its checksum says`, {
      hint: 'something between EBS and this machine changes what it passes on, or the memory of this machine is bad',
    });
  }
}
