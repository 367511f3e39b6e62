import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { RetentionConfig, RuleConfig, SyncConfig } from '../../../core/sync/config.ts';
import type { SyncImage } from '../../../core/sync/types.ts';
import { isPinned, matches, ruleFor, wantedDigest, wantedImage } from '../../../pipeline/sync/rules.ts';

const IMAGE: SyncImage = {
  ref: 'id',
  series: 'shop-web',
  version: '2026.08.21',
  name: 'Shop Web',
  format: 'qcow2',
  fileBytes: 1,
  createdAt: '2026-08-21T01:02:03Z',
  arch: 'x86_64',
  firmware: 'uefi',
  minDiskGib: 1,
  minRamMib: 0,
  properties: { os_distro: 'debian', hw_disk_bus: 'virtio', owner_note: 'x' },
  dataSets: [],
};

function rulesOf(...rules: Record<string, unknown>[]): SyncConfig {
  return SyncConfig.parse({
    sync: 's',
    sources: { a: { job: 'a' }, b: { job: 'b' } },
    targets: { t: { platform: 'aws', options: {} } },
    rules,
  });
}

/** What a pattern means, said slowly. */
function slowly(pattern: string, text: string): boolean {
  const quoted = pattern.split('*').map((part) => part.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&'));
  return new RegExp(`^${quoted.join('.*')}$`, 's').test(text);
}

test('a pattern means the same as the expression it stands for', () => {
  const text = fc.string({ unit: fc.constantFrom('a', 'b', '.', '\n', 'é'), maxLength: 12 });
  const pattern = fc.string({ unit: fc.constantFrom('a', 'b', '.', '*', '\n', 'é'), maxLength: 8 });
  fc.assert(
    fc.property(pattern, text, (one, other) => {
      expect(matches(one, other)).toBe(slowly(one, other));
    }),
    { numRuns: 5000 },
  );
});

test('a text fits the pattern that is made of it', () => {
  const parts = fc.array(fc.string({ unit: fc.constantFrom('a', 'b', 'ab') }), {
    minLength: 1,
    maxLength: 5,
  });
  fc.assert(
    fc.property(parts, fc.array(fc.string(), { minLength: 5, maxLength: 5 }), (fixed, free) => {
      const text = fixed.map((part, at) => (at === 0 ? part : `${free[at]}${part}`)).join('');
      expect(matches(fixed.join('*'), text)).toBe(true);
    }),
  );
});

test('what makes an expression run for years takes no time here', () => {
  const before = performance.now();
  expect(matches(`${'*a'.repeat(100)}*b`, 'a'.repeat(100_000))).toBe(false);
  expect(matches(`${'a*'.repeat(100)}b`, 'a'.repeat(100_000))).toBe(false);
  expect(performance.now() - before).toBeLessThan(200);
});

test('without rules everything goes everywhere as it is', () => {
  const rule = ruleFor(rulesOf(), 'a', IMAGE, 't');
  expect(rule).toMatchObject({ name: '{name}', visibility: 'private', data: 'leave' });
  expect(rule?.targets).toBeUndefined();
});

test('the first rule that fits counts; by source, by name and by series', () => {
  const config = rulesOf(
    { match: { source: 'b' }, name: 'from-b' },
    { match: { names: ['Shop*'] }, name: 'by-name' },
    { match: { names: ['shop-*'] }, name: 'by-series' },
  );
  expect(ruleFor(config, 'b', IMAGE, 't')?.name).toBe('from-b');
  expect(ruleFor(config, 'a', IMAGE, 't')?.name).toBe('by-name');
  expect(ruleFor(config, 'a', { ...IMAGE, name: 'x' }, 't')?.name).toBe('by-series');
  expect(ruleFor(config, 'a', { ...IMAGE, name: 'x', series: 'y' }, 't')).toBeUndefined();
});

test('names are filled in once: what an image is called cannot fill in more', () => {
  const rule = RuleConfig.parse({ name: '{series}_{version}_{date}_{name}_{other}' });
  expect(wantedImage(rule, { ...IMAGE, name: '{version}' }).name).toBe(
    'shop-web_2026.08.21_2026-08-21_{version}_{other}',
  );
  const named = RuleConfig.parse({ name: '{name}' });
  expect(wantedImage(named, { ...IMAGE, name: 'a\u001b[31m\nb' }).name).toBe('a_[31m_b');
  expect(() => wantedImage(named, { ...IMAGE, name: ' ' })).toThrow(/comes out empty/);
  expect(() => wantedImage(named, { ...IMAGE, name: 'x'.repeat(256) })).toThrow(/comes out too long/);
});

test('properties: dropped by pattern, set by the rule, refused when a cloud could not keep them', () => {
  const rule = RuleConfig.parse({
    properties: { set: { os_distro: 'ubuntu', team: 'shop' }, drop: ['owner_*'] },
  });
  const properties = { ...IMAGE.properties, bad: 'a\nb', long: 'x'.repeat(256), fine: 'x'.repeat(255) };
  expect(wantedImage(rule, { ...IMAGE, properties }).properties).toEqual({
    os_distro: 'ubuntu',
    hw_disk_bus: 'virtio',
    team: 'shop',
    fine: 'x'.repeat(255),
  });
});

test('the digest of what is wanted knows no order, and every change', () => {
  const wanted = wantedImage(RuleConfig.parse({ visibility: 'shared', members: ['b', 'a'] }), IMAGE);
  const turned = {
    ...wanted,
    members: [...wanted.members].reverse(),
    properties: Object.fromEntries(Object.entries(wanted.properties).reverse()),
  };
  const digest = wantedDigest(wanted);
  expect(digest).toMatch(/^[0-9a-f]{32}$/);
  expect(wantedDigest(turned)).toBe(digest);
  const others = [
    { ...wanted, name: 'x' },
    { ...wanted, visibility: 'public' as const },
    { ...wanted, members: ['a'] },
    { ...wanted, protected: true },
    { ...wanted, properties: { ...wanted.properties, os_distro: 'x' } },
    { ...wanted, properties: {} },
  ];
  expect(new Set([digest, ...others.map(wantedDigest)]).size).toBe(others.length + 1);
});

test('pins are of a series or of one version', () => {
  const retention = RetentionConfig.parse({ pins: ['shop-*@2026.01', 'golden'] });
  expect(isPinned(retention, 'shop-web', '2026.01')).toBe(true);
  expect(isPinned(retention, 'shop-web', '2026.02')).toBe(false);
  expect(isPinned(retention, 'golden', '9')).toBe(true);
});
