/** What in a data set is garbage. Pure: a listing, a manifest and the time in, keys with reasons out. */
import type { Manifest } from '../../core/data-set.ts';
import type { StoredObject } from '../../drivers/stores/store.ts';
import type { Leftover } from './leftovers.ts';

/** Where stored provision documents lie below a data set; the name says when the URLs in it end. */
export const POINTER_KEY = /^provision\/(\d{4}-\d\d-\d\dT\d\d)(\d\d)(\d\d)Z-[0-9a-f]{32}\.json$/;

/** Keys that are written below a data set. A folder store lies in a file system where others keep files too. */
const OWN_KEY = /^(manifest\.json|segments\.sha256|entries\.jsonl\.zst|segments\/\d{6,}\.tar\.zst)$/;
/** The end of an id that `dataSetId` made. */
const OWN_ID = /(^|-)[0-9a-f]{10}$/;

/** The first object below a data set that port-image did not write; undefined when all are its own. */
export function foreignKey(id: string, objects: readonly StoredObject[]): string | undefined {
  return objects
    .filter((o) => o.key.startsWith(`${id}/`))
    .map((o) => o.key.slice(id.length + 1))
    .find((key) => !OWN_KEY.test(key) && pointerEnd(key) === undefined);
}

/** What is known about one data set. */
export interface GcInput {
  id: string;
  objects: readonly StoredObject[];
  /** What no listing shows and no object uses. */
  leftovers?: readonly Leftover[];
  /** Undefined without a manifest; `unreadable` for one that cannot be believed. */
  manifest: Manifest | undefined | 'unreadable';
  /** A running job of this machine writes to it. */
  inUse?: string | undefined;
  nowMs: number;
  /** What changed more recently is left alone. */
  olderThanMs: number;
}

/** An object to remove. */
export interface Garbage {
  key: string;
  bytes: number;
  why: string;
  /** It is one of the leftovers. */
  hidden?: true;
}

/** What to do with one data set. */
export interface GcPlan {
  id: string;
  garbage: Garbage[];
  /** Why something that looks like garbage is left alone. */
  kept: string | undefined;
  /** Nothing of the set is of use: its container goes too. */
  whole: boolean;
}

/** When the URLs of a stored provision document end, in ms since 1970; undefined when the key is none of these. */
export function pointerEnd(key: string): number | undefined {
  const [, hour, minute, second] = POINTER_KEY.exec(key) ?? [];
  const end = hour === undefined ? Number.NaN : Date.parse(`${hour}:${minute}:${second}Z`);
  return Number.isNaN(end) ? undefined : end;
}

/**
 * Garbage of one data set. Without a manifest everything is, once even its newest object is old enough: a run that is
 * still writing keeps touching it. With one, whatever it does not name. An unknown age counts as young, and what
 * port-image would not write is never garbage.
 */
export function planGarbage(input: GcInput): GcPlan {
  const { id, objects, manifest, nowMs, olderThanMs } = input;
  const leave = (kept: string | undefined): GcPlan => ({ id, garbage: [], kept, whole: false });
  const isOld = (object: StoredObject) =>
    object.modifiedMs !== undefined && nowMs - object.modifiedMs > olderThanMs;
  const own = objects.filter((o) => o.key.startsWith(`${id}/`));
  const leftovers = (input.leftovers ?? []).filter((o) => o.key.startsWith(`${id}/`));
  const active = new Set(leftovers.filter((o) => !isOld(o)).map((o) => o.upload));
  const loose = leftovers
    .filter((o) => !active.has(o.upload))
    .map(({ key, bytes }): Garbage => ({ key, bytes, why: 'left by a killed upload', hidden: true }));
  if (manifest === 'unreadable') return leave('its manifest cannot be read; port-image data rm removes it');
  if (manifest === undefined) {
    if (input.inUse !== undefined) return leave(input.inUse);
    if (own.some((o) => o.key === `${id}/manifest.json`)) return leave('it has got a manifest meanwhile');
    const foreign = foreignKey(id, own);
    if (foreign !== undefined) return leave(`port-image did not write ${foreign}, so it is no data set`);
    // An empty folder of another name may be anybody's.
    if (own.length === 0 && !OWN_ID.test(id)) return leave(undefined);
    if (!own.every(isOld) || active.size > 0) return leave('it is too young');
    return {
      id,
      garbage: [...own.map(({ key, bytes }) => ({ key, bytes, why: 'the set has no manifest' })), ...loose],
      kept: undefined,
      whole: true,
    };
  }
  const named = new Set([
    'manifest.json',
    'segments.sha256',
    manifest.entries.key,
    ...manifest.segments.map((s) => s.key),
  ]);
  const garbage: Garbage[] = [];
  let young = leftovers.length - loose.length;
  for (const object of own) {
    const key = object.key.slice(id.length + 1);
    if (named.has(key)) continue;
    const endMs = pointerEnd(key);
    if (endMs === undefined && !OWN_KEY.test(key)) continue;
    if (endMs !== undefined && endMs > nowMs) continue;
    if (!isOld(object)) {
      young += 1;
      continue;
    }
    const why = endMs === undefined ? 'the manifest does not name it' : 'its URLs are expired';
    garbage.push({ key: object.key, bytes: object.bytes, why });
  }
  garbage.push(...loose);
  if (garbage.length > 0 && input.inUse !== undefined) return leave(input.inUse);
  return {
    id,
    garbage,
    kept: young === 0 ? undefined : `${young} objects beside it are too young`,
    whole: false,
  };
}
