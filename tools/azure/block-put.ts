/** Puts a stream as a block blob: staged block by block, committed whole. Blocks a killed run staged are used again. */
import { createHash } from 'node:crypto';
import type { BlockBlobClient } from '@azure/storage-blob';
import { asPortError, PortError } from '../../core/errors.ts';
import { pause } from '../../core/pause.ts';
import { MIB } from '../../core/sizes.ts';
import { printable } from '../../core/text.ts';
import { PartReader } from '../openstack/part-reader.ts';
import { azureError, statusOf } from './errors.ts';

/** Most blocks of a blob: Microsoft Learn, "Scalability and performance targets for Blob storage". */
const MOST_BLOCKS = 50_000;
const BLOCK_BYTES = 8 * MIB;
/** A block of an object of unknown length: 50,000 of them are 1.5 TiB. */
const UNKNOWN_BLOCK_BYTES = 32 * MIB;
/** Where the sha256 of the content is kept. */
const SHA256_METADATA = 'port_image_sha256';
const FAILURES = 5;
const PAUSE_MS = 500;

/** Content that can be read from its start again. */
type Content = () => AsyncIterable<Uint8Array>;

/** How to put it. */
export interface BlockPutOptions {
  bytes?: number | undefined;
  maxBytes?: number | undefined;
  contentType?: string | undefined;
  blockBytes?: number | undefined;
  signal?: AbortSignal | undefined;
}

/** A blob as it was put. */
export interface BlockPut {
  bytes: number;
  sha256: string;
  etag: string;
  kept: boolean;
}

/** Ids of one blob must all have the same length; the digest in them says what the block holds. */
function blockId(index: number, data: Buffer): string {
  const digest = createHash('sha256').update(data).digest('hex').slice(0, 40);
  return Buffer.from(`${String(index).padStart(6, '0')}-${digest}`).toString('base64');
}

async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Uint8Array[] = [];
  // the producer may use its buffer again
  for await (const chunk of chunks) all.push(Uint8Array.from(chunk));
  return Buffer.concat(all);
}

async function digestOf(content: Content): Promise<{ bytes: number; sha256: string }> {
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const chunk of content()) {
    hash.update(chunk);
    bytes += chunk.byteLength;
  }
  return { bytes, sha256: hash.digest('hex') };
}

/** The blob that is there, when it is the content already. */
async function kept(
  blob: BlockBlobClient,
  content: Content,
  options: BlockPutOptions,
): Promise<BlockPut | undefined> {
  const { signal } = options;
  const found = await blob
    .getProperties(signal === undefined ? {} : { abortSignal: signal })
    .catch((error: unknown) => {
      if (statusOf(error) === 404) return undefined;
      throw azureError(error, `asking for ${printable(blob.name)}`, signal);
    });
  const sha256 = found?.metadata?.[SHA256_METADATA];
  if (found?.etag === undefined || sha256 === undefined) return undefined;
  if (options.bytes !== undefined && found.contentLength !== options.bytes) return undefined;
  const ours = await digestOf(content);
  return ours.sha256 === sha256 && ours.bytes === found.contentLength
    ? { ...ours, etag: found.etag.replaceAll('"', ''), kept: true }
    : undefined;
}

async function stagedBlocks(blob: BlockBlobClient, signal?: AbortSignal): Promise<Map<string, number>> {
  const list = await blob
    .getBlockList('uncommitted', signal === undefined ? {} : { abortSignal: signal })
    .catch((error: unknown) => {
      if (statusOf(error) === 404) return undefined;
      throw azureError(error, `asking for the blocks of ${printable(blob.name)}`, signal);
    });
  return new Map((list?.uncommittedBlocks ?? []).map((block) => [block.name, block.size]));
}

/**
 * Puts content. The blob appears when it is complete and replaces an older one. Throws STORE when the length is not what
 * was announced, SOURCE_CHANGED, and as azureError.
 */
export async function putBlocks(
  blob: BlockBlobClient,
  content: Content,
  options: BlockPutOptions = {},
): Promise<BlockPut> {
  const { signal } = options;
  const there = await kept(blob, content, options);
  if (there !== undefined) return there;
  const most = options.bytes ?? options.maxBytes;
  const least =
    most === undefined ? UNKNOWN_BLOCK_BYTES : Math.max(BLOCK_BYTES, Math.ceil(most / MOST_BLOCKS));
  const blockBytes = options.blockBytes ?? least;
  const staged = await stagedBlocks(blob, signal);
  const abort = signal === undefined ? {} : { abortSignal: signal };
  const passed: string[] = [];

  const pass = async () => {
    const reader = new PartReader(content());
    const ids: string[] = [];
    try {
      while (await reader.more()) {
        signal?.throwIfAborted();
        const data = await collect(reader.take(blockBytes));
        const id = blockId(ids.length, data);
        if (passed[ids.length] !== undefined && passed[ids.length] !== id)
          throw new PortError('SOURCE_CHANGED', `${printable(blob.name)}: content changed`);
        if (ids.length >= MOST_BLOCKS)
          throw new PortError('STORE', `${printable(blob.name)} needs more than ${MOST_BLOCKS} blocks`);
        if (staged.get(id) !== data.length) {
          await blob.stageBlock(id, data, data.length, {
            ...abort,
            // the service refuses a block that does not have it
            transactionalContentMD5: createHash('md5').update(data).digest(),
          });
          staged.set(id, data.length);
        }
        passed[ids.length] = id;
        ids.push(id);
      }
      return { ids, bytes: reader.bytes, sha256: reader.sha256.digest('hex') };
    } finally {
      await reader.close();
    }
  };
  const whole = await untilDone(pass, () => passed.length, `sending ${printable(blob.name)}`, signal);
  if (options.bytes !== undefined && whole.bytes !== options.bytes)
    throw new PortError(
      'STORE',
      `${printable(blob.name)}: ${whole.bytes} bytes came, ${options.bytes} were announced`,
    );
  const { contentType = 'application/octet-stream' } = options;
  const commit = () =>
    blob.commitBlockList(whole.ids, {
      ...abort,
      blobHTTPHeaders: { blobContentType: contentType },
      metadata: { [SHA256_METADATA]: whole.sha256 },
    });
  const done = await untilDone(commit, () => 0, `completing ${printable(blob.name)}`, signal);
  if (done.etag === undefined) throw new PortError('CLOUD', `${printable(blob.name)} got no tag`);
  return { bytes: whole.bytes, sha256: whole.sha256, etag: done.etag.replaceAll('"', ''), kept: false };
}

/** Works until it succeeds; only failures without progress in between count. */
async function untilDone<T>(
  work: () => Promise<T>,
  progress: () => number,
  what: string,
  signal?: AbortSignal,
): Promise<T> {
  for (let failures = 0; ; ) {
    const before = progress();
    try {
      return await work();
    } catch (error) {
      const isSdk = (error as Error).name === 'RestError' || statusOf(error) !== undefined;
      const known = isSdk || signal?.aborted ? azureError(error, what, signal) : asPortError(error);
      failures = progress() > before ? 1 : failures + 1;
      if (!known.temporary || failures > FAILURES) throw known;
      await pause(PAUSE_MS * 2 ** (failures - 1) * (1 + Math.random()), signal);
    }
  }
}
