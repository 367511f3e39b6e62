/**
 * A large file into Cloud Storage so that a killed run is gone on with: parts as objects of their own, several at a time,
 * joined by `compose`. A resumable session is not used across processes: its URI opens the upload to anyone who reads it.
 * The CRC32C Google tells of each part is compared with what was sent, that of the joined object with the file's.
 * Limits: https://docs.cloud.google.com/storage/docs/composite-objects (32 components a call).
 */

import { createReadStream } from 'node:fs';
import * as fs from 'node:fs/promises';
import PQueue from 'p-queue';
import { asPortError, PortError } from '../../core/errors.ts';
import { MIB } from '../../core/sizes.ts';
import { printable } from '../../core/text.ts';
import { withRetries } from '../openstack/retry.ts';
import type { GcsBucket, GcsObject } from './bucket.ts';
import { GcpError } from './errors.ts';

const COMPONENTS = 32;
/** Smallest part; larger ones where 32 x 32 of these are not enough. */
const PART_BYTES = 64 * MIB;
const LANES = 4;

/** What to put. */
export interface PutFile {
  file: string;
  bytes: number;
  name: string;
  contentType: string;
  partBytes?: number | undefined;
  signal: AbortSignal;
  /** Bytes that are in the bucket now. */
  onBytes: (bytes: number) => void;
}

/** What is there then. */
export interface FilePut {
  /** Base64, as Google writes it. */
  crc32c: string;
  /** Bytes that had to be sent. */
  sentBytes: number;
}

interface Range {
  name: string;
  start: number;
  length: number;
}

/** Parts of a file, in order. */
export function partsOf(name: string, bytes: number, partBytes = PART_BYTES): Range[] {
  const size = Math.max(partBytes, Math.ceil(bytes / COMPONENTS ** 2 / MIB) * MIB);
  return Array.from({ length: Math.max(1, Math.ceil(bytes / size)) }, (_, i) => ({
    name: `${name}.part-${String(i).padStart(4, '0')}`,
    start: i * size,
    length: Math.min(size, bytes - i * size),
  }));
}

async function crcOf(file: string, signal: AbortSignal, range?: Range): Promise<string> {
  const { CRC32C } = await import('@google-cloud/storage');
  const crc = new CRC32C();
  const options = range === undefined ? {} : { start: range.start, end: range.start + range.length - 1 };
  const chunks = createReadStream(file, { ...options, signal, highWaterMark: MIB });
  for await (const chunk of chunks) crc.update(chunk as Buffer);
  return crc.toString();
}

/** Puts one part; what is there already is not sent. Returns the bytes sent. */
async function putPart(bucket: GcsBucket, put: PutFile, range: Range): Promise<number> {
  const { file, signal } = put;
  const crc32c = await crcOf(file, signal, range);
  const isRight = (object: GcsObject) => object.bytes === range.length && object.crc32c === crc32c;
  const content = () =>
    createReadStream(file, { start: range.start, end: range.start + range.length - 1, highWaterMark: MIB });
  let sent = 0;
  await withRetries(
    async () => {
      const there = await bucket.head(range.name, signal);
      if (there !== undefined) {
        if (isRight(there)) return;
        await bucket.remove(range.name, signal);
      }
      sent += range.length;
      try {
        const contentType = 'application/octet-stream';
        // `mustBeNew`: somebody else's object of this name is not overwritten
        const made = await bucket.put({
          name: range.name,
          content,
          bytes: range.length,
          contentType,
          mustBeNew: true,
          signal,
        });
        if (!isRight(made)) throw again('it arrived damaged');
      } catch (error) {
        // An answer was lost: the next attempt finds the object and compares it.
        if (error instanceof GcpError && error.status === 412) throw again(error.message);
        throw error;
      }
    },
    { signal },
  );
  put.onBytes(range.length);
  return sent;

  function again(why: string): PortError {
    return new PortError('CLOUD', `gs://${bucket.name}/${printable(range.name)}: ${why}`, {
      temporary: true,
    });
  }
}

/** Joins parts, over intermediate objects where there are too many. Returns the names that are left over. */
async function join(bucket: GcsBucket, names: readonly string[], put: PutFile): Promise<string[]> {
  if (names.length <= COMPONENTS) {
    await bucket.compose(names, put.name, put.contentType, put.signal);
    return [...names];
  }
  const groups: string[] = [];
  for (let at = 0; at < names.length; at += COMPONENTS) {
    const group = `${put.name}.group-${String(groups.length).padStart(2, '0')}`;
    await bucket.compose(names.slice(at, at + COMPONENTS), group, put.contentType, put.signal);
    groups.push(group);
  }
  return [...names, ...(await join(bucket, groups, put))];
}

/**
 * Puts a file; parts of an earlier run with the same bytes are used again. The object appears when it is complete. Throws
 * CLOUD, CLOUD_LOGIN, CLOUD_REFUSED, CLOUD_MISMATCH, SOURCE_CHANGED, HOST_IO.
 */
export async function putInParts(bucket: GcsBucket, put: PutFile): Promise<FilePut> {
  const before = await fs.stat(put.file).catch((error: unknown) => {
    throw asPortError(error);
  });
  if (before.size !== put.bytes) {
    throw new PortError('SOURCE_CHANGED', `${printable(put.file)} is not the file that was made`);
  }
  const abort = new AbortController();
  const signal = AbortSignal.any([put.signal, abort.signal]);
  const whole = crcOf(put.file, signal);
  whole.catch(() => {});
  const there = await bucket.head(put.name, signal);
  if (there?.bytes === put.bytes && there.crc32c === (await whole)) {
    put.onBytes(put.bytes);
    return { crc32c: there.crc32c, sentBytes: 0 };
  }
  if (there !== undefined) await removeObjects(bucket, [put.name], signal);
  const parts = partsOf(put.name, put.bytes, put.partBytes);
  const queue = new PQueue({ concurrency: LANES });
  let sentBytes = 0;
  const ends = await Promise.allSettled(
    parts.map((part) =>
      queue.add(async () => {
        signal.throwIfAborted();
        try {
          const sent = await putPart(bucket, { ...put, signal }, part);
          sentBytes += sent;
        } catch (error) {
          abort.abort();
          throw error;
        }
      }),
    ),
  );
  const failures = ends.flatMap((e) => (e.status === 'rejected' ? [asPortError(e.reason)] : []));
  if (put.signal.aborted) throw new PortError('INTERRUPTED', 'interrupted');
  if (failures[0] !== undefined) throw failures.find((e) => e.code !== 'INTERRUPTED') ?? failures[0];
  const names = parts.map((p) => p.name);
  const left = await join(bucket, names, put);
  const crc32c = await whole;
  const joined = await bucket.head(put.name, put.signal);
  if (joined?.crc32c !== crc32c || joined.bytes !== put.bytes) {
    await removeObjects(bucket, [put.name, ...left], put.signal);
    throw new PortError('CLOUD_MISMATCH', `gs://${bucket.name}/${printable(put.name)} is not what was sent`, {
      hint: 'something between Google and this machine changes what it passes on; run again',
    });
  }
  await removeObjects(bucket, left, put.signal);
  return { crc32c, sentBytes };
}

/** Removes objects; one that is not there is no error. Throws CLOUD, CLOUD_REFUSED. */
export async function removeObjects(
  bucket: GcsBucket,
  names: readonly string[],
  signal?: AbortSignal,
): Promise<void> {
  const queue = new PQueue({ concurrency: LANES });
  await Promise.all(names.map((name) => queue.add(() => bucket.remove(name, signal))));
}
