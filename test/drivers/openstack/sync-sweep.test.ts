import { expect, test } from 'vitest';
import { silentLog } from '../../../core/log.ts';
import type { TargetImage } from '../../../core/sync/types.ts';
import type { SyncCloud } from '../../../drivers/openstack/sync/client.ts';
import { MARK } from '../../../drivers/openstack/sync/marks.ts';
import { sweep } from '../../../drivers/openstack/sync/sweep.ts';

const DAY_MS = 86_400_000;

/** A cloud with images under way and objects in the container. */
function cloudWith(
  objects: { name: string; ageMs: number }[],
  more: { remove?: (id: string) => Promise<void>; show?: (id: string) => unknown } = {},
) {
  const removed: string[] = [];
  const cloud = {
    session: { projectId: 'ours' },
    now: () => new Date(),
    glance: {
      show: async (id: string) =>
        more.show?.(id) ?? { id, [MARK.state]: 'in-progress', [MARK.sync]: 'nightly' },
      remove: async (id: string) => {
        await more.remove?.(id);
        removed.push(id);
      },
    },
    images: async () => [],
    swift: {
      headContainer: async () => ({}),
      ensureContainer: async () => {},
      async *listObjects(_container: string, prefix: string) {
        for (const { name, ageMs } of objects)
          if (name.startsWith(prefix)) yield { name, bytes: 10, modifiedMs: Date.now() - ageMs, etag: '' };
      },
      removePlain: async (_container: string, name: string) => void removed.push(name),
    },
  } as unknown as SyncCloud;
  return { cloud, removed };
}

const unfinished = (ref: string, more: Partial<TargetImage> = {}) =>
  ({
    ref,
    series: 'web',
    version: '1',
    rawSha256: 'a'.repeat(64),
    state: 'in-progress',
    owner: 'run@other/1',
    aliveAt: '2020-01-01T00:00:00Z',
    ...more,
  }) as TargetImage;

const facts = {
  log: silentLog,
  sync: 'nightly',
  owner: 'now@host/1',
  staleAfterMs: 900_000,
  signal: new AbortController().signal,
};

test('one leftover that cannot be removed keeps no other and no block', async () => {
  const { cloud, removed } = cloudWith([{ name: 'packs/old', ageMs: DAY_MS }], {
    remove: async (id) => {
      if (id === 'stuck') throw new Error('409: in use by the store');
    },
  });
  const freed = await sweep({ ...facts, cloud, images: [unfinished('stuck'), unfinished('free')] });
  expect(removed).toEqual(['free', 'packs/old']);
  expect(freed).toBe(10);
});

test('one that shows a sign of life since it was listed is not removed', async () => {
  const { cloud, removed } = cloudWith([], {
    show: (id) => ({
      id,
      owner: 'ours',
      status: 'queued',
      os_hidden: false,
      created_at: '2026-01-01T00:00:00Z',
      [MARK.sync]: 'nightly',
      [MARK.series]: 'web',
      [MARK.version]: '1',
      [MARK.state]: 'in-progress',
      [MARK.owner]: 'run@other/1',
      [MARK.alive]: new Date().toISOString(),
    }),
  });
  await sweep({ ...facts, cloud, images: [unfinished('alive')] });
  expect(removed).toEqual([]);
});
