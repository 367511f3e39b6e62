/** The ledger on a file system that is full: nothing that is known may be lost, and the cause is told. */
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Ledger } from '../../../pipeline/sync/ledger.ts';
import { outcomeOf, reportOf } from '../../support/sync-report.ts';

const missing = process.getuid?.() !== 0;
let dir: string;

beforeAll(async () => {
  if (missing) return;
  dir = await fs.mkdtemp(path.join(tmpdir(), 'port-image-ledger-full-'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', dir]);
});
afterAll(async () => {
  if (missing) return;
  execFileSync('umount', [dir]);
  await fs.rm(dir, { recursive: true });
});

test.skipIf(missing)(
  'full: refused or read, never set aside; with room again everything is known',
  async () => {
    const first = await Ledger.open(dir);
    first.saveRun(reportOf(1, [outcomeOf('b', 'web', 'done')]));
    first.rememberRaw('x', { rawSha256: 'y', virtualBytes: 1 });
    first.close();
    const ballast = path.join(dir, 'ballast');
    const handle = await fs.open(ballast, 'w');
    for (const size of [65536, 4096]) {
      for (;;) {
        const { bytesWritten } = await handle.write(Buffer.alloc(size)).catch(() => ({ bytesWritten: 0 }));
        if (bytesWritten < size) break;
      }
    }
    await handle.close();

    const many = reportOf(
      2,
      Array.from({ length: 200 }, (_, at) => outcomeOf('b', `web${at}`, 'done')),
    );
    const refusal = await Ledger.open(dir)
      .then((ledger) => {
        try {
          // A cache that cannot be written fails nobody.
          ledger.digests.set('k', 'v'.repeat(100_000));
          ledger.saveRun(many);
        } finally {
          ledger.close();
        }
      })
      .catch((error: unknown) => error);
    expect(refusal).toMatchObject({ code: expect.stringMatching(/^(DISK_SPACE|HOST_IO)$/) });
    expect((await fs.readdir(dir)).filter((name) => name.includes('damaged'))).toEqual([]);

    await fs.rm(ballast);
    const again = await Ledger.open(dir);
    expect(again.runs(5)).toHaveLength(1);
    expect(again.rawOf('x')).toMatchObject({ rawSha256: 'y' });
    again.saveRun(many);
    expect(again.runs(5)).toHaveLength(2);
    again.close();
  },
);
