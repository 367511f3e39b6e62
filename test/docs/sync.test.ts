/** The manual of syncs against the schema, the reader of sync files and the units it ships. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import * as yaml from 'yaml';
import * as z from 'zod';
import { SyncConfig } from '../../core/sync/config.ts';
import { schemaPaths } from '../../pipeline/sync/file/schema-keys.ts';
import { parseSync } from '../../pipeline/sync/load.ts';

const PAGE = 'docs/sync.md';
const page = readFileSync(PAGE, 'utf8');
const examples = [...page.matchAll(/^```yaml sync\n([\s\S]*?)^```$/gm)].map(([, body]) => body ?? '');
const published = z.fromJSONSchema(JSON.parse(readFileSync('schemas/sync.json', 'utf8')));

test('the examples are right, by the reader and by the published schema', () => {
  expect(examples.length).toBeGreaterThanOrEqual(2);
  for (const text of examples) {
    expect(parseSync(text, PAGE).config.sync).toBe('nightly');
    expect(published.safeParse(yaml.parse(text)).error).toBeUndefined();
  }
});

test('the published schema refuses what it should', () => {
  const good = yaml.parse(examples[1] ?? '');
  for (const field of ['sync', 'sources', 'targets']) {
    const { [field]: _, ...rest } = good;
    expect(published.safeParse(rest).success, field).toBe(false);
  }
  expect(published.safeParse({ ...good, more: 1 }).success).toBe(false);
  expect(published.safeParse({ ...good, retention: { keep: 0 } }).success).toBe(false);
});

test('the table has every field of the schema, and no other', () => {
  const told = [...page.matchAll(/^\| `([a-zA-Z.*[\]]+)` \|/gm)].map(([, field]) => field ?? '');
  const isField = (path: string) =>
    /^(sync|sources|targets|rules|retention|limits|window|schedule|notify|state|staleAfter)\b/.test(path);
  const table = told.filter(isField);
  expect(table.length).toBe(new Set(table).size);
  expect([...table].sort()).toEqual(schemaPaths().sort());
});

test('the long example shows every field', () => {
  const shown = new Set<string>();
  const walk = (value: unknown, path: string): void => {
    if (Array.isArray(value)) for (const item of value) walk(item, `${path}[]`);
    else if (typeof value === 'object' && value !== null)
      for (const [key, inner] of Object.entries(value)) {
        const isOwn = path === 'sources' || path === 'targets';
        const at = path === '' ? key : `${path}.${isOwn ? '*' : key}`;
        shown.add(at);
        walk(inner, at);
      }
  };
  walk(yaml.parse(examples[1] ?? ''), '');
  expect(schemaPaths().filter((path) => !shown.has(path))).toEqual([]);
});

test('the defaults of the table are those of the schema', () => {
  const { config } = parseSync(
    'sync: n\nsources: { f: { folder: { path: a } }, g: { glance: { cloud: A } } }\ntargets: { b: { platform: openstack, options: { cloud: B } } }\nrules: [{}]\n',
    's',
  );
  const at = (path: string): unknown =>
    path
      .replace('sources.*.glance', 'sources.g.glance')
      .replace('sources.*', 'sources.f')
      .replace('targets.*', 'targets.b')
      .replace('rules[]', 'rules.0')
      .split('.')
      .reduce<unknown>((value, key) => (value as Record<string, unknown> | undefined)?.[key], config);
  let compared = 0;
  for (const [, field = '', shown = ''] of page.matchAll(/^\| `([a-zA-Z.*[\]]+)` \| `([^`]+)` \|/gm)) {
    const value = at(field);
    if (value === undefined || typeof value === 'number') {
      if (typeof value === 'number' && /^\d+$/.test(shown)) expect(Number(shown), field).toBe(value);
      continue;
    }
    expect(yaml.parse(shown), field).toEqual(value);
    compared++;
  }
  expect(compared).toBeGreaterThanOrEqual(10);
  expect(SyncConfig.parse({ ...yaml.parse(examples[0] ?? '') }).retention.hideFor).toBe(7 * 86_400_000);
});

test('the units are where the manual says, and agree with it', () => {
  const service = readFileSync('docs/systemd/port-image-sync@.service', 'utf8');
  const timer = readFileSync('docs/systemd/port-image-sync@.timer', 'utf8');
  expect(page).toContain('(systemd/port-image-sync@.service)');
  expect(page).toContain('(systemd/port-image-sync@.timer)');
  expect(service).toMatch(/^Type=oneshot$/m);
  expect(service).toMatch(/^ExecStart=\S+\/port-image sync \/etc\/port-image\/%i\.yaml$/m);
  expect(service).toMatch(/^ProtectSystem=strict$/m);
  expect(service).toMatch(/^TimeoutStartSec=infinity$/m);
  expect(timer).toMatch(/^Persistent=true$/m);
});
