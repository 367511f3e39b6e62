/** One stream compressed into an object of a store, with nothing of it kept here. */
import { pipeline } from 'node:stream/promises';
import { constants, createZstdCompress } from 'node:zlib';
import { PortError } from '../../core/errors.ts';
import { MIB } from '../../core/sizes.ts';
import type { Store } from '../../drivers/stores/store.ts';

/** Compressed bytes of long runs of zeros are sent on after so many plain ones: a store ends connections that are silent. */
const FLUSH_BYTES = 256 * MIB;
// Level 3: 250-400 MB/s on one core. ZSTD_c_nbWorkers stays 0: its threads take memory per segment, lanes do not.
const ZSTD = { chunkSize: 1 << 18, params: { [constants.ZSTD_c_compressionLevel]: 3 } };

/** A stream of bytes and the work behind it. */
export interface Produced<T> {
  source: AsyncIterable<Uint8Array>;
  done: Promise<T>;
}

/** An object as it was stored: its own bytes and what was compressed into it. */
export interface StoredBytes<T> {
  bytes: number;
  sha256: string;
  etag: string | undefined;
  plainBytes: number;
  produced: T;
}

/**
 * Compresses a stream into an object; `open` starts the stream anew for each attempt of the store. Throws as the store and
 * the producer do, STORE_MISMATCH when the store did not take all.
 */
export async function putCompressed<T>(
  store: Store,
  key: string,
  open: () => Produced<T>,
  maxPlainBytes: number | undefined,
  signal: AbortSignal,
): Promise<StoredBytes<T>> {
  let last: { bytes: number; plainBytes: number; produced?: T } | undefined;
  const content = async function* (): AsyncIterable<Uint8Array> {
    const attempt: NonNullable<typeof last> = { bytes: 0, plainBytes: 0 };
    last = attempt;
    const { source, done } = open();
    const zstd = createZstdCompress(ZSTD);
    const feeding = pipeline(
      counted(source, (chunk) => {
        const before = attempt.plainBytes;
        attempt.plainBytes += chunk.byteLength;
        // By position, not by time, so that the same tree gives the same bytes.
        if (Math.floor(before / FLUSH_BYTES) !== Math.floor(attempt.plainBytes / FLUSH_BYTES)) zstd.flush();
      }),
      zstd,
      { signal },
    );
    const ended = Promise.allSettled([done, feeding]);
    try {
      for await (const chunk of zstd as AsyncIterable<Buffer>) {
        attempt.bytes += chunk.byteLength;
        yield chunk;
      }
      await feeding;
      attempt.produced = await done;
    } catch (error) {
      zstd.destroy();
      signal.throwIfAborted();
      const errors = (await ended).flatMap((r) => (r.status === 'rejected' ? [r.reason as unknown] : []));
      // One cause stops all of them; the others only report a closed stream.
      throw errors.find((e) => e instanceof PortError && e.code !== 'BUG') ?? errors[0] ?? error;
    } finally {
      zstd.destroy();
      // the next attempt reads through the same lane
      await ended;
    }
  };
  const options = maxPlainBytes === undefined ? {} : { maxBytes: zstdBound(maxPlainBytes) };
  const put = await store.put(key, content, { ...options, signal });
  signal.throwIfAborted();
  if (last === undefined || put.sha256 === undefined || put.bytes !== last.bytes) {
    throw new PortError('STORE_MISMATCH', `${key}: the store did not take all ${last?.bytes ?? 0} bytes`);
  }
  // The digest is of what was handed to the store, made while it was sent; reading back proves the rest.
  return {
    bytes: put.bytes,
    sha256: put.sha256,
    etag: put.etag,
    plainBytes: last.plainBytes,
    produced: last.produced as T,
  };
}

async function* counted(
  source: AsyncIterable<Uint8Array>,
  count: (chunk: Uint8Array) => void,
): AsyncIterable<Uint8Array> {
  for await (const chunk of source) {
    count(chunk);
    yield chunk;
  }
}

/** Largest result of compressing so many bytes (ZSTD_COMPRESSBOUND of zstd.h, and the frame's checksum). */
function zstdBound(bytes: number): number {
  return bytes + Math.ceil(bytes / 256) + 64 * 1024;
}
