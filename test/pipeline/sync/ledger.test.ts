import { execFile } from 'node:child_process';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Ledger } from '../../../pipeline/sync/ledger.ts';
import { writeRun } from '../../../pipeline/sync/report/write.ts';
import { outcomeOf, reportOf } from '../../support/sync-report.ts';

const run = promisify(execFile);
let dir = '';
beforeAll(async () => {
  dir = await fs.mkdtemp(path.join(os.tmpdir(), 'port-image-ledger-'));
});
afterAll(async () => {
  await fs.rm(dir, { recursive: true, force: true });
});

async function stateDir(): Promise<string> {
  return fs.mkdtemp(path.join(dir, 'state-'));
}

test('what was read is remembered, also by the next run', async () => {
  const state = await stateDir();
  const ledger = await Ledger.open(state);
  expect(ledger.rawOf('sha512:ab')).toBeUndefined();
  ledger.rememberRaw('sha512:ab', { rawSha256: 'cd', virtualBytes: 5 });
  ledger.digests.set('/srv/x 1 2', 'sha256:ef');
  ledger.close();
  const again = await Ledger.open(state);
  expect(again.rawOf('sha512:ab')).toEqual({ rawSha256: 'cd', virtualBytes: 5 });
  expect(again.digests.get('/srv/x 1 2')).toBe('sha256:ef');
  expect((await fs.stat(path.join(state, 'ledger.sqlite'))).mode & 0o777).toBe(0o600);
  again.close();
});

test('runs newest first, the newest outcome of each image, and what failed last', async () => {
  const ledger = await Ledger.open(await stateDir());
  ledger.saveRun(
    reportOf(1, [
      outcomeOf('b', 'web', 'failed'),
      outcomeOf('c', 'web', 'failed'),
      outcomeOf('b', 'db', 'done'),
    ]),
  );
  ledger.saveRun(reportOf(2, [outcomeOf('b', 'web', 'done'), outcomeOf('b', 'db', 'skipped')]));
  expect(ledger.runs(10).map((r) => [r.run.slice(0, 8), r.outcomes.length])).toEqual([
    ['20260802', 2],
    ['20260801', 3],
  ]);
  expect(ledger.lastFailures()).toEqual([{ series: 'web', target: 'c' }]);
  expect(
    ledger
      .newest()
      .map(({ outcome }) => `${outcome.action.series} ${outcome.action.target} ${outcome.result}`),
  ).toEqual(['db b skipped', 'web b done', 'web c failed']);
  ledger.close();
});

test('of several versions in one run the failed one is not hidden by those in place', async () => {
  const ledger = await Ledger.open(await stateDir());
  const inPlace = outcomeOf('b', 'web', 'skipped');
  const older = { ...inPlace, action: { ...inPlace.action, version: '0' } };
  ledger.saveRun(reportOf(1, [outcomeOf('b', 'web', 'failed'), older]));
  expect(ledger.lastFailures()).toEqual([{ series: 'web', target: 'b' }]);
  ledger.saveRun(reportOf(2, [outcomeOf('b', 'web', 'done'), older]));
  expect(ledger.lastFailures()).toEqual([]);
  ledger.close();
});

test('runs whose reports are gone are forgotten as well: a ledger does not grow for ever', async () => {
  const ledger = await Ledger.open(await stateDir());
  for (let n = 0; n < 410; n++) {
    const report = reportOf(1, [outcomeOf('b', 'web', 'done')]);
    const startedAt = new Date(Date.UTC(2026, 0, 1 + n)).toISOString();
    ledger.saveRun({ ...report, run: `run-${n}`, startedAt });
  }
  expect(ledger.runs(1000)).toHaveLength(400);
  expect(ledger.outcomesOf('run-5')).toEqual([]);
  expect(ledger.outcomesOf('run-409')).toHaveLength(1);
  ledger.close();
});

test.each(['deleted', 'damaged', 'of another version', 'empty'])(
  'a ledger that is %s is made anew from the reports',
  async (how) => {
    const state = await stateDir();
    const file = path.join(state, 'ledger.sqlite');
    const first = await Ledger.open(state);
    const report = reportOf(3, [outcomeOf('b', 'web', 'failed')]);
    await writeRun(state, report);
    first.saveRun(report);
    first.close();
    if (how === 'deleted') await fs.rm(file);
    if (how === 'damaged')
      await fs.writeFile(file, 'SQLite format 3\0 and then nothing of the kind'.repeat(300));
    if (how === 'empty') await fs.writeFile(file, '');
    if (how === 'of another version') {
      const { DatabaseSync } = await import('node:sqlite');
      const db = new DatabaseSync(file);
      db.exec('PRAGMA user_version = 99');
      db.close();
    }
    const again = await Ledger.open(state);
    if (how !== 'empty') expect(again.runs(5).map((r) => r.run)).toEqual([report.run]);
    again.rememberRaw('x', { rawSha256: 'y', virtualBytes: 1 });
    expect(again.rawOf('x')).toBeDefined();
    again.close();
  },
);

test('several processes write at once', async () => {
  const state = await stateDir();
  (await Ledger.open(state)).close();
  const child = (n: number) => `
    const { Ledger } = await import(${JSON.stringify(path.resolve('pipeline/sync/ledger.ts'))});
    const ledger = await Ledger.open(${JSON.stringify(state)});
    for (let i = 0; i < 50; i++) ledger.rememberRaw('f${n}-' + i, { rawSha256: 'r', virtualBytes: i });
    ledger.close();`;
  const ends = await Promise.all(
    [1, 2, 3].map((n) =>
      run(process.execPath, ['--input-type=module', '--eval', child(n)], { cwd: path.resolve('.') }),
    ),
  );
  // nobody hears of SQLite's state in Node
  for (const { stderr } of ends) expect(stderr).toBe('');
  const ledger = await Ledger.open(state);
  for (const n of [1, 2, 3]) expect(ledger.rawOf(`f${n}-49`)?.virtualBytes).toBe(49);
  ledger.close();
});
