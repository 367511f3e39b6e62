/** What is stored of a data set beside its segments: the list of entries, the digests, and last the manifest. */
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import type { Entry, Manifest, Segment } from '../../core/data-set.ts';
import { segmentDigests } from '../../core/data-set.ts';
import { PortError } from '../../core/errors.ts';
import { readManifest, readObject, verifyObject } from '../../drivers/stores/read-back.ts';
import type { Store } from '../../drivers/stores/store.ts';
import { isSparse } from '../../tools/segment-tar.ts';
import { rangesOf } from '../../tools/tree-content.ts';
import type { TreeEntry } from '../../tools/tree-walk.ts';
import { putCompressed } from './put-compressed.ts';

/** What was written. */
export interface WrittenSet {
  manifest: Manifest;
  sha256: string;
}

/** A tree whose segments are all in the store. */
export interface StoredTree {
  store: Store;
  id: string;
  /** Absolute path of the tree in the guest. */
  path: string;
  entries: readonly TreeEntry[];
  segments: Segment[];
  /** Number of the segment that holds an entry, by path; what is not named is in the last one. */
  segmentOf: ReadonlyMap<string, number>;
  /** sha256 of regular files, by path. */
  digests: ReadonlyMap<string, string>;
  signal: AbortSignal;
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

/** Puts the list of entries and the segments' digests, and last the manifest: without it the set does not exist. Throws STORE_MISMATCH and as the store does. */
export async function putLists(tree: StoredTree): Promise<WrittenSet> {
  const { store, id, entries, segments, segmentOf, digests, signal } = tree;
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
    path: tree.path,
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
