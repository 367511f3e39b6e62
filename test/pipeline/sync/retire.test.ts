import { describe, expect, test } from 'vitest';
import { PortError } from '../../../core/errors.ts';
import { SyncConfig } from '../../../core/sync/config.ts';
import type { SyncImage, TargetImage } from '../../../core/sync/types.ts';
import type { PerformOptions } from '../../../pipeline/sync/perform.ts';
import type { SyncTask, TaskResult } from '../../../pipeline/sync/perform-types.ts';
import { planSync } from '../../../pipeline/sync/plan.ts';
import { retirementKey, retireOld, without } from '../../../pipeline/sync/retire.ts';
import { wantedDigest, wantedImage } from '../../../pipeline/sync/rules.ts';
import { syncContext } from '../../support/sync-context.ts';

const NOW = new Date('2026-08-21T01:00:00Z');
const config = SyncConfig.parse({
  sync: 'nightly',
  sources: { golden: { folder: { path: '/srv/images' } } },
  targets: { b: { platform: 'openstack', options: { cloud: 'b' } } },
  rules: [{}],
  retention: { keep: 1, hideFor: '1d' },
});

function imageOf(version: string, more: Partial<SyncImage> = {}): SyncImage {
  return {
    ref: version,
    series: 'web',
    version,
    name: 'web',
    rawSha256: `raw-${version}`,
    fileDigest: undefined,
    format: 'qcow2',
    fileBytes: 1000,
    createdAt: '2026-08-20T00:00:00Z',
    arch: 'x86_64',
    firmware: 'bios',
    minDiskGib: 1,
    minRamMib: 512,
    properties: {},
    dataSets: [],
    ...more,
  };
}

function thereOf(version: string, more: Partial<TargetImage> = {}): TargetImage {
  const [rule] = config.rules;
  if (rule === undefined) throw new Error('no rule');
  return {
    series: 'web',
    version,
    rawSha256: `raw-${version}`,
    ref: `there-${version}`,
    name: 'web',
    fileDigest: '',
    state: 'complete',
    owner: 'x@y',
    aliveAt: '',
    hidden: false,
    hiddenAt: '',
    createdAt: '2026-08-20T00:00:00Z',
    bytes: 900,
    wanted: wantedDigest(wantedImage(rule, imageOf(version))),
    inUse: undefined,
    protected: false,
    ...more,
  };
}

/** Plans by what is there first, then retires by what is there when all else was done. */
async function retired(
  images: SyncImage[],
  first: TargetImage[],
  later: TargetImage[] | PortError,
  made: TaskResult['outcome']['result'] = 'done',
  ours = NOW,
) {
  const plan = (there: TargetImage[], isAfter: boolean, now: Date) =>
    planSync({
      config,
      listings: {
        sources: new Map([['golden', images]]),
        targets: new Map([['b', there]]),
        unreachable: [],
        leftOut: [],
      },
      now,
      rawOf: () => undefined,
      isAfter,
    });
  const { tasks } = plan(first, false, ours);
  const done: string[] = [];
  const target = {
    now: () => NOW,
    list: async () => {
      if (later instanceof PortError) throw later;
      return later;
    },
    hide: async ({ ref }: TargetImage) => void done.push(`hide ${ref}`),
    remove: async ({ ref }: TargetImage) => void done.push(`delete ${ref}`),
  };
  const outcomes: string[] = [];
  const others = tasks.filter(({ action }) => action.verb !== 'hide' && action.verb !== 'delete');
  await retireOld({
    tasks,
    results: others.map((task) => without(task, { result: made, message: '' })),
    perform: {
      ...syncContext(),
      file: { path: '/x', text: '', config },
      places: { target: async () => target },
      attempts: 1,
    } as unknown as PerformOptions,
    judge: (_name, images, now) => new Set(plan([...images], true, now).plan.actions.map(retirementKey)),
    take: (task: SyncTask, { outcome }) =>
      outcomes.push(`${task.action.verb} ${task.action.version} ${outcome.result}`),
  });
  return { done, outcomes };
}

const hidden = (version: string) => thereOf(version, { hidden: true, hiddenAt: '2026-08-01T00:00:00Z' });

describe('retirement after the rest of a plan', () => {
  test('what is still as the plan saw it goes', async () => {
    const first = [thereOf('1'), hidden('0')];
    expect(await retired([imageOf('2')], first, [thereOf('2'), ...first])).toEqual({
      done: ['hide there-1', 'delete there-0'],
      outcomes: ['hide 1 done', 'delete 0 done'],
    });
  });

  test.each(['failed', 'deferred', 'changed'] as const)(
    'nothing goes when the new version is %s',
    async (made) => {
      const first = [thereOf('1'), hidden('0')];
      expect((await retired([imageOf('2')], first, first, made)).done).toEqual([]);
    },
  );

  test('the last good version stays when the new one, said to be made, is not there', async () => {
    expect(await retired([imageOf('2')], [thereOf('1')], [thereOf('1')])).toEqual({
      done: [],
      outcomes: ['hide 1 changed'],
    });
  });

  test('one that somebody shows again meanwhile is not deleted, nor one that lost its mark', async () => {
    const first = [thereOf('2'), hidden('1'), hidden('0')];
    const later = [thereOf('2'), thereOf('1')];
    expect(await retired([imageOf('2')], first, later)).toEqual({
      done: [],
      outcomes: ['delete 1 changed', 'delete 0 changed'],
    });
  });

  test('a clock of this host that runs ahead deletes nothing early', async () => {
    const first = [thereOf('2'), thereOf('1', { hidden: true, hiddenAt: '2026-08-20T20:00:00Z' })];
    const ahead = new Date('2036-01-01T00:00:00Z');
    expect(await retired([imageOf('2')], first, first, 'done', ahead)).toEqual({
      done: [],
      outcomes: ['delete 1 changed'],
    });
  });

  test('a target that does not answer any more loses nothing, and the run says so', async () => {
    const first = [thereOf('1')];
    const down = new PortError('CLOUD', 'down', { temporary: true });
    expect(await retired([imageOf('2')], first, down)).toEqual({ done: [], outcomes: ['hide 1 failed'] });
  });
});
