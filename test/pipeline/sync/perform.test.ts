import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { expect, test } from 'vitest';
import { SyncConfig } from '../../../core/sync/config.ts';
import type { TargetImage } from '../../../core/sync/types.ts';
import { type PerformOptions, performTask } from '../../../pipeline/sync/perform.ts';
import type { SyncTask } from '../../../pipeline/sync/perform-types.ts';
import { syncContext } from '../../support/sync-context.ts';

const config = SyncConfig.parse({
  sync: 'nightly',
  sources: { golden: { folder: { path: '/srv/images' } } },
  targets: { b: { platform: 'openstack', options: { cloud: 'b' } } },
});

const task = {
  action: {
    verb: 'create',
    target: 'b',
    source: 'golden',
    series: 'web',
    version: '1',
    name: 'web',
    sourceRef: 'x',
    targetRef: '',
    why: '',
    mostBytes: 1,
  },
  image: { series: 'web', version: '1', name: 'web', dataSets: [] },
  wanted: { name: 'web', visibility: 'private', members: [], protected: false, properties: {} },
  wantedDigest: 'now',
  carryData: false,
} as unknown as SyncTask;

async function adopted(there: Partial<TargetImage>): Promise<{ updates: string[]; result: string }> {
  const updates: string[] = [];
  const target = {
    create: async () => ({
      ref: 'r',
      method: 'none',
      adopted: true,
      sentBytes: 0,
      changedBytes: 0,
      dataBytes: 1,
    }),
    list: async () => [{ ref: 'r', state: 'complete', hidden: false, wanted: 'now', ...there }],
    update: async (image: TargetImage, _wanted: unknown, digest: string) =>
      void updates.push(`${image.ref} ${digest}`),
  };
  const stateDir = await fs.mkdtemp(path.join(os.tmpdir(), 'port-image-perform-'));
  try {
    const { outcome } = await performTask(task, {
      ...syncContext(),
      file: { path: '/x', text: '', config },
      places: { target: async () => target, source: async () => ({ name: 'golden' }) },
      disks: {
        use: async (_source: unknown, _image: unknown, _ctx: unknown, work: (opened: unknown) => unknown) =>
          work({ index: { rawSha256: 'x' }, receivedBytes: 0 }),
      },
      stateDir,
      owner: 'run@host/1',
      attempts: 1,
    } as unknown as PerformOptions);
    return { updates, result: outcome.result };
  } finally {
    await fs.rm(stateDir, { recursive: true, force: true });
  }
}

test('an image that was found there is shown, and looks as wanted', async () => {
  expect(await adopted({})).toEqual({ updates: [], result: 'adopted' });
  expect(await adopted({ hidden: true })).toEqual({ updates: ['r now'], result: 'adopted' });
  expect(await adopted({ wanted: 'before' })).toEqual({ updates: ['r now'], result: 'adopted' });
});
