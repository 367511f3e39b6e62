/**
 * Puts a file of this machine: in one piece, or in parts with several under way at a time and a static large object over
 * them. Parts of a killed run are used again when their etag is the md5 of what is to be sent.
 */
import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import PQueue from 'p-queue';
import { asPortError, PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import type { SwiftApi } from './swift.ts';
import type { SwiftObject } from './swift-object.ts';
import { leftovers, partName, partSize, removeUnused } from './swift-parts.ts';
import { type Content, putObject } from './swift-put.ts';
import { joinParts, type Part } from './swift-slo.ts';

const LANES = 4;
const READ_BYTES = 1 << 19;

/** How to put a file. */
export interface PutFileOptions {
  partBytes?: number;
  lanes?: number;
  contentType?: string;
  /** Called with bytes that are in the store now, sent or found there. */
  onBytes?: (bytes: number) => void;
  signal?: AbortSignal | undefined;
}

/** A file in the store. */
export interface FilePut {
  bytes: number;
  /** Etag of the object: md5, or of a large object the md5 over those of its parts. */
  etag: string;
  /** md5 of each part in order. */
  md5Parts: string[];
  /** Bytes that had to be sent; the rest was there. */
  sent: number;
}

async function* readRange(file: string, at: number, length: number): AsyncGenerator<Uint8Array> {
  const handle = await fs.open(file, 'r');
  try {
    for (let done = 0; done < length; ) {
      const want = Math.min(READ_BYTES, length - done);
      const { bytesRead, buffer } = await handle.read(Buffer.allocUnsafe(want), 0, want, at + done);
      if (bytesRead === 0)
        throw new PortError('SOURCE_CHANGED', `${printable(file)} became shorter while it was sent`);
      done += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  } finally {
    await handle.close();
  }
}

async function md5Of(content: AsyncIterable<Uint8Array>): Promise<string> {
  const hash = createHash('md5');
  for await (const chunk of content) hash.update(chunk);
  return hash.digest('hex');
}

/**
 * Puts a file with several parts under way at a time; what is there already is not sent again. The object appears when it is
 * complete. Throws CLOUD, CLOUD_REFUSED, CLOUD_MISMATCH, HOST_IO, SOURCE_CHANGED.
 */
export async function putFile(
  api: SwiftApi,
  container: string,
  name: string,
  file: string,
  options: PutFileOptions,
): Promise<FilePut> {
  const abort = new AbortController();
  const signal =
    options.signal === undefined ? abort.signal : AbortSignal.any([options.signal, abort.signal]);
  const partBytes = await partSize(api, options.partBytes, options.signal);
  const before = await fs.stat(file).catch((error: unknown) => {
    throw asPortError(error);
  });
  const old = await leftovers(api, container, name, options.signal);
  let sent = 0;
  const one = async (
    target: string,
    at: number,
    length: number,
    there: readonly SwiftObject[],
  ): Promise<Part> => {
    const content: Content = () => readRange(file, at, length);
    const same = there.filter((o) => o.bytes === length && !o.isLarge);
    const md5 = same.length === 0 ? undefined : await md5Of(content());
    for (const object of same.filter((o) => o.etag === md5)) {
      // The listing may lag behind; the object itself counts.
      const head = await api.headObject(container, object.name, signal);
      if (head?.etag !== md5 || head?.bytes !== length) continue;
      options.onBytes?.(length);
      return { name: object.name, bytes: length, etag: head.etag };
    }
    const { contentType } = options;
    const put = await putObject(api, {
      container,
      name: target,
      content,
      bytes: length,
      md5,
      signal,
      contentType,
    });
    sent += length;
    options.onBytes?.(length);
    return { name: target, bytes: length, etag: put.md5 };
  };

  const parts: Part[] = [];
  if (before.size <= partBytes) {
    parts.push(await one(name, 0, before.size, old.object === undefined ? [] : [old.object]));
  } else {
    const queue = new PQueue({ concurrency: options.lanes ?? LANES });
    const count = Math.ceil(before.size / partBytes);
    const results = await Promise.allSettled(
      Array.from({ length: count }, (_, i) =>
        queue.add(async () => {
          signal.throwIfAborted();
          try {
            const length = Math.min(partBytes, before.size - i * partBytes);
            parts[i] = await one(partName(name, i + 1), i * partBytes, length, old.parts.get(i + 1) ?? []);
          } catch (error) {
            abort.abort();
            throw error;
          }
        }),
      ),
    );
    throwFirst(results, options.signal);
  }
  const after = await fs.stat(file);
  if (after.size !== before.size || after.mtimeMs !== before.mtimeMs || after.ino !== before.ino)
    throw new PortError('SOURCE_CHANGED', `${printable(file)} changed while it was sent`);
  const isPlain = before.size <= partBytes;
  const joined = isPlain ? undefined : await joinParts(api, container, name, parts, options);
  await removeUnused(api, container, old, joined?.names ?? new Set(), options.signal);
  const etag = joined?.etag ?? parts[0]?.etag ?? '';
  return { bytes: before.size, etag, md5Parts: parts.map((p) => p.etag), sent };
}

/** Throws what stopped the lanes: the first cause that is not only the stop itself. */
function throwFirst(
  results: readonly PromiseSettledResult<unknown>[],
  signal: AbortSignal | undefined,
): void {
  const errors = results.flatMap((r) => (r.status === 'rejected' ? [asPortError(r.reason)] : []));
  if (errors.length === 0) return;
  if (signal?.aborted) throw new PortError('INTERRUPTED', 'interrupted');
  throw errors.find((e) => e.code !== 'INTERRUPTED') ?? errors[0];
}
