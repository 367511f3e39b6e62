/** What data sets a store holds, and finding one of them by its id. Nothing here trusts what the store says. */
import PQueue from 'p-queue';
import { DATA_SET_ID, type Manifest } from '../../core/data-set.ts';
import { asPortError, PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { readManifest } from '../../drivers/stores/read-back.ts';
import type { Store, StoredObject } from '../../drivers/stores/store.ts';

const LANES = 4;
/** Most changes of letters between a wrong id and one that is offered instead. */
const NEAR = 6;
const OFFERED = 3;

/** One data set as `data list` shows it. */
export interface SetState {
  id: string;
  /** `incomplete`: no manifest, so nothing of it counts; `damaged`: a manifest that does not fit what is there. */
  state: 'complete' | 'incomplete' | 'damaged';
  /** Why it is damaged. */
  reason?: string;
  /** Path in the guest. */
  path?: string;
  files?: number;
  /** Content of its files. */
  bytes?: number;
  segments?: number;
  /** All objects of the set as they lie in the store. */
  storedBytes: number;
  objects: number;
  /** Newest object, milliseconds since 1970. */
  modifiedMs?: number;
}

/** Objects of one data set, in order of keys. */
export async function objectsOf(store: Store, id: string): Promise<StoredObject[]> {
  const objects: StoredObject[] = [];
  for await (const object of store.list(`${id}/`)) objects.push(object);
  return objects;
}

/** What of a manifest's objects is missing or has another size; undefined when all are there. */
export function missingPart(manifest: Manifest, objects: readonly StoredObject[]): string | undefined {
  const sizes = new Map(objects.map((o) => [o.key, o.bytes]));
  const wanted: [string, number | undefined][] = [
    ...manifest.segments.map((s): [string, number] => [s.key, s.bytes]),
    [manifest.entries.key, manifest.entries.bytes],
    ['segments.sha256', undefined],
  ];
  for (const [key, bytes] of wanted) {
    const found = sizes.get(`${manifest.id}/${key}`);
    if (found === undefined) return `${key} is missing`;
    if (bytes !== undefined && found !== bytes) return `${key} has ${found} bytes, not ${bytes}`;
  }
  return undefined;
}

/** Looks at one data set; a broken one is a state, no error. Throws only when the store itself fails. */
export async function stateOf(store: Store, id: string): Promise<SetState> {
  const objects = await objectsOf(store, id);
  const times = objects.flatMap((o) => (o.modifiedMs === undefined ? [] : [o.modifiedMs]));
  const base = {
    id,
    storedBytes: objects.reduce((sum, o) => sum + o.bytes, 0),
    objects: objects.length,
    ...(times.length === 0 ? {} : { modifiedMs: times.reduce((a, b) => Math.max(a, b)) }),
  };
  if (!objects.some((o) => o.key === `${id}/manifest.json`)) return { ...base, state: 'incomplete' };
  let manifest: Manifest;
  try {
    ({ manifest } = await readManifest(store, id));
  } catch (error) {
    const known = asPortError(error);
    if (known.temporary || known.code === 'INTERRUPTED' || known.code === 'BUG') throw known;
    return { ...base, state: 'damaged', reason: known.message };
  }
  const { path, files, bytes, segments } = manifest;
  const facts = { path, files, bytes, segments: segments.length };
  const reason = missingPart(manifest, objects);
  if (reason !== undefined) return { ...base, ...facts, state: 'damaged', reason };
  return { ...base, ...facts, state: 'complete' };
}

/** Every data set of a store in order of ids. One that cannot be looked at is shown as damaged with the reason. */
export async function listSets(
  store: Store,
  options: { signal?: AbortSignal; onSet?: (done: number) => void } = {},
): Promise<SetState[]> {
  const queue = new PQueue({ concurrency: LANES });
  const rows: Promise<SetState>[] = [];
  let done = 0;
  for await (const id of store.ids()) {
    rows.push(
      queue.add(async () => {
        options.signal?.throwIfAborted();
        try {
          return await stateOf(store, id);
        } catch (error) {
          const known = asPortError(error);
          if (known.code === 'INTERRUPTED') throw known;
          return { id, state: 'damaged' as const, reason: known.message, storedBytes: 0, objects: 0 };
        } finally {
          done += 1;
          options.onSet?.(done);
        }
      }),
    );
  }
  const settled = await Promise.allSettled(rows);
  return settled.map((row) => {
    if (row.status === 'rejected') throw asPortError(row.reason);
    return row.value;
  });
}

/** Changes of single letters that make one text of the other. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const change = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(change, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

/** The ids a wrong one may have been meant for, nearest first. */
export function nearestIds(wrong: string, ids: readonly string[]): string[] {
  const text = wrong.slice(0, 128);
  return ids
    .map((id) => ({ id, far: text !== '' && id.startsWith(text) ? 0 : distance(text, id) }))
    .filter(({ far }) => far <= NEAR)
    .sort((a, b) => a.far - b.far || (a.id < b.id ? -1 : 1))
    .slice(0, OFFERED)
    .map(({ id }) => id);
}

/** Throws USAGE, naming the nearest ids, unless the store holds something under this id. */
export async function requireId(store: Store, id: string): Promise<void> {
  const ids: string[] = [];
  for await (const known of store.ids()) {
    if (known === id) return;
    ids.push(known);
  }
  const near = nearestIds(id, ids);
  throw new PortError('USAGE', `no data set ${printable(id).slice(0, 80)} in ${store.url}`, {
    hint:
      near.length > 0
        ? `did you mean ${near.join(', ')}?`
        : ids.length === 0
          ? 'the store holds no data sets'
          : 'port-image data list shows what is there',
  });
}

/** A manifest by id. Throws USAGE for an unknown or incomplete set, STORE_MISMATCH for a broken manifest. */
export async function requireManifest(
  store: Store,
  id: string,
  sha256?: string,
): Promise<{ manifest: Manifest; sha256: string }> {
  if (!DATA_SET_ID.test(id) || (await store.head(`${id}/manifest.json`)) === undefined) {
    await requireId(store, id);
    throw new PortError('USAGE', `the data set ${id} is incomplete: it has no manifest`, {
      hint: 'a run that was stopped leaves such a set: resume that job, or remove it with port-image data gc',
    });
  }
  return readManifest(store, id, sha256);
}
