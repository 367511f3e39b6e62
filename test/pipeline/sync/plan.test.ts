import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { SyncConfig } from '../../../core/sync/config.ts';
import type { SyncImage, TargetImage } from '../../../core/sync/types.ts';
import { type Listings, planSync } from '../../../pipeline/sync/plan.ts';
import { ruleFor, wantedDigest, wantedImage } from '../../../pipeline/sync/rules.ts';

const NOW = new Date('2026-08-21T01:00:00Z');
const DAY_MS = 86_400_000;

function configOf(more: Record<string, unknown> = {}): SyncConfig {
  return SyncConfig.parse({
    sync: 'nightly',
    sources: { golden: { folder: { path: '/srv/images' } } },
    targets: {
      b: { platform: 'openstack', options: { cloud: 'b' } },
      c: { platform: 'aws', options: { region: 'eu-central-1' } },
    },
    ...more,
  });
}

function imageOf(version: string, more: Partial<SyncImage> = {}): SyncImage {
  return {
    ref: `id-${version}`,
    series: 'web',
    version,
    name: 'web',
    fileDigest: `sha512:${version}`,
    rawSha256: `raw-${version}`,
    format: 'qcow2',
    fileBytes: 1000,
    virtualBytes: 5000,
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

function thereOf(config: SyncConfig, version: string, more: Partial<TargetImage> = {}): TargetImage {
  const image = imageOf(version);
  const rule = ruleFor(config, 'golden', image, 'b');
  if (rule === undefined) throw new Error('no rule');
  return {
    series: 'web',
    version,
    rawSha256: `raw-${version}`,
    ref: `there-${version}`,
    name: 'web',
    fileDigest: `sha512:${version}`,
    state: 'complete',
    owner: 'x@y',
    aliveAt: '',
    hidden: false,
    hiddenAt: '',
    createdAt: '2026-08-20T00:00:00Z',
    bytes: 900,
    wanted: wantedDigest(wantedImage(rule, image)),
    inUse: undefined,
    protected: false,
    ...more,
  };
}

function plan(
  config: SyncConfig,
  images: SyncImage[],
  targets: Record<string, TargetImage[]>,
  more: {
    unreachable?: Listings['unreachable'];
    leftOut?: Listings['leftOut'];
    rawOf?: (d: string) => string | undefined;
    only?: string[];
  } = {},
) {
  return planSync({
    config,
    listings: {
      sources: new Map([['golden', images]]),
      targets: new Map(Object.entries(targets)),
      unreachable: more.unreachable ?? [],
      leftOut: more.leftOut ?? [],
    },
    now: NOW,
    rawOf: more.rawOf ?? (() => undefined),
    only: more.only,
  }).plan;
}

const verbs = (p: ReturnType<typeof plan>) =>
  p.actions.map((a) => `${a.verb} ${a.target} ${a.series}@${a.version}`);

describe('what is the same', () => {
  test('an image is made in every target that has not its content', () => {
    const config = configOf();
    const made = plan(config, [imageOf('1')], { b: [], c: [thereOf(config, '1')] });
    expect(verbs(made)).toEqual(['create b web@1', 'skip c web@1']);
    expect(made.actions[0]).toMatchObject({ mostBytes: 1000, why: 'the target has no version of it' });
  });

  test('neither name nor version nor the id decides: other content under the same version is made anew', () => {
    const config = configOf();
    const other = thereOf(config, '1', { rawSha256: 'raw-other', fileDigest: 'sha512:other' });
    const made = plan(config, [imageOf('1')], { b: [other] });
    expect(verbs(made)).toEqual(['create b web@1']);
    expect(made.actions[0]?.why).toContain('other content');
  });

  test('content nobody has read yet is known by the digest of its file, or by what the ledger remembers', () => {
    const config = configOf();
    const unread = imageOf('1', { rawSha256: undefined });
    expect(verbs(plan(config, [unread], { b: [thereOf(config, '1')] }))).toEqual(['skip b web@1']);
    const converted = thereOf(config, '1', { fileDigest: '' });
    expect(verbs(plan(config, [unread], { b: [converted] }))).toEqual(['create b web@1']);
    const known = plan(config, [unread], { b: [converted] }, { rawOf: () => 'raw-1' });
    expect(verbs(known)).toEqual(['skip b web@1']);
  });

  test('an unfinished image is none', () => {
    const config = configOf();
    const half = thereOf(config, '1', { state: 'in-progress' });
    expect(verbs(plan(config, [imageOf('1')], { b: [half] }))).toEqual(['create b web@1']);
  });

  test('another name or visibility is an update without bytes; a hidden image that is wanted is shown again', () => {
    const config = configOf({ rules: [{ visibility: 'public' }] });
    const private_ = thereOf(configOf(), '1');
    const made = plan(config, [imageOf('1')], { b: [private_], c: [thereOf(config, '1', { hidden: true })] });
    expect(verbs(made)).toEqual(['update b web@1', 'update c web@1']);
    expect(made.actions.map((a) => a.mostBytes)).toEqual([0, 0]);
  });
});

describe('which images', () => {
  test('the newest version of each series, or as many as the source says', () => {
    const images = [imageOf('9'), imageOf('10'), imageOf('8')];
    expect(verbs(plan(configOf(), images, { b: [] }))).toEqual(['create b web@10']);
    const two = configOf({ sources: { golden: { folder: { path: '/x' }, versions: 2 } } });
    expect(verbs(plan(two, images, { b: [] }))).toEqual(['create b web@10', 'create b web@9']);
  });

  test('rules choose targets; what no rule fits stays and is told', () => {
    const config = configOf({ rules: [{ match: { names: ['web*'] }, targets: ['c'] }] });
    const db = imageOf('1', { series: 'db', name: 'db' });
    const made = plan(config, [imageOf('1'), db], { b: [], c: [] });
    expect(verbs(made)).toEqual(['create c web@1']);
    expect(made.notes.join()).toContain('no rule fits db');
  });

  test('a name that cannot be used stops no other image', () => {
    const config = configOf({ rules: [{ name: '{name}-golden' }] });
    const long = imageOf('1', { series: 'long', name: 'x'.repeat(255) });
    const made = plan(config, [long, imageOf('1')], { b: [] });
    expect(verbs(made)).toEqual(['create b web@1']);
    expect(made.notes.join()).toContain('too long');
  });

  test('a target may have a rule of its own for an image', () => {
    const config = configOf({
      rules: [
        { targets: ['c'], name: '{name}-c' },
        { match: { names: ['web*'] }, visibility: 'community' },
      ],
    });
    const made = plan(config, [imageOf('1')], { b: [], c: [] });
    expect(made.actions.map((a) => [a.target, a.name])).toEqual([
      ['b', 'web'],
      ['c', 'web-c'],
    ]);
  });

  test('--only takes names of sources, targets and series', () => {
    const config = configOf();
    const images = [imageOf('1'), imageOf('1', { series: 'db', name: 'db' })];
    expect(verbs(plan(config, images, { b: [], c: [] }, { only: ['c'] }))).toEqual([
      'create c web@1',
      'create c db@1',
    ]);
    expect(verbs(plan(config, images, { b: [], c: [] }, { only: ['db'] }))).toEqual([
      'create b db@1',
      'create c db@1',
    ]);
    expect(verbs(plan(config, images, { b: [], c: [] }, { only: ['golden'] }))).toHaveLength(4);
  });
});

describe('retirement', () => {
  const hidden = (config: SyncConfig, version: string, daysAgo: number, more: Partial<TargetImage> = {}) =>
    thereOf(config, version, {
      hidden: true,
      hiddenAt: new Date(NOW.getTime() - daysAgo * DAY_MS).toISOString(),
      ...more,
    });

  test('versions beyond `keep` are hidden, and deleted when they were hidden long enough', () => {
    const config = configOf({ retention: { keep: 2, hideFor: '7d' } });
    const made = plan(config, [imageOf('5')], {
      b: [
        thereOf(config, '5'),
        thereOf(config, '4'),
        thereOf(config, '3'),
        hidden(config, '2', 3),
        hidden(config, '1', 8),
      ],
    });
    expect(verbs(made)).toEqual(['skip b web@5', 'hide b web@3', 'delete b web@1']);
    expect(made.coming).toEqual([
      expect.objectContaining({ version: '3', what: 'delete', notBefore: '2026-08-28T01:00:00Z' }),
      expect.objectContaining({ version: '2', what: 'delete', notBefore: '2026-08-25T01:00:00Z' }),
    ]);
  });

  test('a version still to be made counts as the newest', () => {
    const config = configOf({ retention: { keep: 1 } });
    const made = plan(config, [imageOf('2')], { b: [thereOf(config, '1')] });
    expect(verbs(made)).toEqual(['create b web@2', 'hide b web@1']);
  });

  test('neither pinned nor protected nor used ones go', () => {
    const config = configOf({ retention: { keep: 1, hideFor: '0s', pins: ['web@2'] } });
    const made = plan(config, [imageOf('5')], {
      b: [
        thereOf(config, '5'),
        hidden(config, '4', 1, { inUse: true }),
        hidden(config, '3', 1, { protected: true }),
        hidden(config, '2', 1),
        thereOf(config, '1'),
      ],
    });
    expect(verbs(made)).toEqual(['skip b web@5', 'hide b web@1']);
    expect(made.notes.join('\n')).toMatch(/in use[\s\S]*protected/);
  });

  test('when a source cannot be asked nothing is retired; when an image of one cannot be read, only what is offered', () => {
    const config = configOf({ retention: { keep: 1 } });
    const db = (version: string) => thereOf(config, version, { series: 'db', ref: `db-${version}` });
    const targets = { b: [thereOf(config, '2'), thereOf(config, '1'), db('2'), db('1')] };
    const unreachable = [{ kind: 'source' as const, name: 'other', code: 'CLOUD', message: 'down' }];
    expect(verbs(plan(config, [imageOf('2')], targets, { unreachable }))).toEqual(['skip b web@2']);
    const leftOut = [{ source: 'golden', what: 'db.qcow2', code: 'IMAGE_DAMAGED', message: 'cut off' }];
    expect(verbs(plan(config, [imageOf('2')], targets, { leftOut }))).toEqual([
      'skip b web@2',
      'hide b web@1',
    ]);
    expect(verbs(plan(config, [imageOf('2')], targets))).toContain('hide b db@1');
  });

  test('an image of unknown content may be the very one that lies there: that one never goes', () => {
    const config = configOf({ retention: { keep: 1, hideFor: '0s' } });
    const unread = imageOf('2', { rawSha256: undefined, fileDigest: undefined });
    const there = [thereOf(config, '2'), thereOf(config, '1')];
    // the old version may go when the new one is found to be there
    expect(verbs(plan(config, [unread], { b: there }))).toEqual(['create b web@2', 'hide b web@1']);
    const all = [hidden(config, '2', 9), hidden(config, '1', 9)];
    expect(verbs(plan(config, [unread], { b: all }))).not.toContain('delete b web@2');
  });

  test('one version counts once, be it there, still to be made, or both', () => {
    const config = configOf({ retention: { keep: 2 } });
    const unread = imageOf('3', { rawSha256: undefined, fileDigest: undefined });
    const there = ['3', '2', '1'].map((version) => thereOf(config, version));
    expect(verbs(plan(config, [unread], { b: there }))).toEqual(['create b web@3', 'hide b web@1']);
  });

  test('a version that cannot be named may be wanted: nothing of its series is retired', () => {
    const config = configOf({
      sources: { golden: { folder: { path: '/x' }, versions: 3 } },
      rules: [{ match: { names: ['web'] } }, { name: '{name}-golden' }],
      retention: { keep: 1 },
    });
    const images = [imageOf('3'), imageOf('2', { name: 'x'.repeat(255) })];
    const there = ['3', '2', '1'].map((version) => thereOf(config, version));
    const made = plan(
      config,
      images.map((i) => ({ ...i, series: 'web-x' })),
      {
        b: there.map((i) => ({ ...i, series: 'web-x' })),
      },
    );
    expect(made.notes.join()).toContain('too long');
    expect(made.actions.filter(({ verb }) => verb === 'hide')).toEqual([]);
  });

  test('whatever lies there: the newest visible version, wanted and pinned ones stay, and nothing unfinished is touched', () => {
    const version = fc.integer({ min: 1, max: 12 }).map(String);
    const state = fc.record({
      version,
      hidden: fc.boolean(),
      daysAgo: fc.integer({ min: 0, max: 40 }),
      inUse: fc.boolean(),
      protected: fc.boolean(),
      unfinished: fc.boolean(),
      age: fc.integer({ min: 0, max: 400 }),
    });
    fc.assert(
      fc.property(
        fc.uniqueArray(state, { selector: (s) => s.version, maxLength: 12 }),
        fc.option(version, { nil: undefined }),
        fc.integer({ min: 1, max: 4 }),
        fc.boolean(),
        (states, offered, keep, byAge) => {
          const config = configOf({
            retention: { keep, hideFor: '7d', pins: ['web@3'], ...(byAge ? { maxAge: '90d' } : {}) },
          });
          const there = states.map((s) =>
            thereOf(config, s.version, {
              state: s.unfinished ? 'in-progress' : 'complete',
              hidden: s.hidden,
              hiddenAt: s.hidden ? new Date(NOW.getTime() - s.daysAgo * DAY_MS).toISOString() : '',
              inUse: s.inUse,
              protected: s.protected,
              createdAt: new Date(NOW.getTime() - s.age * DAY_MS).toISOString(),
            }),
          );
          const made = plan(config, offered === undefined ? [] : [imageOf(offered)], { b: there });
          const gone = made.actions.filter((a) => a.verb === 'hide' || a.verb === 'delete');
          const left = there.filter((i) => !gone.some((a) => a.targetRef === i.ref));
          for (const action of gone) {
            const image = there.find((i) => i.ref === action.targetRef);
            expect(image?.state).toBe('complete');
            expect(action.version).not.toBe('3');
            expect(action.version).not.toBe(offered);
            if (action.verb === 'delete') {
              expect(image).toMatchObject({ hidden: true, inUse: false, protected: false });
              expect(NOW.getTime() - Date.parse(image?.hiddenAt ?? '')).toBeGreaterThanOrEqual(7 * DAY_MS);
            }
          }
          const complete = there.filter((i) => i.state === 'complete');
          const comes = made.actions.some((a) => a.verb === 'create');
          const deleted = new Set(gone.filter((a) => a.verb === 'delete').map((a) => a.targetRef));
          // what comes is there before anything goes: the engine sees to that
          if (complete.length > 0 && !comes) expect(complete.some((i) => !deleted.has(i.ref))).toBe(true);
          const visible = complete.filter((i) => !i.hidden);
          // unless a new one comes, somebody who looks for the newest finds one
          if (visible.length > 0 && !comes)
            expect(left.some((i) => i.state === 'complete' && !i.hidden)).toBe(true);
        },
      ),
      { numRuns: 2000 },
    );
  });
});

test('ten thousand images in five targets are planned in seconds', () => {
  const config = configOf({
    targets: Object.fromEntries(
      ['a', 'b', 'c', 'd', 'e'].map((name) => [name, { platform: 'openstack', options: { cloud: name } }]),
    ),
  });
  const images = Array.from({ length: 10_000 }, (_, i) => imageOf('1', { series: `s${i}`, name: `s${i}` }));
  const there = Object.fromEntries(['a', 'b', 'c', 'd', 'e'].map((name) => [name, [] as TargetImage[]]));
  expect(plan(config, images, there).actions).toHaveLength(50_000);
});
