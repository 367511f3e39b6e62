/** Writes one walked tree into a store as a data set, reads it back, and only then says it is there. */
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { constants, createZstdCompress } from 'node:zlib';
import PQueue from 'p-queue';
import { type Entry, type Manifest, type Segment, segmentDigests, segmentKey } from '../../core/data-set.ts';
import { PortError } from '../../core/errors.ts';
import { MIB } from '../../core/sizes.ts';
import {
  type ExpectedMember,
  readManifest,
  readObject,
  verifyObject,
  verifyPresence,
  verifySegment,
} from '../../drivers/stores/read-back.ts';
import type { Store } from '../../drivers/stores/store.ts';
import { isSparse, type Member, memberBytes, writeSegment } from '../../tools/segment-tar.ts';
import { rangesOf, type TreeContent } from '../../tools/tree-content.ts';
import type { TreeEntry } from '../../tools/tree-walk.ts';

/** Uncompressed bytes after which a segment is closed. A file is never split, so a segment may be larger. */
const SEGMENT_BYTES = 128 * MIB;
const LANES = 2;
/** Out of so many segments one is read back whole where a sample is enough; the first and the last always are. */
const SAMPLE_ONE_IN = 10;
/** Compressed bytes of long runs of zeros are sent on after so many plain ones: a store ends connections that are silent. */
const FLUSH_BYTES = 256 * MIB;
/** Allowance for pax headers (long names, xattrs, maps of holes): per member, and per archive with its end. */
const MEMBER_HEADERS_BYTES = 4096;
const ARCHIVE_HEADERS_BYTES = 128 * 1024;
// Level 3: 250-400 MB/s on one core. ZSTD_c_nbWorkers stays 0: its threads take memory per segment, lanes do not.
const ZSTD = { chunkSize: 1 << 18, params: { [constants.ZSTD_c_compressionLevel]: 3 } };

const TAR_TYPES: Readonly<Record<TreeEntry['type'], string>> = {
  file: 'file',
  dir: 'directory',
  symlink: 'symlink',
  link: 'link',
  fifo: 'fifo',
  char: 'character-device',
  block: 'block-device',
};

/** What to write and where. */
export interface WriteOptions {
  store: Store;
  id: string;
  /** Absolute path of the tree in the guest. */
  path: string;
  entries: readonly TreeEntry[];
  /** Opens the content; each lane has its own. */
  openContent: () => Promise<TreeContent>;
  signal: AbortSignal;
  segmentBytes?: number;
  /** Reads every segment back, or the size and tag of each and a sample of them. Default `full`. */
  verify?: 'full' | 'sampled';
  /** Called with bytes of content done (written, then verified: each byte counts twice). */
  onBytes?: (bytes: number) => void;
}

/** What was written. */
export interface WrittenSet {
  manifest: Manifest;
  sha256: string;
}

/** Cuts the tree into segments. The last one completes the folders, after everything was put into them. */
function planSegments(
  entries: readonly TreeEntry[],
  content: Pick<TreeContent, 'ranges'>,
  target = SEGMENT_BYTES,
): Member[][] {
  const segments: Member[][] = [];
  let current: Member[] = [];
  let bytes = 0;
  for (const entry of entries) {
    if (entry.path === '') continue;
    const member: Member = { entry, bare: entry.type === 'dir' };
    const size = memberBytes(member, content as TreeContent);
    if (current.length > 0 && bytes + size > target) {
      segments.push(current);
      current = [];
      bytes = 0;
    }
    current.push(member);
    bytes += size;
  }
  if (current.length > 0) segments.push(current);
  const folders = entries.filter((e) => e.type === 'dir').map((entry) => ({ entry, bare: false }));
  segments.push(folders);
  return segments;
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

/** A stream of bytes and the work behind it. */
interface Produced<T> {
  source: AsyncIterable<Uint8Array>;
  done: Promise<T>;
}

interface StoredBytes<T> {
  bytes: number;
  sha256: string;
  etag: string | undefined;
  plainBytes: number;
  produced: T;
}

/** Compresses a stream into an object; `open` starts the stream anew for each attempt of the store. */
async function putCompressed<T>(
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

/** Largest result of compressing so many bytes (ZSTD_COMPRESSBOUND of zstd.h, and the frame's checksum). */
function zstdBound(bytes: number): number {
  return bytes + Math.ceil(bytes / 256) + 64 * 1024;
}

/** Name of an xattr (raw bytes as latin1) as text: `%` and bytes outside printable ASCII as %xx. */
function attributeName(name: string): string {
  return name.replace(/[^\x20-\x24\x26-\x7e]/g, (c) => `%${c.charCodeAt(0).toString(16).padStart(2, '0')}`);
}

/** An entry as a line of the manifest's list. */
export function entryLine(entry: TreeEntry, segment: number, sha256: string | undefined): Entry {
  const base64 = (text: string) => Buffer.from(text, 'latin1').toString('base64');
  const ranges = entry.type === 'file' ? rangesOf(entry) : [];
  return {
    path: base64(entry.path),
    type: entry.type,
    mode: entry.mode,
    uid: entry.uid,
    gid: entry.gid,
    size: entry.size,
    mtimeNs: String(entry.mtimeNs),
    ctimeNs: String(entry.ctimeNs),
    ...(sha256 === undefined ? {} : { sha256 }),
    ...(entry.link === undefined ? {} : { link: base64(entry.link) }),
    ...(entry.xattrs === undefined
      ? {}
      : {
          xattrs: Object.fromEntries(
            [...entry.xattrs].map(([k, v]) => [attributeName(k), v.toString('base64')]),
          ),
        }),
    ...(entry.type === 'file' && isSparse(ranges, entry.size) ? { sparse: ranges } : {}),
    ...(entry.device === undefined ? {} : { device: entry.device }),
    segment,
  };
}

/** Writes, reads back and proves every segment, then the list and the manifest. */
export async function writeDataSet(options: WriteOptions): Promise<WrittenSet> {
  const { store, id, entries } = options;
  const abort = new AbortController();
  const signal = AbortSignal.any([options.signal, abort.signal]);
  await store.sweep?.(id, { keepResumable: true });
  const members = planSegments(entries, { ranges: rangesOf }, options.segmentBytes);
  const segments: Segment[] = [];
  const digests = new Map<string, string>();
  const segmentOf = new Map<string, number>();
  const idle: TreeContent[] = [];
  const queue = new PQueue({ concurrency: store.lanes ?? LANES });

  const one = async (list: Member[], index: number) => {
    const content = idle.pop() ?? (await options.openContent());
    try {
      const key = segmentKey(index + 1);
      const dataBytes = list.reduce((sum, m) => sum + (m.bare ? 0 : m.entry.size), 0);
      const tarBytes = list.reduce(
        (sum, m) => sum + memberBytes(m, content) + MEMBER_HEADERS_BYTES,
        ARCHIVE_HEADERS_BYTES,
      );
      const open = () => {
        const { out, done } = writeSegment(list, content, signal);
        return { source: out, done };
      };
      const stored = await putCompressed(store, `${id}/${key}`, open, tarBytes, signal);
      options.onBytes?.(dataBytes);
      const segment: Segment = {
        key,
        bytes: stored.bytes,
        tarBytes: stored.plainBytes,
        sha256: stored.sha256,
        entries: list.length,
      };
      const isSample = index === 0 || index === members.length - 1 || index % SAMPLE_ONE_IN === 0;
      if (options.verify !== 'sampled' || isSample) {
        await verifySegment(store, id, segment, expected(list, stored.produced.digests), signal);
      } else {
        await verifyPresence(store, `${id}/${key}`, stored);
      }
      options.onBytes?.(dataBytes);
      segments[index] = segment;
      for (const { entry, bare } of list) if (!bare) segmentOf.set(entry.path, index + 1);
      for (const [path, sha256] of stored.produced.digests) digests.set(path, sha256);
    } catch (error) {
      abort.abort();
      throw error;
    } finally {
      idle.push(content);
    }
  };
  // Lanes take the next segment by themselves, so no list of waiting work is held.
  const results = await Promise.allSettled(members.map((list, i) => queue.add(() => one(list, i))));
  for (const content of idle) await content.close();
  options.signal.throwIfAborted();
  const errors = results.flatMap((r) => (r.status === 'rejected' ? [r.reason as unknown] : []));
  // The other lanes were stopped by the first failure and only say so.
  const cause = errors.find((e) => e instanceof PortError && e.code !== 'INTERRUPTED') ?? errors[0];
  if (cause !== undefined) throw cause;

  const manifest = await putLists(options, segments, segmentOf, digests);
  return manifest;
}

function expected(list: readonly Member[], digests: ReadonlyMap<string, string>): ExpectedMember[] {
  return list.map(({ entry }) => {
    const sha256 = entry.type === 'file' ? digests.get(entry.path) : undefined;
    return {
      path: entry.path,
      type: TAR_TYPES[entry.type],
      size: entry.size,
      ...(sha256 === undefined ? {} : { sha256 }),
    };
  });
}

/** Puts the list of entries and the segments' digests, and last the manifest: without it the set does not exist. */
async function putLists(
  options: WriteOptions,
  segments: Segment[],
  segmentOf: ReadonlyMap<string, number>,
  digests: ReadonlyMap<string, string>,
): Promise<WrittenSet> {
  const { store, id, entries, signal } = options;
  const lines = function* () {
    for (const entry of entries) {
      const line = entryLine(entry, segmentOf.get(entry.path) ?? segments.length, digests.get(entry.path));
      yield Buffer.from(`${JSON.stringify(line)}\n`);
    }
  };
  const entriesKey = 'entries.jsonl.zst';
  const list = await putCompressed(
    store,
    `${id}/${entriesKey}`,
    () => ({ source: Readable.from(lines()), done: Promise.resolve() }),
    undefined,
    signal,
  );
  await verifyObject(store, `${id}/${entriesKey}`, list, signal);
  const sums = Buffer.from(segmentDigests(segments));
  await store.put(`${id}/segments.sha256`, () => Readable.from([sums]), { bytes: sums.length, signal });
  const files = entries.filter((e) => e.type === 'file');
  const manifest: Manifest = {
    schema: 'port-image/data-set/1',
    id,
    path: options.path,
    bytes: files.reduce((sum, e) => sum + e.size, 0),
    allocatedBytes: entries.reduce((sum, e) => sum + e.allocatedBytes, 0),
    files: files.length,
    entryCount: entries.length,
    entries: { key: entriesKey, bytes: list.bytes, sha256: list.sha256 },
    compression: 'zstd',
    segments,
    segmentsSha256: createHash('sha256').update(sums).digest('hex'),
  };
  const body = Buffer.from(`${JSON.stringify(manifest, null, 2)}\n`);
  await store.put(`${id}/manifest.json`, () => Readable.from([body]), { bytes: body.length, signal });
  const back = await readManifest(store, id, createHash('sha256').update(body).digest('hex'));
  const sumsBack = await readObject(store, `${id}/segments.sha256`);
  if (!sumsBack.equals(sums))
    throw new PortError('STORE_MISMATCH', `${id}/segments.sha256 came back different`);
  await removeOthers(store, id, segments);
  await store.sweep?.(id);
  return { manifest, sha256: back.sha256 };
}

/** Removes segments of an earlier, larger attempt at the same set. */
async function removeOthers(store: Store, id: string, segments: readonly Segment[]): Promise<void> {
  const ours = new Set(segments.map((s) => `${id}/${s.key}`));
  for await (const object of store.list(`${id}/segments/`)) {
    if (!ours.has(object.key)) await store.remove(object.key);
  }
}
