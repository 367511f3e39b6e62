/** Content of gzip, zstd and xz files as a stream: every member and frame, nothing skipped, nothing made up. */
import { Readable, type Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { start } from '../../core/command.ts';
import { asPortError, PortError } from '../../core/errors.ts';
import { type ByteSource, damaged, truncated } from '../image-format/reader.ts';
import { readRange, restIsZero } from './byte-stream.ts';
import { xzDeclaredBytes } from './xz-index.ts';
import { zstdFrame, zstdFrameBytes } from './zstd-frames.ts';

/** A way a whole file is compressed. */
export type Compression = 'gzip' | 'xz' | 'zstd';

const MAGIC: readonly [Compression, readonly number[]][] = [
  ['gzip', [0x1f, 0x8b, 0x08]],
  ['xz', [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
  ['zstd', [0x28, 0xb5, 0x2f, 0xfd]],
];

/** Which compression these first bytes are of. */
export function compressionOf(head: Buffer): Compression | undefined {
  return MAGIC.find(([, magic]) => head.subarray(0, magic.length).equals(Buffer.from(magic)))?.[0];
}

/**
 * Bytes of content as the file itself says before it is read: xz in its index, zstd in its (first) frame. gzip says it modulo
 * 4 GiB, which is nothing for a disk. Throws DAMAGED when the end of an xz file is missing.
 */
export async function declaredBytes(source: ByteSource, kind: Compression): Promise<number | undefined> {
  if (kind === 'gzip') return undefined;
  if (kind === 'xz') return xzDeclaredBytes(source);
  return (await zstdFrame(source, 0)).contentBytes;
}

function decoderError(source: ByteSource, error: unknown): unknown {
  const code = (error as NodeJS.ErrnoException).code ?? '';
  if (code === 'Z_BUF_ERROR') return truncated(source, 'the end of the compressed content');
  if (code === 'ZSTD_error_frameParameter_windowTooLarge') {
    return new PortError('UNSUPPORTED_FORMAT', `${source.name} needs more than 128 MiB to be decompressed`, {
      hint: 'compress it again without --long',
      cause: error,
    });
  }
  if (code.startsWith('Z_') || code.startsWith('ZSTD_')) {
    return damaged(source, `its compressed content cannot be read (${code})`);
  }
  return error;
}

/** Pumps bytes through a decoder and yields what comes out. */
async function* through(
  source: ByteSource,
  input: AsyncIterable<Buffer>,
  decoder: Transform,
  signal: AbortSignal | undefined,
): AsyncGenerator<Buffer> {
  // the failure of the input reaches the reader of the output as the decoder's
  const pumped = pipeline(
    Readable.from(input, { objectMode: false }),
    decoder,
    signal ? { signal } : {},
  ).catch((error: unknown) => {
    decoder.destroy(error as Error);
  });
  try {
    for await (const piece of decoder) yield piece as Buffer;
  } catch (error) {
    throw decoderError(source, error);
  } finally {
    decoder.destroy();
    await pumped;
  }
}

/** All members. Zeros behind the last one are padding (tapes, block devices); anything else there is damage. */
async function* gunzip(source: ByteSource, signal?: AbortSignal): AsyncGenerator<Buffer> {
  for (let at = 0; at < source.sizeBytes; ) {
    const next = (await source.read(at, 1))[0];
    if (next === 0) {
      if (await restIsZero(source, at)) return;
      throw damaged(source, 'something stands behind the end of its compressed content');
    }
    const decoder = createGunzip({ chunkSize: 256 * 1024 });
    yield* through(source, readRange(source, at, source.sizeBytes - at, signal), decoder, signal);
    if (decoder.bytesWritten === 0) throw damaged(source, 'its compressed content is empty');
    at += decoder.bytesWritten;
  }
}

/** Most frames in a row without content: pzstd and seekable files have one beside each that has some. */
const MAX_EMPTY_FRAMES = 1000;

/** All frames. Nothing may stand behind the last one. */
async function* unzstd(source: ByteSource, signal?: AbortSignal): AsyncGenerator<Buffer> {
  let empty = 0;
  for (let at = 0; at < source.sizeBytes; ) {
    signal?.throwIfAborted();
    if (empty++ > MAX_EMPTY_FRAMES) {
      throw damaged(source, `more than ${MAX_EMPTY_FRAMES} zstd frames in a row hold nothing`);
    }
    const frame = await zstdFrame(source, at);
    if (frame.skipBytes !== undefined) {
      at += frame.skipBytes;
      continue;
    }
    let next = at;
    const bytes = async function* (): AsyncGenerator<Buffer> {
      next = yield* zstdFrameBytes(source, at, frame);
    };
    const pieces = through(source, bytes(), createZstdDecompress({ chunkSize: 256 * 1024 }), signal);
    for await (const piece of pieces) {
      if (piece.length > 0) empty = 0;
      yield piece;
    }
    at = next;
  }
}

/** By the program: Node has no xz. It gets the bytes, not the name, so what is read is what was opened. */
async function* unxz(source: ByteSource, signal?: AbortSignal): AsyncGenerator<Buffer> {
  const child = await start('xz', ['-dc', '-T0', '--memlimit-decompress=512MiB', '--format=xz', '-q'], {
    pipes: true,
    signal,
  });
  const fed = pipeline(Readable.from(readRange(source, 0, source.sizeBytes, signal)), child.stdin).then(
    () => undefined,
    (error: unknown) => error as NodeJS.ErrnoException,
  );
  try {
    for await (const piece of child.stdout) yield piece as Buffer;
    const { exitCode } = await child.exited;
    signal?.throwIfAborted();
    const error = await fed;
    // EPIPE: xz gave up and says why by its status
    if (error !== undefined && error.code !== 'EPIPE' && error.code !== 'ERR_STREAM_PREMATURE_CLOSE')
      throw error;
    if (exitCode !== 0) {
      throw damaged(
        source,
        'xz cannot decompress it: it is cut or changed, or needs more than 512 MiB of memory',
      );
    }
  } finally {
    await child.stop(0);
  }
}

/**
 * The content of a compressed file, from its start. Throws DAMAGED (cut, changed, something behind the end),
 * UNSUPPORTED_FORMAT, PROGRAM_MISSING, INTERRUPTED.
 */
export async function* decompress(
  source: ByteSource,
  kind: Compression,
  signal?: AbortSignal,
): AsyncGenerator<Buffer> {
  try {
    yield* { gzip: gunzip, zstd: unzstd, xz: unxz }[kind](source, signal);
  } catch (error) {
    throw asPortError(error);
  }
}
