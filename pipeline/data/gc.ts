/** Finding and removing what aborted runs left in a store. */
import type { Manifest } from '../../core/data-set.ts';
import { asPortError, PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { readManifest } from '../../drivers/stores/read-back.ts';
import type { Store } from '../../drivers/stores/store.ts';
import { foreignKey, type GcPlan, planGarbage } from './gc-plan.ts';
import { jobsUsing, type OpenJob } from './jobs-using.ts';
import { dropEmpty, leftoversOf, removeLeftover } from './leftovers.ts';
import { objectsOf } from './sets.ts';

/** What to look at. */
export interface GcOptions {
  olderThanMs: number;
  nowMs: number;
  /** Jobs of this machine that are not done. */
  jobs: readonly OpenJob[];
  signal?: AbortSignal | undefined;
}

async function planOf(store: Store, id: string, options: GcOptions): Promise<GcPlan> {
  const objects = await objectsOf(store, id);
  let manifest: Manifest | 'unreadable' | undefined;
  if (objects.some((o) => o.key === `${id}/manifest.json`)) {
    try {
      ({ manifest } = await readManifest(store, id));
    } catch (error) {
      const known = asPortError(error);
      if (known.temporary || known.code === 'INTERRUPTED') throw known;
      manifest = 'unreadable';
    }
  }
  const running = jobsUsing(options.jobs, store.url, id).find((job) => job.running);
  return planGarbage({
    id,
    objects,
    leftovers: await leftoversOf(store, id, options.signal),
    manifest,
    inUse: running === undefined ? undefined : `the job in ${running.dir} is running`,
    nowMs: options.nowMs,
    olderThanMs: options.olderThanMs,
  });
}

/** Garbage of a whole store, in order of ids; sets with nothing to tell are left out. */
export async function findGarbage(store: Store, options: GcOptions): Promise<GcPlan[]> {
  const plans: GcPlan[] = [];
  for await (const id of store.ids()) {
    options.signal?.throwIfAborted();
    let plan: GcPlan;
    try {
      plan = await planOf(store, id, options);
    } catch (error) {
      const known = asPortError(error);
      if (known.code === 'INTERRUPTED') throw known;
      plan = { id, garbage: [], kept: `it cannot be looked at: ${known.message}`, whole: false };
    }
    if (plan.garbage.length > 0 || plan.whole || plan.kept !== undefined) plans.push(plan);
  }
  return plans;
}

/** Removes what a plan names; a set is looked at again first, as a run may have begun since. */
export async function removeGarbage(
  store: Store,
  plan: GcPlan,
  options: GcOptions,
): Promise<{ objects: number; bytes: number }> {
  if (plan.garbage.length === 0 && !plan.whole) return { objects: 0, bytes: 0 };
  const now = await planOf(store, plan.id, options);
  const still = new Set(now.garbage.map((g) => g.key));
  const removed = { objects: 0, bytes: 0 };
  for (const { key, bytes, hidden } of plan.garbage) {
    options.signal?.throwIfAborted();
    if (!still.has(key)) continue;
    if (hidden === true) await removeLeftover(store, plan.id, key);
    else await store.remove(key);
    removed.objects += 1;
    removed.bytes += bytes;
  }
  if (now.whole && plan.whole) await dropEmpty(store, plan.id);
  return removed;
}

/**
 * Removes a whole data set, its manifest first, so that what is left of a killed removal is garbage and no set. Throws
 * USAGE, removing nothing, when something of others lies in it.
 */
export async function removeSet(
  store: Store,
  id: string,
  options: { signal?: AbortSignal | undefined } = {},
): Promise<{ objects: number; bytes: number }> {
  const objects = await objectsOf(store, id);
  const foreign = foreignKey(id, objects);
  if (foreign !== undefined) {
    throw new PortError('USAGE', `port-image did not write ${printable(`${id}/${foreign}`)}`, {
      hint: 'nothing was removed; take it away by hand when it is not needed',
    });
  }
  const first = `${id}/manifest.json`;
  const ordered = [...objects.filter((o) => o.key === first), ...objects.filter((o) => o.key !== first)];
  const removed = { objects: 0, bytes: 0 };
  for (const { key, bytes } of ordered) {
    options.signal?.throwIfAborted();
    await store.remove(key);
    removed.objects += 1;
    removed.bytes += bytes;
  }
  await store.sweep?.(id);
  await dropEmpty(store, id);
  const [left] = await objectsOf(store, id);
  if (left !== undefined) throw new PortError('STORE', `${left.key} is still in the store after its removal`);
  return removed;
}
