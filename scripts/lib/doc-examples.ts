/** Examples in pages: fenced blocks that begin with "```json NAME". They are tested and published in the schemas. */
import { readFileSync } from 'node:fs';
import * as path from 'node:path';

const ROOT = path.resolve(import.meta.dirname, '../..');

/** The examples of a page with this name, parsed, in order. Throws when one is no JSON. */
export function jsonExamples(page: string, name: string): unknown[] {
  const text = readFileSync(path.join(ROOT, page), 'utf8');
  const blocks = text.matchAll(/^```json ([\w-]+)\n([\s\S]*?)^```$/gm);
  return [...blocks].filter(([, found]) => found === name).map(([, , body]) => JSON.parse(body ?? ''));
}
