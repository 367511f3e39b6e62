/** Writes one walked tree into a store as a data set, reads it back, and only then says it is there. */
import PQueue from 'p-queue';
import { type Segment, segmentKey } from '../../core/data-set.ts';
import { PortError } from '../../core/errors.ts';
import { type ExpectedMember, verifyPresence, verifySegment } from '../../drivers/stores/read-back.ts';
import type { Store } from '../../drivers/stores/store.ts';
import { type Member, TAR_TYPES, writeSegment } from '../../tools/segment-tar.ts';
import { rangesOf, type TreeContent } from '../../tools/tree-content.ts';
import type { TreeEntry } from '../../tools/tree-walk.ts';
import { putCompressed } from './put-compressed.ts';
import { archiveBound, isSample, planSegments } from './segments.ts';
import { putLists, type WrittenSet } from './set-lists.ts';

const LANES = 2;

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
      const open = () => {
        const { out, done } = writeSegment(list, content, signal);
        return { source: out, done };
      };
      const stored = await putCompressed(store, `${id}/${key}`, open, archiveBound(list, content), signal);
      options.onBytes?.(dataBytes);
      const segment: Segment = {
        key,
        bytes: stored.bytes,
        tarBytes: stored.plainBytes,
        sha256: stored.sha256,
        entries: list.length,
      };
      if (options.verify !== 'sampled' || isSample(index, members.length)) {
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

  const { path, signal: stop } = options;
  return putLists({ store, id, path, entries, segments, segmentOf, digests, signal: stop });
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
