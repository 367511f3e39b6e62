/** The examples of the pages against the published schemas and against each other. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import * as z from 'zod';
import { Contract, Provision } from '../../core/contract.ts';
import { Manifest, segmentDigests } from '../../core/data-set.ts';
import { jsonExamples } from '../../scripts/lib/doc-examples.ts';
import { schemaFiles } from '../../scripts/schemas.ts';

const KINDS = [
  ['contract', Contract],
  ['manifest', Manifest],
  ['provision', Provision],
] as const;
const example = (name: string): unknown => jsonExamples('docs/contract.md', name)[0];
const published = (name: string) => JSON.parse(readFileSync(`schemas/${name}.json`, 'utf8'));

test.each(KINDS)('the example of a %s is one, by the published schema and by ours', (name, ours) => {
  const all = jsonExamples('docs/contract.md', name);
  expect(all).toHaveLength(1);
  expect(ours.parse(all[0])).toEqual(all[0]);
  const schema = z.fromJSONSchema(published(name));
  expect(schema.safeParse(all[0]).error).toBeUndefined();
  // the published schema refuses what it should, so that passing means something
  for (const field of published(name).required) {
    const { [field]: _, ...rest } = all[0] as Record<string, unknown>;
    expect(schema.safeParse(rest).success, field).toBe(false);
  }
  expect(published(name).examples).toEqual(all);
});

test('every schema has an id of its own, a title, and only formats of JSON Schema', () => {
  const all = [...schemaFiles().values()].map((text) => JSON.parse(text));
  expect(new Set(all.map((s) => s.$id)).size).toBe(all.length);
  for (const schema of all) {
    expect(schema.$id).toMatch(/^urn:port-image:schema:[a-z]+$/);
    expect(schema.title.length).toBeGreaterThan(20);
    expect(JSON.stringify(schema)).not.toContain('"format":"');
  }
});

test('the examples belong to one image: digests and names fit', () => {
  const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');
  const manifest = Manifest.parse(example('manifest'));
  expect(manifest.segmentsSha256).toBe(sha256(segmentDigests(manifest.segments)));
  const [set, more] = Contract.parse(example('contract')).data;
  expect(more).toBeUndefined();
  expect(set).toMatchObject({
    id: manifest.id,
    mount: manifest.path,
    bytes: manifest.bytes,
    files: manifest.files,
    segments: `sha256:${manifest.segmentsSha256}`,
    manifest: `sha256:${sha256(`${JSON.stringify(manifest, null, 2)}\n`)}`,
  });
  expect(Object.keys(Provision.parse(example('provision')).data)).toEqual([manifest.id]);
});
