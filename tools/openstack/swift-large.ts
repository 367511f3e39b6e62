/**
 * Objects larger than one PUT, or of unknown length: parts in the same container below `NAME.parts/`, named by number and
 * chance so that none is ever replaced while a manifest still names it, and a static large object over them. Parts of a
 * killed run are used again when their etag is the md5 of what is to be sent.
 */
import { createHash, randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import PQueue from 'p-queue';
import { asPortError, PortError } from '../../core/errors.ts';
import { MIB } from '../../core/sizes.ts';
import { printable } from '../../core/text.ts';
import { HttpError } from './http.ts';
import type { SwiftApi } from './swift.ts';
import type { SwiftObject } from './swift-object.ts';
import { type Content, explain, putObject, putOnce, type Sent } from './swift-put.ts';
import { joinParts, type Part, partsFolder, removeAll } from './swift-slo.ts';

/** Size of parts unless the service's limits ask for another. */
const PART_BYTES = 128 * MIB;
const LANES = 4;
/** An object of unknown length up to this is sent in one piece from memory. */
const SMALL_BYTES = 2 * MIB;
const READ_BYTES = 1 << 19;
const FAILURES = 5;
const PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 120_000;

/** What is already there under a name: the object, parts by number. */
interface Leftovers {
  object: SwiftObject | undefined;
  parts: Map<number, SwiftObject[]>;
  names: string[];
}

async function leftovers(
  api: SwiftApi,
  container: string,
  name: string,
  signal?: AbortSignal,
): Promise<Leftovers> {
  const found: Leftovers = { object: undefined, parts: new Map(), names: [] };
  const folder = partsFolder(name);
  for await (const object of api.listObjects(container, name, signal)) {
    if (object.name === name) found.object = object;
    if (!object.name.startsWith(folder)) continue;
    found.names.push(object.name);
    const number = /^(\d{6})\.[0-9a-f]+$/.exec(object.name.slice(folder.length))?.[1];
    if (number === undefined || object.isLarge) continue;
    const list = found.parts.get(Number(number)) ?? [];
    found.parts.set(Number(number), [...list, object]);
  }
  return found;
}

const partName = (name: string, number: number) =>
  `${partsFolder(name)}${String(number).padStart(6, '0')}.${randomBytes(4).toString('hex')}`;

async function partSize(api: SwiftApi, wanted: number | undefined, signal?: AbortSignal): Promise<number> {
  const { maxFileBytes, slo } = await api.info(signal);
  return Math.min(Math.max(wanted ?? PART_BYTES, slo?.minSegmentBytes ?? 1), maxFileBytes);
}

/** Removes what is below the object's parts and not part of it. */
async function clean(
  api: SwiftApi,
  container: string,
  old: Leftovers,
  used: ReadonlySet<string>,
  signal?: AbortSignal,
) {
  await removeAll(
    api,
    container,
    old.names.filter((n) => !used.has(n)),
    signal,
  );
}

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
  await clean(api, container, old, joined?.names ?? new Set(), options.signal);
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

/** How to put a stream. */
export interface PutStreamOptions {
  bytes?: number | undefined;
  maxBytes?: number | undefined;
  partBytes?: number | undefined;
  contentType?: string | undefined;
  signal?: AbortSignal | undefined;
}

/** A stream in the store. */
export interface StreamPut {
  bytes: number;
  etag: string;
  sha256: string;
  /** Nothing had to be sent. */
  kept: boolean;
}

/** Puts content that can only be read from its start. The object appears when it is complete. Throws as putFile. */
export async function putStream(
  api: SwiftApi,
  container: string,
  name: string,
  content: Content,
  options: PutStreamOptions = {},
): Promise<StreamPut> {
  const { signal, contentType } = options;
  const { maxFileBytes } = await api.info(signal);
  const old = await leftovers(api, container, name, signal);
  const most = options.bytes ?? options.maxBytes;
  let source = content;
  let fits = most !== undefined && most <= maxFileBytes;
  let bytes = options.bytes;
  if (most === undefined) {
    const small = await readSmall(content, Math.min(SMALL_BYTES, maxFileBytes));
    if (small !== undefined) {
      source = async function* () {
        yield* small;
      };
      bytes = small.reduce((sum, chunk) => sum + chunk.byteLength, 0);
      fits = true;
    }
  }
  if (!fits) return putParts(api, container, name, content, old, options);
  let md5: string | undefined;
  if (
    old.object !== undefined &&
    !old.object.isLarge &&
    (bytes === undefined || bytes === old.object.bytes)
  ) {
    const local = await digestAll(source);
    md5 = local.md5;
    const there = local.md5 === old.object.etag ? await api.headObject(container, name, signal) : undefined;
    if (there?.etag === local.md5 && there.bytes === local.bytes) {
      await clean(api, container, old, new Set(), signal);
      return { bytes: local.bytes, etag: local.md5, sha256: local.sha256, kept: true };
    }
  }
  const put = await putObject(api, { container, name, content: source, bytes, md5, contentType, signal });
  await clean(api, container, old, new Set(), signal);
  return { bytes: put.bytes, etag: put.md5, sha256: put.sha256, kept: false };
}

/** The whole content when it is not longer than `limit`, else undefined. */
async function readSmall(content: Content, limit: number): Promise<Uint8Array[] | undefined> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of content()) {
    bytes += chunk.byteLength;
    if (bytes > limit) return undefined;
    // the producer may use its buffer again
    chunks.push(Uint8Array.from(chunk));
  }
  return chunks;
}

async function digestAll(content: Content): Promise<Sent> {
  const md5 = createHash('md5');
  const sha256 = createHash('sha256');
  let bytes = 0;
  for await (const chunk of content()) {
    md5.update(chunk);
    sha256.update(chunk);
    bytes += chunk.byteLength;
  }
  return { bytes, md5: md5.digest('hex'), sha256: sha256.digest('hex') };
}

async function putParts(
  api: SwiftApi,
  container: string,
  name: string,
  content: Content,
  old: Leftovers,
  options: PutStreamOptions,
): Promise<StreamPut> {
  const { signal } = options;
  const partBytes = await partSize(api, options.partBytes, signal);
  const reuse = old.parts.size === 0 ? [] : await matching(content, partBytes, old);
  const done: Part[] = [];
  let sent = 0;

  const pass = async (): Promise<{ bytes: number; sha256: string }> => {
    const reader = new PartReader(content());
    try {
      for (let n = 0; await reader.more(); n += 1) {
        const there = done[n] ?? reuse[n];
        if (there !== undefined) {
          let skipped = 0;
          for await (const chunk of reader.take(partBytes)) skipped += chunk.byteLength;
          if (skipped !== there.bytes)
            throw new PortError('SOURCE_CHANGED', `${printable(name)}: content changed`);
          done[n] = there;
          continue;
        }
        const target = partName(name, n + 1);
        let isUsed = false;
        const once: Content = () => {
          // What went into a cut attempt is gone from this pass; the next pass reads it anew.
          if (isUsed)
            throw new PortError('CLOUD', `upload of ${printable(target)} was cut`, { temporary: true });
          isUsed = true;
          return reader.take(partBytes);
        };
        const put = await putOnce(api, { container, name: target, content: once, signal });
        done[n] = { name: target, bytes: put.bytes, etag: put.md5 };
        sent += put.bytes;
      }
      return { bytes: reader.bytes, sha256: reader.sha256.digest('hex') };
    } finally {
      await reader.close();
    }
  };

  const whole = await untilDone(pass, () => done.length, signal).catch(async (error: unknown) => {
    throw await explain(api, container, name, error);
  });
  if (done.length === 0) {
    const empty = async function* () {};
    const put = await putObject(api, { container, name, content: empty, bytes: 0, signal });
    await clean(api, container, old, new Set(), signal);
    return { bytes: 0, etag: put.md5, sha256: put.sha256, kept: false };
  }
  const joined = await joinParts(api, container, name, done, options);
  await clean(api, container, old, joined.names, signal);
  return { bytes: whole.bytes, etag: joined.etag, sha256: whole.sha256, kept: sent === 0 && joined.kept };
}

/** Runs passes until one ends; only failures without progress in between count. */
async function untilDone<T>(
  pass: () => Promise<T>,
  progress: () => number,
  signal?: AbortSignal,
): Promise<T> {
  for (let failures = 0; ; ) {
    const before = progress();
    try {
      return await pass();
    } catch (error) {
      if (signal?.aborted) throw new PortError('INTERRUPTED', 'interrupted', { cause: error });
      const known = asPortError(error);
      failures = progress() > before ? 1 : failures + 1;
      if (!known.temporary || failures > FAILURES) throw known;
      const asked = known instanceof HttpError ? (known.retryAfterMs ?? 0) : 0;
      if (asked > LONGEST_PAUSE_MS) throw known;
      const pauseMs = Math.max(asked, PAUSE_MS * 2 ** (failures - 1) * (1 + Math.random()));
      await sleep(pauseMs, undefined, signal === undefined ? {} : { signal }).catch((e: unknown) => {
        throw asPortError(e);
      });
    }
  }
}

/** Parts in the store that hold what the content has at their place. */
async function matching(content: Content, partBytes: number, old: Leftovers): Promise<(Part | undefined)[]> {
  const found: (Part | undefined)[] = [];
  const reader = new PartReader(content());
  try {
    for (let n = 0; await reader.more(); n += 1) {
      const hash = createHash('md5');
      let bytes = 0;
      for await (const chunk of reader.take(partBytes)) {
        hash.update(chunk);
        bytes += chunk.byteLength;
      }
      const etag = hash.digest('hex');
      const same = old.parts.get(n + 1)?.find((o) => o.etag === etag && o.bytes === bytes);
      found[n] = same === undefined ? undefined : { name: same.name, bytes, etag };
    }
    return found;
  } finally {
    await reader.close();
  }
}

/** Cuts one stream into parts, with a digest over all of it. */
class PartReader {
  readonly sha256 = createHash('sha256');
  bytes = 0;
  readonly #source: AsyncIterator<Uint8Array>;
  #rest: Uint8Array = new Uint8Array(0);

  constructor(content: AsyncIterable<Uint8Array>) {
    this.#source = content[Symbol.asyncIterator]();
  }

  /** True when there is at least one more byte. */
  async more(): Promise<boolean> {
    while (this.#rest.byteLength === 0) {
      const next = await this.#source.next();
      if (next.done === true) return false;
      this.#rest = next.value;
    }
    return true;
  }

  /** The next `limit` bytes, or what is left. */
  async *take(limit: number): AsyncGenerator<Uint8Array> {
    for (let left = limit; left > 0 && (await this.more()); ) {
      const chunk = this.#rest.subarray(0, left);
      this.#rest = this.#rest.subarray(chunk.byteLength);
      left -= chunk.byteLength;
      this.bytes += chunk.byteLength;
      this.sha256.update(chunk);
      yield chunk;
    }
  }

  async close(): Promise<void> {
    await this.#source.return?.();
  }
}
