/**
 * Puts content that can only be read from its start: in one piece when its length allows, else in parts and a static large
 * object over them. Parts of a killed run are used again when their etag is the md5 of what is to be sent.
 */
import { createHash } from 'node:crypto';
import { asPortError, PortError } from '../../core/errors.ts';
import { pause } from '../../core/pause.ts';
import { MIB } from '../../core/sizes.ts';
import { printable } from '../../core/text.ts';
import { HttpError } from './http.ts';
import { PartReader } from './part-reader.ts';
import type { SwiftApi } from './swift.ts';
import { type Leftovers, leftovers, partName, partSize, removeUnused } from './swift-parts.ts';
import { type Content, explain, putObject, putOnce, type Sent } from './swift-put.ts';
import { joinParts, type Part } from './swift-slo.ts';

/** An object of unknown length up to this is sent in one piece from memory. */
const SMALL_BYTES = 2 * MIB;
const FAILURES = 5;
const PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 120_000;

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
      await removeUnused(api, container, old, new Set(), signal);
      return { bytes: local.bytes, etag: local.md5, sha256: local.sha256, kept: true };
    }
  }
  const put = await putObject(api, { container, name, content: source, bytes, md5, contentType, signal });
  await removeUnused(api, container, old, new Set(), signal);
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
          const { bytes, md5 } = await digestAll(() => reader.take(partBytes));
          // The digest of the whole is of this pass: it must be that of the parts in the store.
          if (bytes !== there.bytes || md5 !== there.etag)
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
    await removeUnused(api, container, old, new Set(), signal);
    return { bytes: 0, etag: put.md5, sha256: put.sha256, kept: false };
  }
  const joined = await joinParts(api, container, name, done, options);
  await removeUnused(api, container, old, joined.names, signal);
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
      await pause(pauseMs, signal);
    }
  }
}

/** Parts in the store that hold what the content has at their place. */
async function matching(content: Content, partBytes: number, old: Leftovers): Promise<(Part | undefined)[]> {
  const found: (Part | undefined)[] = [];
  const reader = new PartReader(content());
  try {
    for (let n = 0; await reader.more(); n += 1) {
      const { bytes, md5: etag } = await digestAll(() => reader.take(partBytes));
      const same = old.parts.get(n + 1)?.find((o) => o.etag === etag && o.bytes === bytes);
      found[n] = same === undefined ? undefined : { name: same.name, bytes, etag };
    }
    return found;
  } finally {
    await reader.close();
  }
}
