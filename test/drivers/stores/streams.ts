/** Streams of stores in tests. */
import type { Readable } from 'node:stream';

/** All bytes of a stream. */
export async function bytesOf(stream: Readable): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of stream) parts.push(part as Buffer);
  return Buffer.concat(parts);
}

/** Keys of a listing, or ids. */
export async function keysOf(list: AsyncIterable<{ key: string } | string>): Promise<string[]> {
  const all: string[] = [];
  for await (const item of list) all.push(typeof item === 'string' ? item : item.key);
  return all;
}

/** Content in chunks of an odd size. */
export const oddChunks = (data: Buffer) =>
  async function* () {
    for (let at = 0; at < data.length; at += 100_003) yield data.subarray(at, at + 100_003);
  };
