import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { sha256File } from '../../core/files.ts';
import type { StageName } from '../../core/stage.ts';
import { jobPaths } from '../../pipeline/job.ts';
import { type JournalEntry, type JournalEvent, replay } from '../../pipeline/journal.ts';
import { stagesWithoutFiles } from '../../pipeline/trust.ts';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'trust-'));
});
afterEach(() => rm(dir, { recursive: true }));

const done = (stage: StageName, result: unknown = null, session?: string): JournalEvent => ({
  event: 'stage-done',
  stage,
  seconds: 1,
  result,
  changes: [],
  warnings: [],
  ...(session === undefined ? {} : { session }),
});
const lost = (events: JournalEvent[]) =>
  stagesWithoutFiles(
    jobPaths(dir),
    replay(events.map((e) => ({ at: '2026-01-01T00:00:00Z', ...e }) as JournalEntry)),
    new AbortController().signal,
  );

/** A job of two disks whose session closed. */
async function twoDisks(): Promise<JournalEvent[]> {
  const disks: { disk: string; sha256: string; bytes: number }[] = [];
  for (const [disk, name] of [
    ['sda', 'work.qcow2'],
    ['sdb', 'work-sdb.qcow2'],
  ] as const) {
    await writeFile(path.join(dir, name), disk);
    disks.push({ disk, sha256: await sha256File(path.join(dir, name)), bytes: 3 });
  }
  return [
    done('capture', { disks: [{ id: 'sda' }, { id: 'sdb' }], consistency: 'offline' }),
    { event: 'session-opened', session: 's' },
    done('trim', null, 's'),
    { event: 'session-closed', session: 's', disks },
  ];
}

test('each work disk must be there and be what it was', async () => {
  const events = await twoDisks();
  expect(await lost(events)).toEqual([]);
  await rm(path.join(dir, 'work-sdb.qcow2'));
  expect(await lost(events)).toEqual(['strip']);
  await writeFile(path.join(dir, 'work-sdb.qcow2'), 'other');
  await expect(lost(events)).rejects.toMatchObject({ code: 'JOB_TAMPERED' });
});

test('a job of an older version is captured again, its only work disk is still checked', async () => {
  await writeFile(path.join(dir, 'work.qcow2'), 'other');
  const events: JournalEvent[] = [
    done('capture', { path: '/a.raw', format: 'raw' }),
    { event: 'source-digest', sha256: 'a', kind: 'plain', fileBytes: 1 },
  ];
  expect(await lost(events)).toEqual(['capture']);
  const entries = [...events, { event: 'stage-invalidated', stage: 'capture', why: 'old' } as const];
  expect(replay(entries.map((e) => ({ at: '', ...e }) as JournalEntry)).sources.size).toBe(0);
  const closed: JournalEvent[] = [
    { event: 'session-opened', session: 's' },
    done('trim', null, 's'),
    { event: 'session-closed', session: 's', workSha256: 'x', workBytes: 1 },
  ];
  await expect(lost(closed)).rejects.toMatchObject({ code: 'JOB_TAMPERED' });
});
