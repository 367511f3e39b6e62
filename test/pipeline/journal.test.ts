import { appendFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { STAGE_NAMES, type StageName } from '../../core/stage.ts';
import {
  Journal,
  type JournalEntry,
  type JournalEvent,
  parseJournal,
  replay,
} from '../../pipeline/journal.ts';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'journal-'));
});
afterEach(async () => {
  await rm(dir, { recursive: true });
});

const done = (stage: StageName, session?: string): JournalEvent => ({
  event: 'stage-done',
  stage,
  seconds: 1,
  result: { odd: 'line\nbreak "quoted" \u2028' },
  changes: [],
  warnings: [],
  ...(session === undefined ? {} : { session }),
});
const at = (events: JournalEvent[]): JournalEntry[] =>
  events.map((e) => ({ at: '2026-01-01T00:00:00Z', ...e }) as JournalEntry);
const closed = (session: string): JournalEvent => ({
  event: 'session-closed',
  session,
  workSha256: 'x',
  workBytes: 1,
});

test('a journal cut at any byte keeps every whole line and goes on', async () => {
  const text = at([
    done('capture'),
    { event: 'session-opened', session: 's' },
    done('strip', 's'),
    closed('s'),
    done('encode'),
  ])
    .map((e) => `${JSON.stringify(e)}\n`)
    .join('');
  const bytes = Buffer.from(text);
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 0, max: bytes.length }), async (cut) => {
      const file = path.join(dir, 'journal.jsonl');
      await writeFile(file, bytes.subarray(0, cut));
      const whole = bytes.subarray(0, cut).toString().split('\n').length - 1;
      const journal = await Journal.open(file);
      expect(journal.entries).toHaveLength(whole);
      await journal.append(done('upload'));
      await journal.close();
      const again = parseJournal(await readFile(file, 'utf8'));
      expect(again).toHaveLength(whole + 1);
      expect(again.at(-1)).toMatchObject({ stage: 'upload' });
    }),
    { numRuns: 300 },
  );
});

test('a broken line before the end is refused', async () => {
  const file = path.join(dir, 'journal.jsonl');
  await writeFile(file, `{"event":"run-started"}\n{"event":"stage-d\n`);
  await appendFile(file, `{"event":"run-done"}\n`);
  await expect(Journal.open(file)).rejects.toMatchObject({ code: 'JOB_TAMPERED' });
});

test('guest stages count only when their session closed', () => {
  const open = at([{ event: 'session-opened', session: 'a' }, done('inspect', 'a'), done('strip', 'a')]);
  expect([...replay(open).done.keys()]).toEqual(['inspect']);
  const whole = [...open, ...at([closed('a')])];
  expect([...replay(whole).done.keys()]).toEqual(['inspect', 'strip']);
  expect(replay(whole).applianceLaunches).toBe(1);
});

test('a new work disk invalidates what was built from the old one', () => {
  const state = replay(
    at([
      { event: 'session-opened', session: 'a' },
      done('trim', 'a'),
      closed('a'),
      done('encode'),
      done('verify'),
      { event: 'session-opened', session: 'b' },
      done('trim', 'b'),
      closed('b'),
    ]),
  );
  expect([...state.done.keys()]).toEqual(['trim']);
});

test('replay never throws and only reports stages that were done', () => {
  const event = fc.oneof(
    fc.constantFrom(...STAGE_NAMES).chain((s) => fc.constantFrom(done(s), done(s, 'a'), done(s, 'b'))),
    fc.constantFrom<JournalEvent>(closed('a'), closed('b'), { event: 'session-opened', session: 'a' }),
    fc
      .constantFrom(...STAGE_NAMES)
      .map((stage): JournalEvent => ({ event: 'stage-invalidated', stage, why: '' })),
  );
  fc.assert(
    fc.property(fc.array(event, { maxLength: 40 }), (events) => {
      const mentioned = new Set(events.flatMap((e) => (e.event === 'stage-done' ? [e.stage] : [])));
      for (const stage of replay(at(events)).done.keys()) expect(mentioned.has(stage)).toBe(true);
    }),
  );
});
