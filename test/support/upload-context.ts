/** What a client of a cloud is given in a test. */
import { createHash, randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import * as path from 'node:path';
import { silentLog } from '../../core/log.ts';
import type { Platform } from '../../core/platform.ts';
import { GIB } from '../../core/sizes.ts';
import type { Change } from '../../core/stage.ts';
import type { Artifact } from '../../core/types.ts';
import type { UploadContext } from '../../core/uploader.ts';
import { sampleFacts } from './tree-guest.ts';

/** What a run told. */
export interface Told {
  warnings: string[];
  changes: Omit<Change, 'stage'>[];
  texts: string[];
}

/** A file of random bytes as an image of a disk of `virtualBytes`. */
export function artifactFile(
  dir: string,
  platform: Platform,
  bytes: number,
  fields: Partial<Artifact> = {},
): Artifact {
  const content = randomBytes(bytes);
  const file = path.join(dir, `${fields.disk ?? 'image'}.${platform.image.extension}`);
  writeFileSync(file, content);
  return {
    platform: platform.name,
    path: file,
    format: platform.image.format,
    bytes,
    virtualBytes: 2 * GIB,
    sha256: createHash('sha256').update(content).digest('hex'),
    ...fields,
  };
}

/** A context; the fields given replace those of it. */
export function uploadContext<Options>(
  dir: string,
  platform: Platform,
  options: Options,
  artifacts: readonly Artifact[],
  fields: Partial<UploadContext<Options>> = {},
): UploadContext<Options> & { told: Told } {
  const told: Told = { warnings: [], changes: [], texts: [] };
  return {
    told,
    name: 'shop01',
    options,
    platform,
    facts: sampleFacts(),
    artifacts,
    virtualBytes: 2 * GIB,
    mark: randomBytes(10).toString('hex'),
    identity: artifacts.length === 0 ? {} : { id: 'shop01-2026.01.02', version: '2026.01.02', source: 'p2v' },
    contract: undefined,
    contractSha256: artifacts.length === 0 ? '' : '0'.repeat(64),
    packages: [],
    userDataFile: undefined,
    verified: true,
    stateFile: path.join(dir, `upload-${platform.name}.json`),
    tmp: dir,
    signal: new AbortController().signal,
    log: silentLog,
    rawSha256: async () => '0'.repeat(64),
    progress: ({ text }) => {
      if (text !== undefined) told.texts.push(text);
    },
    change: (change) => told.changes.push(change),
    warn: (text) => told.warnings.push(text),
    ...fields,
  };
}
