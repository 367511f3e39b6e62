/** Walks every stage and platform: registered in order, documented, complete. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { STAGE_NAMES } from '../core/stage.ts';
import { platforms } from '../drivers/registry.ts';
import { stages } from '../stages/registry.ts';

test('the registry holds every stage once, in order, and nothing lies outside it', () => {
  expect(stages.map((s) => s.name)).toEqual([...STAGE_NAMES]);
  const folders = readdirSync('stages', { withFileTypes: true }).filter((e) => e.isDirectory());
  expect(folders.map((f) => f.name).sort()).toEqual([...STAGE_NAMES].sort());
});

test.each(stages.map((s) => [s.name, s] as const))(
  'stage %s needs only earlier stages and has a page',
  (name, stage) => {
    for (const need of stage.needs) expect(STAGE_NAMES.indexOf(need)).toBeLessThan(STAGE_NAMES.indexOf(name));
    expect(stage.summary.length).toBeGreaterThan(10);
    const page = readFileSync(`docs/stages/${name}.md`, 'utf8');
    expect(page).toContain(name);
    expect(readFileSync('docs/stages/README.md', 'utf8')).toContain(`(${name}.md)`);
  },
);

test.each(platforms.map((p) => [p.name, p] as const))(
  'platform %s is complete and has a page',
  (name, platform) => {
    expect(existsSync(`docs/platforms/${name}.md`)).toBe(true);
    expect(platform.needs.storageModules.length).toBeGreaterThan(0);
    // Azure names itself alone: a boot that does not wait for its metadata would come up without a login.
    if (platform.needs.datasources.length > 1) expect(platform.needs.datasources.at(-1)).toBe('None');
    else expect(platform.needs.datasources).toEqual(['Azure']);
    expect(platform.image.source).not.toBe('');
  },
);

test('every flag of convert is in the manual', () => {
  const command = readFileSync('cli/commands/convert.ts', 'utf8');
  const manual = readFileSync('docs/manual.md', 'utf8');
  const flags = [...command.matchAll(/\.option\('(--[a-z-]+)/g)].map((m) => m[1] ?? '');
  expect(flags.length).toBeGreaterThan(15);
  for (const flag of flags) expect(manual, flag).toContain(flag);
});

test('links between pages lead somewhere', () => {
  for (const page of readdirSync('docs', { recursive: true, encoding: 'utf8' }).filter((p) =>
    p.endsWith('.md'),
  )) {
    const text = readFileSync(`docs/${page}`, 'utf8');
    for (const [, target] of text.matchAll(/\]\((?!https?:)([^)#]+)/g)) {
      const folder = page.includes('/') ? `docs/${page.slice(0, page.lastIndexOf('/'))}` : 'docs';
      expect(existsSync(`${folder}/${target}`), `${page}: ${target}`).toBe(true);
    }
  }
});
