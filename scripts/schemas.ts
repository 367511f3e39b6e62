/** Writes `schemas/*.json` (published in the package) from the schemas in core. `--check` only compares. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import * as z from 'zod';
import { Contract, Provision } from '../core/contract.ts';
import { Entry, Manifest } from '../core/data-set.ts';
import { Facts } from '../core/facts.ts';
import { Request } from '../core/request.ts';
import { SyncConfig } from '../core/sync/config.ts';
import { jsonExamples } from './lib/doc-examples.ts';

const SCHEMAS: Readonly<Record<string, [title: string, schema: z.ZodType]>> = {
  contract: ['What an image says about itself: /usr/lib/port-image/contract.json', Contract],
  provision: ['What a cloud tells an instance: key port_image of vendor_data2.json', Provision],
  manifest: ['A data set: manifest.json', Manifest],
  entry: ['A member of a data set: one line of entries.jsonl', Entry],
  facts: ['What was found on a source: facts.json', Facts],
  request: ['What was asked for: job.json', Request],
  sync: ['What is kept the same where: sync.yaml', SyncConfig],
};

/** The page that shows an example of each document people write or read by hand. */
const EXAMPLES_PAGE = 'docs/contract.md';

/** One schema: name, title, examples, then what zod makes of it. */
function jsonSchema(name: string, title: string, schema: z.ZodType): Record<string, unknown> {
  const { $schema, ...rest } = z.toJSONSchema(schema, {
    io: 'input',
    override: ({ jsonSchema: part }) => {
      // zod's own name beside the pattern that says the same; no validator knows it
      if (part.format === 'starts_with') delete part.format;
    },
  });
  const examples = jsonExamples(EXAMPLES_PAGE, name);
  return {
    $schema,
    $id: `urn:port-image:schema:${name}`,
    title,
    ...(examples.length === 0 ? {} : { examples }),
    ...rest,
  };
}

/** The published schemas by file name, as text. */
export function schemaFiles(): Map<string, string> {
  return new Map(
    Object.entries(SCHEMAS).map(([name, [title, schema]]) => [
      `${name}.json`,
      `${JSON.stringify(jsonSchema(name, title, schema), null, 2)}\n`,
    ]),
  );
}

if (import.meta.main) {
  const dir = path.resolve(import.meta.dirname, '../schemas');
  await fs.mkdir(dir, { recursive: true });
  for (const [name, text] of schemaFiles()) {
    const file = path.join(dir, name);
    if (!process.argv.includes('--check')) await fs.writeFile(file, text);
    else if ((await fs.readFile(file, 'utf8').catch(() => '')) !== text) {
      process.stderr.write(`${name} is not current; run: node scripts/schemas.ts\n`);
      process.exitCode = 1;
    }
  }
}
