/** Parts of a file as streams of bytes. */
import { MIB } from '../../core/sizes.ts';
import { type ByteSource, truncated } from '../image-format/reader.ts';

/** Bytes `offset` to `offset + length`, in pieces of at most 1 MiB. Throws DAMAGED when the file ends before. */
export async function* readRange(
  source: ByteSource,
  offset: number,
  length: number,
  signal?: AbortSignal,
): AsyncGenerator<Buffer> {
  for (let at = offset; at < offset + length; ) {
    signal?.throwIfAborted();
    const data = await source.read(at, Math.min(MIB, offset + length - at));
    if (data.length === 0) throw truncated(source, 'its content');
    yield data;
    at += data.length;
  }
}

/** A part of a file as a source of its own; `name` is printable. */
export function partOf(source: ByteSource, name: string, offset: number, sizeBytes: number): ByteSource {
  return {
    name,
    sizeBytes,
    read: (at, length) => source.read(offset + at, Math.max(0, Math.min(length, sizeBytes - at))),
  };
}

/** True when nothing but zeros stands from `offset` on. */
export async function restIsZero(source: ByteSource, offset: number): Promise<boolean> {
  for await (const data of readRange(source, offset, source.sizeBytes - offset)) {
    if (data.some((b) => b !== 0)) return false;
  }
  return true;
}
