/**
 * Data sets from store to store, of any two kinds. What is there is not sent again; segments go first, side by side, and the
 * manifest last, so that a copy under way is never taken for a whole one. Nothing in the target is removed.
 */
import { createHash, randomInt } from 'node:crypto';
import PQueue from 'p-queue';
import { DATA_SET_ID, Manifest, segmentDigests } from '../../core/data-set.ts';
import { asPortError, PortError } from '../../core/errors.ts';
import type { DataSetOutcome, SyncContext } from '../../core/sync/types.ts';
import { parsedJson, printable } from '../../core/text.ts';
import { readObject, verifyObject, verifyPresence } from '../../drivers/stores/read-back.ts';
import type { Store } from '../../drivers/stores/store.ts';
import { objectsOf } from '../data/sets.ts';
import {
  type CarriedObject,
  type CarryStores,
  carryObject,
  isThere,
  type WantedObject,
} from './carry-object.ts';

/** Objects at a time, where the target names no number. */
const LANES = 4;
/** Data sets looked at beside each other; their objects share the lanes. */
const SETS = 4;
/** How many new objects are read back besides the first and the last. */
const SAMPLES = 3;

/** A manifest as bytes, and what it names. */
interface ReadSet {
  /** Every object but the manifest itself. */
  objects: WantedObject[];
  bytes: Buffer;
  sha256: string;
}

/**
 * Brings data sets into another store. One that fails does not stop the others: its outcome says why. `target` of an outcome is
 * for the caller to fill in. Throws INTERRUPTED alone.
 */
export async function carryDataSets(
  ids: readonly string[],
  from: Store,
  to: Store,
  ctx: SyncContext,
): Promise<DataSetOutcome[]> {
  const sets = new PQueue({ concurrency: SETS });
  const lanes = new PQueue({ concurrency: to.lanes ?? LANES });
  const one = async (id: string): Promise<DataSetOutcome> => {
    const outcome: DataSetOutcome = { id, target: '', result: 'skipped', sentBytes: 0, keptBytes: 0 };
    try {
      await new Carrying(id, from, to, ctx, lanes, outcome).run();
    } catch (error) {
      if (ctx.signal.aborted) throw new PortError('INTERRUPTED', 'interrupted', { cause: error });
      const { code, message } = asPortError(error);
      ctx.log.warn('data set not carried', { id, code, message });
      Object.assign(outcome, { result: 'failed', code, message });
    }
    return outcome;
  };
  const ends = await Promise.allSettled([...new Set(ids)].map((id) => sets.add(() => one(id))));
  return ends.map((end) => {
    if (end.status === 'rejected') throw end.reason;
    return end.value;
  });
}

/** One data set on its way. */
class Carrying {
  readonly #id: string;
  readonly #from: Store;
  readonly #to: Store;
  readonly #ctx: SyncContext;
  readonly #lanes: PQueue;
  readonly #outcome: DataSetOutcome;

  constructor(id: string, from: Store, to: Store, ctx: SyncContext, lanes: PQueue, outcome: DataSetOutcome) {
    this.#id = id;
    this.#from = from;
    this.#to = to;
    this.#ctx = ctx;
    this.#lanes = lanes;
    this.#outcome = outcome;
  }

  async run(): Promise<void> {
    const set = await readSet(this.#from, this.#id);
    const wanted = set.objects;
    const listed = await objectsOf(this.#to, this.#id);
    const there = new Map(listed.map((object) => [object.key, object]));
    const old = there.has(this.#manifestKey)
      ? await readSet(this.#to, this.#id).catch(unlessBroken)
      : undefined;
    const totalBytes = wanted.reduce((sum, object) => sum + object.bytes, set.bytes.length);
    if (old?.sha256 === set.sha256 && wanted.every((o) => there.get(o.key)?.bytes === o.bytes)) {
      this.#outcome.keptBytes = totalBytes;
      return;
    }
    if (old !== undefined && old.sha256 !== set.sha256)
      this.#ctx.warn(
        `data set ${this.#id} in ${this.#to.url} is another state: the one of the source replaces it`,
      );
    const proved = new Map(old?.objects.map((object) => [object.key, object.sha256]));
    let checkedSpace: Promise<void> | undefined;
    const missingBytes = wanted.reduce(
      (sum, o) => sum + (there.get(o.key)?.bytes === o.bytes ? 0 : o.bytes),
      0,
    );
    const carried = await this.#inLanes(wanted, totalBytes, async (object, stores) => {
      if (await isThere(object, there.get(object.key), proved, stores)) {
        this.#outcome.keptBytes += object.bytes;
        stores.onBytes(object.bytes);
        return undefined;
      }
      checkedSpace ??= this.#to.check(missingBytes);
      await checkedSpace;
      const done = await carryObject(object, stores);
      this.#count(done);
      return done;
    });
    const sent = carried.filter((object) => object !== undefined);
    await this.#readBack(sent);
    const { signal } = this.#ctx;
    if (old?.sha256 !== set.sha256) {
      const manifest = {
        key: this.#manifestKey,
        bytes: set.bytes.length,
        sha256: set.sha256,
        content: set.bytes,
      };
      this.#count(
        await carryObject(
          manifest,
          this.#stores(signal, () => {}),
        ),
      );
      await verifyObject(this.#to, manifest.key, manifest, signal);
    } else this.#outcome.keptBytes += set.bytes.length;
    this.#outcome.result = 'done';
  }

  get #manifestKey(): string {
    return `${this.#id}/manifest.json`;
  }

  #count({ bytes, kept }: CarriedObject): void {
    if (kept) this.#outcome.keptBytes += bytes;
    else this.#outcome.sentBytes += bytes;
  }

  #stores(signal: AbortSignal, onBytes: (bytes: number) => void): CarryStores {
    return {
      from: this.#from,
      to: this.#to,
      signal,
      onBytes,
      onRetry: (error) => this.#ctx.warn(`data set ${this.#id}: once more after: ${error.message}`),
    };
  }

  /** Does it for every object; the first failure stops the others of this data set, and is thrown when all have ended. */
  async #inLanes<T>(
    objects: readonly WantedObject[],
    totalBytes: number,
    work: (object: WantedObject, stores: CarryStores) => Promise<T>,
  ): Promise<T[]> {
    const stop = new AbortController();
    const signal = AbortSignal.any([stop.signal, this.#ctx.signal]);
    let doneBytes = 0;
    const stores = this.#stores(signal, (bytes) => {
      doneBytes += bytes;
      this.#ctx.progress({ text: `data set ${this.#id}`, doneBytes, totalBytes });
    });
    let first: unknown;
    const one = async (object: WantedObject): Promise<T> => {
      try {
        signal.throwIfAborted();
        return await work(object, stores);
      } catch (error) {
        first ??= error;
        stop.abort();
        throw error;
      }
    };
    const ends = await Promise.allSettled(objects.map((object) => this.#lanes.add(() => one(object))));
    if (first !== undefined) throw first;
    return ends.flatMap((end) => (end.status === 'fulfilled' ? [end.value] : []));
  }

  /** Size and tag of all that was sent, content of a sample; before the manifest makes it count. Throws STORE_MISMATCH. */
  async #readBack(sent: readonly CarriedObject[]): Promise<void> {
    if (sent.length === 0) return;
    const chosen = new Set([0, sent.length - 1]);
    for (let i = 0; i < SAMPLES; i++) chosen.add(randomInt(sent.length));
    const numbers = new Map(sent.map((object, index) => [object.key, index]));
    await this.#inLanes(sent, 0, async (object, { signal }) => {
      const index = numbers.get(object.key) ?? 0;
      if (chosen.has(index)) await verifyObject(this.#to, object.key, object, signal);
      else await verifyPresence(this.#to, object.key, { bytes: object.bytes, etag: sent[index]?.etag });
    });
  }
}

/** The manifest of a whole set. Throws STORE when there is none, STORE_MISMATCH when it is broken. */
async function readSet(store: Store, id: string): Promise<ReadSet> {
  if (!DATA_SET_ID.test(id)) throw new PortError('CONFIG', `${printable(id)} is no id of a data set`);
  const key = `${id}/manifest.json`;
  const bytes = await readObject(store, key);
  const parsed = Manifest.safeParse(parsedJson(bytes.toString('utf8')));
  if (!parsed.success || parsed.data.id !== id)
    throw new PortError('STORE_MISMATCH', `${key} of ${store.url} is no manifest of this data set`, {
      hint: `port-image data verify ${id} --store ${store.url}`,
    });
  return {
    objects: objectsFor(parsed.data, store),
    bytes,
    sha256: createHash('sha256').update(bytes).digest('hex'),
  };
}

/** A target's manifest that cannot be read counts as none: the set is made whole. */
function unlessBroken(error: unknown): undefined {
  if (error instanceof PortError && error.code === 'STORE_MISMATCH') return undefined;
  throw error;
}

/** Every object of a set but the manifest. Throws STORE_MISMATCH for a manifest that contradicts itself. */
function objectsFor(manifest: Manifest, store: Store): WantedObject[] {
  const sums = Buffer.from(segmentDigests(manifest.segments));
  const { entries, segments, segmentsSha256 } = manifest;
  const objects: WantedObject[] = [
    ...segments.map(({ key, bytes, sha256 }) => ({ key, bytes, sha256 })),
    { key: entries.key, bytes: entries.bytes, sha256: entries.sha256 },
    { key: 'segments.sha256', bytes: sums.length, sha256: segmentsSha256, content: sums },
  ];
  const keys = new Set([...objects.map((o) => o.key), 'manifest.json']);
  if (keys.size !== objects.length + 1 || createHash('sha256').update(sums).digest('hex') !== segmentsSha256)
    throw new PortError('STORE_MISMATCH', `${manifest.id}/manifest.json of ${store.url} contradicts itself`, {
      hint: 'the store lost or changed data: restore from another copy, or convert again',
    });
  return objects.map((object) => ({ ...object, key: `${manifest.id}/${object.key}` }));
}
