/**
 * A disk image as an EBS snapshot by the direct API: no bucket, no import role, only blocks that hold something
 * (docs.aws.amazon.com/ebs/latest/userguide/ebs-accessing-snapshot.html). Every block travels with its SHA-256, and the whole with
 * the SHA-256 of all digests in order.
 */
import { createHash, randomUUID } from 'node:crypto';
import * as fs from 'node:fs/promises';
import type { EBSClient } from '@aws-sdk/client-ebs';
import { PortError } from '../../core/errors.ts';
import type { Log } from '../../core/log.ts';
import { GIB } from '../../core/sizes.ts';
import { EBS_BLOCK_BYTES } from '../ebs/api.ts';
import { map } from '../qemu-img.ts';
import { BlockJournal, readBlockJournal, type SnapshotRecord, shownBlocks } from './block-journal.ts';
import { awsError, awsErrorName } from './errors.ts';

/** Requests under way; each holds one block, 512 KiB. */
export const EBS_LANES = 32;
/** An upload that stands still for so long is ended by EBS (StartSnapshot Timeout, minutes; the longest is 4320). */
const TIMEOUT_MINUTES = 1440;

/** What to upload. */
export interface SnapshotInput {
  /** Raw image, absolute path. */
  file: string;
  /** Of the file, hex. */
  sha256: string;
  virtualBytes: number;
  /** Where the journal is kept. */
  journal: string;
  /** Makes StartSnapshot the same request when it is repeated. */
  clientToken: string;
  description: string;
  tags: Readonly<Record<string, string>>;
  /** An earlier snapshot of ours whose blocks are known; only what differs is sent. Its key is that of the new one. */
  parent?: SnapshotRecord | undefined;
  /** Key to encrypt with; not asked for when there is a parent. */
  kmsKeyArn?: string | undefined;
  /** Numbers of the blocks that may hold something, ascending; taken from the holes of the file when absent. */
  blocks?: readonly number[] | undefined;
  /** Fills a buffer with a block, in place of reading the file. */
  read?: ((index: number, buffer: Buffer) => Promise<void>) | undefined;
  /** Waits until so many bytes may be sent. */
  beforeSend?: ((bytes: number) => Promise<void>) | undefined;
  /** Told once the snapshot is there, before its first block. */
  begun?: ((snapshot: string) => Promise<void>) | undefined;
  /** The client token is a lock: another snapshot of it is an error (CLOUD_CONFLICT), not a reason to take another token. */
  tokenIsLock?: boolean | undefined;
  signal: AbortSignal;
  log: Log;
  onBytes: (doneBytes: number, totalBytes: number) => void;
}

/** A parent brings its key: EBS refuses a request that has both (API_StartSnapshot, `Encrypted`). */
function encryptionOf(parent: SnapshotRecord | undefined, kmsKeyArn: string | undefined) {
  if (parent !== undefined) return { ParentSnapshotId: parent.snapshot };
  return kmsKeyArn === undefined ? {} : { Encrypted: true, KmsKeyArn: kmsKeyArn };
}

/** A snapshot that is complete. */
export interface PutSnapshot {
  snapshot: string;
  /** Bytes of blocks that hold something. */
  bytes: number;
  /** Bytes sent by this call. */
  sentBytes: number;
  /** base64 SHA-256 of all digests, as EBS has accepted it. */
  checksum: string;
}

const ZERO = Buffer.alloc(EBS_BLOCK_BYTES);
const digestOf = (block: Uint8Array): string => createHash('sha256').update(block).digest('base64');
const ZERO_DIGEST = digestOf(ZERO);

/** Numbers of the blocks that may hold something, ascending. */
async function dataBlocks(input: SnapshotInput): Promise<number[]> {
  const { file, signal, log } = input;
  const blocks: number[] = [];
  let next = 0;
  for (const extent of await map({ path: file, format: 'raw' }, { signal, log })) {
    if (!extent.data) continue;
    const first = Math.max(next, Math.floor(extent.startBytes / EBS_BLOCK_BYTES));
    const end = Math.ceil((extent.startBytes + extent.lengthBytes) / EBS_BLOCK_BYTES);
    for (let index = first; index < end; index++) blocks.push(index);
    next = Math.max(next, end);
  }
  return blocks;
}

/** Uploads, or goes on. Throws CLOUD, CLOUD_LOGIN, CLOUD_REFUSED, SOURCE_CHANGED, INTERRUPTED, HOST_IO. */
export async function putSnapshot(client: EBSClient, input: SnapshotInput): Promise<PutSnapshot> {
  const known = await readBlockJournal(input.journal);
  const volumeGib = Math.ceil(input.virtualBytes / GIB);
  const usable = known?.sha256 === input.sha256 && known.volumeGib === volumeGib ? known : undefined;
  if (usable?.completed === true) {
    return {
      snapshot: usable.snapshot,
      bytes: usable.blocks.size * EBS_BLOCK_BYTES,
      sentBytes: 0,
      checksum: linear(usable.blocks),
    };
  }
  try {
    return await new Upload(client, input, volumeGib).run(usable);
  } catch (error) {
    // EBS ends an upload that stood still too long; the next one begins anew.
    const gone = /ResourceNotFound|ValidationException/.test(awsErrorName(error));
    if (usable === undefined || !gone || input.signal.aborted) throw error;
    input.log.info('the unfinished snapshot is gone; a new one begins', { snapshot: usable.snapshot });
    const again = { ...input, clientToken: `${input.clientToken}-${usable.snapshot}` };
    return new Upload(client, again, volumeGib).run(undefined);
  }
}

/** LINEAR: SHA-256 of the digests of all blocks of this snapshot, in order of their numbers (API_CompleteSnapshot). */
function linear(blocks: ReadonlyMap<number, string>): string {
  const hash = createHash('sha256');
  for (const index of [...blocks.keys()].sort((a, b) => a - b)) {
    hash.update(Buffer.from(blocks.get(index) ?? '', 'base64'));
  }
  return hash.digest('base64');
}

class Upload {
  readonly #client: EBSClient;
  readonly #input: SnapshotInput;
  readonly #volumeGib: number;
  /** What the parent shows, by block. */
  readonly #before: ReadonlyMap<number, string>;
  #sentBytes = 0;

  constructor(client: EBSClient, input: SnapshotInput, volumeGib: number) {
    this.#client = client;
    this.#input = input;
    this.#volumeGib = volumeGib;
    this.#before = input.parent === undefined ? new Map() : shownBlocks(input.parent);
  }

  async run(known: SnapshotRecord | undefined): Promise<PutSnapshot> {
    const { journal: file, parent, kmsKeyArn } = this.#input;
    const { snapshot } = known ?? (await this.#start());
    await this.#input.begun?.(snapshot);
    const acknowledged = new Map(known?.blocks);
    const journal =
      known === undefined
        ? await BlockJournal.begin(
            file,
            {
              snapshot,
              sha256: this.#input.sha256,
              volumeGib: this.#volumeGib,
              ...(parent === undefined ? {} : { parent: parent.snapshot }),
              ...(kmsKeyArn === undefined ? {} : { kmsKeyArn }),
            },
            this.#before,
          )
        : await BlockJournal.goOn(file);
    try {
      await this.#send(snapshot, acknowledged, journal);
      const checksum = await this.#complete(snapshot, acknowledged);
      await journal.complete(acknowledged.size);
      return {
        snapshot,
        bytes: acknowledged.size * EBS_BLOCK_BYTES,
        sentBytes: this.#sentBytes,
        checksum,
      };
    } finally {
      await journal.close();
    }
  }

  async #start(): Promise<{ snapshot: string }> {
    const { StartSnapshotCommand } = await import('@aws-sdk/client-ebs');
    const { clientToken, description, tags, parent, kmsKeyArn, signal } = this.#input;
    const begin = (token: string) => () =>
      this.#client.send(
        new StartSnapshotCommand({
          VolumeSize: this.#volumeGib,
          ClientToken: token,
          Description: description,
          Timeout: TIMEOUT_MINUTES,
          Tags: Object.entries(tags).map(([Key, Value]) => ({ Key, Value })),
          ...encryptionOf(parent, kmsKeyArn),
        }),
        { abortSignal: signal },
      );
    const what = 'EBS begins a snapshot';
    const answer = await this.#ask(what, begin(clientToken)).catch((error: unknown) => {
      // The token belongs to a snapshot whose journal is lost, or that was asked for otherwise.
      const isTaken = /ConflictException|IdempotentParameterMismatch/.test(awsErrorName(error));
      if (!isTaken || this.#input.tokenIsLock === true) throw error;
      return this.#ask(what, begin(randomUUID()));
    });
    const { SnapshotId, BlockSize } = answer;
    if (SnapshotId === undefined || (BlockSize !== undefined && BlockSize !== EBS_BLOCK_BYTES)) {
      throw new PortError('CLOUD', 'EBS began a snapshot in a way this program does not know');
    }
    return { snapshot: SnapshotId };
  }

  async #send(snapshot: string, acknowledged: Map<number, string>, journal: BlockJournal): Promise<void> {
    const { file, signal, onBytes } = this.#input;
    const blocks = this.#input.blocks ?? (await dataBlocks(this.#input));
    const here = new Set(blocks);
    // What the parent holds and this disk does not must be written as zeros, or it would show through.
    const cleared = [...this.#before].flatMap(([index, digest]) =>
      here.has(index) || digest === ZERO_DIGEST ? [] : [index],
    );
    const all = [...blocks, ...cleared].sort((a, b) => a - b);
    const totalBytes = all.length * EBS_BLOCK_BYTES;
    const handle = await fs.open(file, 'r');
    let done = 0;
    let at = 0;
    let failed = false;
    const lane = async (): Promise<void> => {
      const buffer = Buffer.allocUnsafeSlow(EBS_BLOCK_BYTES);
      for (;;) {
        const index = all[at++];
        if (index === undefined || failed) return;
        signal.throwIfAborted();
        await this.#block(snapshot, index, handle, buffer, acknowledged, journal);
        done += EBS_BLOCK_BYTES;
        onBytes(done, totalBytes);
      }
    };
    try {
      const ends = await Promise.allSettled(
        Array.from({ length: EBS_LANES }, () =>
          lane().catch((error: unknown) => {
            failed = true;
            throw error;
          }),
        ),
      );
      for (const end of ends) if (end.status === 'rejected') throw end.reason;
    } finally {
      await handle.close();
    }
  }

  async #block(
    snapshot: string,
    index: number,
    handle: fs.FileHandle,
    buffer: Buffer,
    acknowledged: Map<number, string>,
    journal: BlockJournal,
  ): Promise<void> {
    if (this.#input.read !== undefined) await this.#input.read(index, buffer);
    else {
      const { bytesRead } = await handle.read(buffer, 0, EBS_BLOCK_BYTES, index * EBS_BLOCK_BYTES);
      buffer.fill(0, bytesRead);
    }
    const before = this.#before.get(index);
    if (before === undefined && buffer.equals(ZERO)) return;
    const digest = digestOf(buffer);
    const sent = acknowledged.get(index);
    if (sent === digest) return;
    if (sent !== undefined) {
      throw new PortError('SOURCE_CHANGED', 'the image changed since its upload began');
    }
    if (before === digest) return;
    await this.#input.beforeSend?.(EBS_BLOCK_BYTES);
    const { PutSnapshotBlockCommand } = await import('@aws-sdk/client-ebs');
    await this.#ask(`EBS takes block ${index}`, () =>
      this.#client.send(
        new PutSnapshotBlockCommand({
          SnapshotId: snapshot,
          BlockIndex: index,
          BlockData: buffer,
          DataLength: EBS_BLOCK_BYTES,
          Checksum: digest,
          ChecksumAlgorithm: 'SHA256',
        }),
        { abortSignal: this.#input.signal },
      ),
    );
    this.#sentBytes += EBS_BLOCK_BYTES;
    acknowledged.set(index, digest);
    await journal.put(index, digest);
  }

  async #complete(snapshot: string, acknowledged: ReadonlyMap<number, string>): Promise<string> {
    const { CompleteSnapshotCommand } = await import('@aws-sdk/client-ebs');
    const checksum = linear(acknowledged);
    await this.#ask('EBS completes the snapshot', () =>
      this.#client.send(
        new CompleteSnapshotCommand({
          SnapshotId: snapshot,
          ChangedBlocksCount: acknowledged.size,
          Checksum: checksum,
          ChecksumAlgorithm: 'SHA256',
          ChecksumAggregationMethod: 'LINEAR',
        }),
        { abortSignal: this.#input.signal },
      ),
    );
    return checksum;
  }

  async #ask<T>(what: string, request: () => Promise<T>): Promise<T> {
    try {
      return await request();
    } catch (error) {
      throw awsError(error, what, this.#input.signal);
    }
  }
}
