/** A data set that an earlier, killed run of the same job already finished. */
import { DATA_SET_ID } from '../../core/data-set.ts';
import { PortError } from '../../core/errors.ts';
import { readEntries, readManifest, verifyObject, verifyPresence } from '../../drivers/stores/read-back.ts';
import type { Store } from '../../drivers/stores/store.ts';
import type { TreeEntry } from '../../tools/tree-walk.ts';
import { isSample } from './segments.ts';
import { entryLine, type WrittenSet } from './set-lists.ts';

/**
 * The stored set when it is complete, unchanged in the store, and lists exactly what the walk found (names, owners,
 * modes, sizes, both times, links, xattrs, holes). Undefined otherwise.
 */
export async function reusableSet(
  store: Store,
  id: string,
  path: string,
  entries: readonly TreeEntry[],
  signal: AbortSignal,
  verify: 'full' | 'sampled' = 'full',
): Promise<WrittenSet | undefined> {
  if (!DATA_SET_ID.test(id) || (await store.head(`${id}/manifest.json`)) === undefined) return undefined;
  try {
    const found = await readManifest(store, id);
    const { manifest } = found;
    if (manifest.path !== path || manifest.entryCount !== entries.length) return undefined;
    let index = 0;
    for await (const stored of readEntries(store, manifest)) {
      const entry = entries[index];
      index += 1;
      if (entry === undefined) return undefined;
      const { sha256: _sha256, segment: _segment, ...found } = stored;
      const { segment: _none, ...fresh } = entryLine(entry, 1, undefined);
      if (canonical(found) !== canonical(fresh)) return undefined;
    }
    await verifyObject(store, `${id}/segments.sha256`, {
      bytes: manifest.segments.reduce((sum, s) => sum + 64 + 2 + s.key.length + 1, 0),
      sha256: manifest.segmentsSha256,
    });
    for (const [i, segment] of manifest.segments.entries()) {
      const key = `${id}/${segment.key}`;
      if (verify === 'full' || isSample(i, manifest.segments.length))
        await verifyObject(store, key, segment, signal);
      else await verifyPresence(store, key, { bytes: segment.bytes });
    }
    return found;
  } catch (error) {
    if (error instanceof PortError && (error.code === 'STORE' || error.code === 'STORE_MISMATCH'))
      return undefined;
    throw error;
  }
}

const canonical = (value: object): string =>
  JSON.stringify(value, (_key, v: unknown) =>
    v !== null && typeof v === 'object' && !Array.isArray(v)
      ? Object.fromEntries(Object.entries(v).sort(([a], [b]) => (a < b ? -1 : 1)))
      : v,
  );
