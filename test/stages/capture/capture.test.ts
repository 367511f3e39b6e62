import { mkdtempSync, rmSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { silentLog } from '../../../core/log.ts';
import { CaptureOptions } from '../../../core/request.ts';
import type { StageContext } from '../../../core/stage.ts';
import { goodDisk } from '../../../fixtures/hostile/build.ts';
import { stage } from '../../../stages/capture/index.ts';
import { requires } from '../../support/requires.ts';

describe.skipIf(requires('qemu-img', 'prlimit'))('capture', () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'port-image-capture-'));
  const source = path.join(dir, 'disk.img');
  afterAll(() => rmSync(dir, { recursive: true, force: true }));
  const ctx = {
    request: { source, moreSources: [], disks: {}, capture: CaptureOptions.parse({}) },
    paths: { dir, tmp: dir, capture: path.join(dir, 'capture') },
    signal: new AbortController().signal,
    log: silentLog,
    progress: () => {},
    change: () => {},
    warn: () => {},
  } as unknown as StageContext;

  test('records what the overlay stands on and touches nothing', async () => {
    await fs.writeFile(source, goodDisk());
    const { mtimeMs } = await fs.stat(source);
    const planned = await stage.plan(ctx);
    await expect(stage.run(ctx, planned)).resolves.toEqual({
      disks: [
        {
          id: 'disk0',
          path: await fs.realpath(source),
          format: 'raw',
          fileBytes: 8 << 20,
          virtualBytes: 8 << 20,
          modifiedMs: mtimeMs,
          isDevice: false,
          copied: false,
          use: 'system',
          badRanges: [],
        },
      ],
      consistency: 'offline',
    });
    expect(await fs.readdir(dir)).toEqual(['disk.img']);
  });

  test('a source that changed between plan and run is refused', async () => {
    await fs.writeFile(source, goodDisk());
    const planned = await stage.plan(ctx);
    await fs.utimes(source, new Date(), new Date(Date.now() + 5000));
    await expect(stage.run(ctx, planned)).rejects.toMatchObject({ code: 'SOURCE_CHANGED' });
  });
});
