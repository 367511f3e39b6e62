/** Reading a data set back out of a store and proving that it is what was written. */
import { createHash } from 'node:crypto';
import { createInterface } from 'node:readline';
import { PassThrough, type Readable, type Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createZstdDecompress } from 'node:zlib';
import { extract, type Header } from 'tar-stream';
import { Entry, Manifest, type Segment } from '../../core/data-set.ts';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import type { Store } from './store.ts';

const MANIFEST_LIMIT = 64 * 1024 * 1024;
const ZEROS = Buffer.alloc(1 << 20);

/** A member as it must come back. */
export interface ExpectedMember {
  /** Raw bytes as latin1, as in the manifest (no trailing slash). */
  path: string;
  /** Type flag name of tar-stream. */
  type: string;
  /** Regular files: content with holes as zeros. */
  sha256?: string;
  size: number;
}

function mismatch(key: string, what: string): PortError {
  return new PortError('STORE_MISMATCH', `${key}: ${printable(what)}`, {
    hint: 'the store lost or changed data; nothing was removed from the image',
  });
}

/** Reads a small object whole. */
export async function readObject(store: Store, key: string, limit = MANIFEST_LIMIT): Promise<Buffer> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of await store.get(key)) {
    parts.push(part as Buffer);
    bytes += (part as Buffer).length;
    if (bytes > limit) throw mismatch(key, `larger than ${limit} bytes`);
  }
  return Buffer.concat(parts);
}

/** Reads and checks a manifest; `sha256` is its digest when it is known. Throws STORE, STORE_MISMATCH. */
export async function readManifest(
  store: Store,
  id: string,
  sha256?: string,
): Promise<{ manifest: Manifest; sha256: string }> {
  const key = `${id}/manifest.json`;
  const bytes = await readObject(store, key);
  const digest = createHash('sha256').update(bytes).digest('hex');
  if (sha256 !== undefined && sha256 !== digest) throw mismatch(key, `has sha256 ${digest}, not ${sha256}`);
  let manifest: Manifest;
  try {
    manifest = Manifest.parse(JSON.parse(bytes.toString('utf8')));
  } catch (error) {
    throw new PortError('STORE_MISMATCH', `${key} is no manifest of a data set`, { cause: error });
  }
  if (manifest.id !== id) throw mismatch(key, `belongs to ${manifest.id}`);
  return { manifest, sha256: digest };
}

/** Entries of a data set in order, digest checked at the end. Throws STORE_MISMATCH. */
export async function* readEntries(store: Store, manifest: Manifest): AsyncIterable<Entry> {
  const key = `${manifest.id}/${manifest.entries.key}`;
  const hash = createHash('sha256');
  const input = await store.get(key);
  const unpacked = createZstdDecompress();
  const feeding = pipeline(
    input,
    async function* (source: AsyncIterable<Buffer>) {
      for await (const chunk of source) {
        hash.update(chunk);
        yield chunk;
      }
    },
    unpacked,
  );
  feeding.catch((error: Error) => unpacked.destroy(error));
  let count = 0;
  const output = unpacked.pipe(new PassThrough());
  unpacked.on('error', (error) => output.destroy(error));
  try {
    for await (const line of createInterface({ input: output, crlfDelay: Number.POSITIVE_INFINITY })) {
      yield Entry.parse(JSON.parse(line));
      count += 1;
    }
    await feeding;
  } catch (error) {
    if (error instanceof PortError) throw error;
    throw new PortError('STORE_MISMATCH', `${key} cannot be read`, { cause: error });
  }
  if (hash.digest('hex') !== manifest.entries.sha256 || count !== manifest.entryCount) {
    throw mismatch(key, 'is not what the manifest says');
  }
}

/** Reads the map in front of the data of a GNU sparse 1.0 member; undefined while more bytes are needed. */
function parseSparse(head: Buffer): { map: [number, number][]; bytes: number } | undefined {
  let at = 0;
  const number = (): number | undefined => {
    const end = head.indexOf(10, at);
    if (end === -1) return undefined;
    const value = Number(head.toString('latin1', at, end));
    at = end + 1;
    return value;
  };
  const count = number();
  if (count === undefined) return undefined;
  const map: [number, number][] = [];
  for (let i = 0; i < count; i += 1) {
    const offset = number();
    const length = number();
    if (offset === undefined || length === undefined) return undefined;
    map.push([offset, length]);
  }
  const bytes = Math.ceil(at / 512) * 512;
  return head.length < bytes ? undefined : { map, bytes };
}

function addZeros(hash: { update(data: Uint8Array): unknown }, bytes: number): void {
  for (let left = bytes; left > 0; left -= ZEROS.length)
    hash.update(ZEROS.subarray(0, Math.min(left, ZEROS.length)));
}

const paxOf = (header: Header) => (header.pax ?? {}) as Record<string, string | undefined>;

/** sha256 and size of a member's content, holes included. */
async function digestMember(
  header: Header,
  body: AsyncIterable<Buffer>,
): Promise<{ sha256: string; size: number }> {
  const hash = createHash('sha256');
  const pax = paxOf(header);
  if (pax['GNU.sparse.major'] === undefined) {
    let size = 0;
    for await (const chunk of body) {
      hash.update(chunk);
      size += chunk.length;
    }
    return { sha256: hash.digest('hex'), size };
  }
  const size = Number(pax['GNU.sparse.realsize']);
  let head: Buffer | undefined = Buffer.alloc(0);
  let map: [number, number][] = [];
  let range = 0;
  let left = 0;
  let at = 0;
  const take = (data: Buffer) => {
    let rest = data;
    while (rest.length > 0 && range < map.length) {
      const [offset, length] = map[range] ?? [0, 0];
      if (left === 0) {
        addZeros(hash, offset - at);
        at = offset;
        left = length;
      }
      const part = rest.subarray(0, left);
      hash.update(part);
      at += part.length;
      left -= part.length;
      rest = rest.subarray(part.length);
      if (left === 0) range += 1;
    }
  };
  for await (const chunk of body) {
    if (head === undefined) {
      take(chunk);
      continue;
    }
    head = Buffer.concat([head, chunk]);
    const parsed = parseSparse(head);
    if (parsed === undefined) continue;
    map = parsed.map.filter(([, length]) => length > 0);
    const rest = head.subarray(parsed.bytes);
    head = undefined;
    take(rest);
  }
  addZeros(hash, size - at);
  return { sha256: hash.digest('hex'), size };
}

/**
 * Gets a segment and checks everything: sha256 of the stored bytes, that it unpacks, and each member's name, type, size
 * and sha256 in order. Throws STORE_MISMATCH.
 */
export async function verifySegment(
  store: Store,
  prefix: string,
  segment: Segment,
  expected: readonly ExpectedMember[],
  signal?: AbortSignal,
): Promise<void> {
  const key = `${prefix}/${segment.key}`;
  const hash = createHash('sha256');
  let bytes = 0;
  const tar = extract();
  const input = await store.get(key, { signal });
  const unpacking = pipeline(
    input,
    async function* (source: AsyncIterable<Buffer>) {
      for await (const chunk of source) {
        hash.update(chunk);
        bytes += chunk.length;
        yield chunk;
      }
    },
    createZstdDecompress({ chunkSize: 1 << 18 }),
    tar as unknown as Writable,
    ...(signal === undefined ? [] : [{ signal }]),
  );
  const checking = (async () => {
    let index = 0;
    for await (const entry of tar) {
      const { header } = entry;
      const want = expected[index];
      index += 1;
      const got = await digestMember(header, entry as unknown as AsyncIterable<Buffer>);
      if (want === undefined) throw mismatch(key, 'holds more members than were written');
      const name = (paxOf(header)['GNU.sparse.name'] ?? header.name).replace(/(.)\/$/s, '$1');
      // tar-stream decodes names as UTF-8 and so loses other bytes; both sides lose the same.
      const wanted = want.path === '' ? '.' : Buffer.from(want.path, 'latin1').toString('utf8');
      const same =
        name === wanted &&
        header.type === want.type &&
        (want.sha256 === undefined || (got.sha256 === want.sha256 && got.size === want.size));
      if (!same) throw mismatch(key, `member ${wanted} came back different`);
    }
    if (index !== expected.length) throw mismatch(key, `holds ${index} members, not ${expected.length}`);
  })();
  checking.catch((error: Error) => tar.destroy(error));
  const results = await Promise.allSettled([checking, unpacking]);
  signal?.throwIfAborted();
  const digest = hash.digest('hex');
  const failed = results.find((r) => r.status === 'rejected');
  if (failed?.status === 'rejected') {
    if (failed.reason instanceof PortError) throw failed.reason;
    throw new PortError('STORE_MISMATCH', `${key} cannot be unpacked`, { cause: failed.reason });
  }
  if (bytes !== segment.bytes || digest !== segment.sha256) {
    throw mismatch(key, `has ${bytes} bytes with sha256 ${digest}`);
  }
}

/** Hashes a stored object as it is. Throws STORE_MISMATCH when size or sha256 differ. */
export async function verifyObject(
  store: Store,
  key: string,
  want: { bytes: number; sha256: string },
  signal?: AbortSignal,
): Promise<void> {
  const head = await store.head(key);
  if (head === undefined) throw mismatch(key, 'is missing');
  if (head.bytes !== want.bytes) throw mismatch(key, `has ${head.bytes} bytes, not ${want.bytes}`);
  let { sha256 } = head;
  if (sha256 === undefined) {
    const hash = createHash('sha256');
    const input: Readable = await store.get(key, { signal });
    for await (const chunk of input) hash.update(chunk as Buffer);
    sha256 = hash.digest('hex');
  }
  if (sha256 !== want.sha256) throw mismatch(key, `has sha256 ${sha256}, not ${want.sha256}`);
}

/** Asks for size and tag of a stored object only. Throws STORE_MISMATCH when they are not those of `put`. */
export async function verifyPresence(
  store: Store,
  key: string,
  want: { bytes: number; etag?: string | undefined },
): Promise<void> {
  const head = await store.head(key);
  if (head === undefined) throw mismatch(key, 'is missing');
  if (head.bytes !== want.bytes) throw mismatch(key, `has ${head.bytes} bytes, not ${want.bytes}`);
  if (want.etag !== undefined && head.etag !== want.etag)
    throw mismatch(key, 'has another tag than was given for it');
}
