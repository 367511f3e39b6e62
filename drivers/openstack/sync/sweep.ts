/** Takes away what no image of a sync needs: leftovers of dead runs, tables of removed images, packs nobody refers to. */

import { DAY_MS } from '../../../core/durations.ts';
import type { Log } from '../../../core/log.ts';
import { isAlive, isSamePlace } from '../../../core/sync/owner.ts';
import type { TargetImage } from '../../../core/sync/types.ts';
import { STATE } from '../properties.ts';
import { BlockStore, tableName } from './block-store.ts';
import type { SyncCloud } from './client.ts';
import { MARK, targetImage } from './marks.ts';

/** Blocks of an image that was cut off are kept so long for the run that goes on with it. */
const PARTIAL_LIFE_MS = 3 * DAY_MS;

/** What is swept, and by whom. */
export interface SweepInput {
  cloud: SyncCloud;
  sync: string;
  images: readonly TargetImage[];
  owner: string;
  staleAfterMs: number;
  signal: AbortSignal;
  log: Log;
}

/** Returns the bytes freed in the object store. */
export async function sweep(input: SweepInput): Promise<number> {
  const { cloud, sync, images, owner, staleAfterMs, signal, log } = input;
  const isDead = (image: TargetImage) =>
    image.state !== 'complete' &&
    ((isSamePlace(image.owner, owner) && image.owner !== owner) ||
      !isAlive(image.aliveAt, staleAfterMs, cloud.now().getTime()));
  const left = new Set(images);
  for (const image of images.filter(isDead)) {
    try {
      // Looked at once more: it may have been finished since, or somebody goes on with it.
      const now = await cloud.glance.show(image.ref, { signal });
      const known = now === undefined ? undefined : targetImage(now, sync);
      if (now?.[MARK.state] === STATE.complete || (known !== undefined && !isDead(known))) continue;
      await cloud.glance.remove(image.ref, { signal });
      left.delete(image);
    } catch (error) {
      // One that is held by something keeps nothing else.
      if (signal.aborted) throw error;
      log.warn('a leftover stays', { image: image.ref, message: (error as Error).message });
    }
  }
  const store = await BlockStore.open(cloud.swift, sync, { make: false, signal });
  if (store === undefined) return 0;
  /** A run claims its image before it looks at packs: while one is under way they stay, whoever needs them. */
  const isQuiet = async () => {
    const filters = { owner: cloud.session.projectId, [MARK.sync]: sync, [MARK.state]: STATE.inProgress };
    for (const image of await cloud.images(filters, { hidden: false, signal })) {
      const known = targetImage(image, sync);
      if (known !== undefined && known.state !== 'complete' && !isDead(known)) return false;
    }
    return true;
  };
  return sweepStore(store, [...left], staleAfterMs, cloud.now().getTime(), isQuiet);
}

async function sweepStore(
  store: BlockStore,
  images: readonly TargetImage[],
  staleAfterMs: number,
  now: number,
  isQuiet: () => Promise<boolean>,
): Promise<number> {
  const age = (object: { modifiedMs?: number }) => now - (object.modifiedMs ?? now);
  const tables = new Set(images.map(tableName));
  const raws = new Set(images.filter((image) => image.state !== 'complete').map((image) => image.rawSha256));
  const ids = new Set(images.filter((image) => image.state !== 'complete').map((image) => image.ref));
  const gone: string[] = [];
  const kept: string[] = [];
  for (const object of await store.list('tables/'))
    (tables.has(object.name) || age(object) < staleAfterMs ? kept : gone).push(object.name);
  for (const object of await store.list('partial/')) {
    const [, raw = ''] = object.name.split('/');
    (raws.has(raw) || age(object) < PARTIAL_LIFE_MS ? kept : gone).push(object.name);
  }
  for (const object of await store.list('images/')) {
    const [, id = ''] = object.name.split('/');
    if (!ids.has(id) && age(object) > staleAfterMs) gone.push(object.name);
  }
  const packs = (await store.list('packs/')).filter((object) => age(object) > staleAfterMs);
  let freed = 0;
  if (packs.length > 0 && (await isQuiet())) {
    const needed = new Set<string>();
    for (const name of kept) {
      const table = await store.table(name);
      // A table that cannot be read may need any of them: then nothing goes.
      if (table === undefined) {
        await store.remove(gone);
        return 0;
      }
      for (const id of table.packs().keys()) needed.add(`packs/${id}`);
    }
    for (const object of packs) {
      if (needed.has(object.name)) continue;
      gone.push(object.name);
      freed += object.bytes;
    }
  }
  // Tables first, and a last look: who begins now finds no pack in them that is about to go.
  const isPack = (name: string) => name.startsWith('packs/');
  await store.remove(gone.filter((name) => !isPack(name)));
  const last = gone.filter(isPack);
  if (last.length === 0 || !(await isQuiet())) return 0;
  await store.remove(last);
  return freed;
}
