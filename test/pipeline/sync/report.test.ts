import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { describe, expect, test } from 'vitest';
import type { SyncReport } from '../../../core/sync/types.ts';
import { exitStatusOf } from '../../../pipeline/sync/report/exit-status.ts';
import { indexPage } from '../../../pipeline/sync/report/index-page.ts';
import { metricsOf } from '../../../pipeline/sync/report/metrics.ts';
import { runPage } from '../../../pipeline/sync/report/page.ts';
import { planTable, summaryLines } from '../../../pipeline/sync/report/text.ts';
import { writeRun } from '../../../pipeline/sync/report/write.ts';
import { outcomeOf, reportOf } from '../../support/sync-report.ts';

const HOSTILE = '<script>alert(1)</script>" onload="x\u001b[2J';

describe('exit status', () => {
  const of = (more: Partial<SyncReport>) => exitStatusOf(reportOf(1, [], more));
  test('0 when all is in place, also when something waits for the next run', () => {
    expect(
      of({
        outcomes: [
          outcomeOf('b', 'a', 'done'),
          outcomeOf('b', 'c', 'skipped'),
          outcomeOf('b', 'd', 'deferred'),
        ],
      }),
    ).toBe(0);
  });
  test('that of the gravest failure', () => {
    const remote = outcomeOf('b', 'a', 'failed');
    const boot = outcomeOf('b', 'c', 'failed', { code: 'VERIFY_FAILED' });
    const evil = outcomeOf('b', 'd', 'failed', { code: 'UNSAFE_IMAGE' });
    expect(of({ outcomes: [remote] })).toBe(6);
    expect(of({ outcomes: [remote, boot] })).toBe(7);
    expect(of({ outcomes: [remote, boot, evil] })).toBe(3);
    expect(of({ outcomes: [outcomeOf('b', 'x', 'failed', { code: 'NO_SUCH' })] })).toBe(1);
  });
  test('a place that cannot be asked and a data set count, a signal above all', () => {
    expect(of({ unreachable: [{ kind: 'target', name: 'b', code: 'CLOUD', message: 'down' }] })).toBe(6);
    expect(of({ dataSets: [{ id: 'x', target: 'b', result: 'failed', sentBytes: 0, keptBytes: 0 }] })).toBe(
      6,
    );
    expect(of({ interrupted: true, outcomes: [outcomeOf('b', 'a', 'failed')] })).toBe(130);
  });
});

describe('pages', () => {
  const report = reportOf(
    2,
    [
      outcomeOf('b', 'web', 'failed', { message: HOSTILE, hint: HOSTILE }),
      outcomeOf('b', HOSTILE, 'done', { proof: HOSTILE, ref: HOSTILE, content: 'ok', method: 'blocks' }),
      outcomeOf('c', 'web', 'skipped'),
    ],
    {
      notes: [HOSTILE],
      unreachable: [{ kind: 'source', name: 'golden', code: 'CLOUD', message: HOSTILE }],
      coming: [
        {
          target: 'b',
          series: HOSTILE,
          version: '1',
          name: 'x',
          targetRef: 'y',
          what: 'delete',
          notBefore: 'z',
        },
      ],
      calls: { b: 4, c: 3 },
      exitStatus: 6,
    },
  );
  test.each(['run', 'index'])(
    'nothing from outside becomes markup, nothing is loaded from elsewhere (%s)',
    (which) => {
      const page =
        which === 'run' ? runPage(report) : indexPage([report, reportOf(1, [outcomeOf('b', 'web', 'done')])]);
      expect(page).not.toContain('<script');
      expect(page).not.toContain('\u001b');
      expect(page).not.toMatch(/ onload="/);
      expect(page).not.toMatch(/(src|href)="(https?:|\/\/)/);
      expect(page).toContain('incomplete');
    },
  );
  test('failures stand before everything else, with cause and hint', () => {
    const page = runPage(
      reportOf(1, [outcomeOf('b', 'web', 'failed'), outcomeOf('c', 'web', 'done')], { exitStatus: 6 }),
    );
    expect(page.indexOf('the quota is used up')).toBeGreaterThan(0);
    expect(page.indexOf('the quota is used up')).toBeLessThan(page.indexOf('Images and targets'));
    expect(page).toContain('What helps: ask for more');
  });
  test('a night of 500 images in five targets fits a page', () => {
    const outcomes = Array.from({ length: 2500 }, (_, i) =>
      outcomeOf(`t${i % 5}`, `s${Math.floor(i / 5)}`, 'skipped'),
    );
    expect(runPage(reportOf(1, outcomes)).length).toBeLessThan(1_500_000);
  });
});

test('metrics have the form Prometheus reads, hostile labels included', () => {
  const bad = reportOf(2, [outcomeOf('b\n"\\', 'web', 'failed'), outcomeOf('c', 'web', 'done')], {
    calls: { c: 3 },
  });
  const text = metricsOf([bad, reportOf(1, [outcomeOf('b\n"\\', 'web', 'done')])]);
  const label = String.raw`[a-z]+="([^"\\\n]|\\["\\n])*"`;
  const sample = new RegExp(String.raw`^port_image_sync_[a-z_]+\{${label}(,${label})*\} -?\d+(\.\d+)?$`);
  const lines = text.trimEnd().split('\n');
  const types = new Set<string>();
  for (const line of lines) {
    const [, name] = /^# (?:HELP|TYPE) (\S+) \S/.exec(line) ?? [];
    if (name !== undefined) types.add(name);
    else {
      expect(line).toMatch(sample);
      expect(types.has(line.slice(0, line.indexOf('{')))).toBe(true);
    }
  }
  // a target that failed tonight keeps the time of the night before
  const success = (target: string) =>
    lines
      .find((l) => l.includes('last_success') && l.includes(`target="${target}"`))
      ?.split(' ')
      .at(-1);
  expect(success('c')).toBe(String(Date.parse('2026-08-02T01:05:00Z') / 1000));
  expect(success(String.raw`b\n\"\\`)).toBe(String(Date.parse('2026-08-01T01:05:00Z') / 1000));
});

test('files of a run: JSON, page, index and metrics, for the owner alone; old runs go', async () => {
  const dir = await fs.mkdtemp(path.join(os.tmpdir(), 'port-image-runs-'));
  try {
    for (let i = 0; i < 405; i++)
      await fs.mkdir(path.join(dir, 'runs', `2020${String(i).padStart(4, '0')}T010000Z-ab12cd`), {
        recursive: true,
      });
    await fs.mkdir(path.join(dir, 'runs', 'mine'));
    const report = reportOf(1, [outcomeOf('b', 'web', 'done')]);
    await writeRun(dir, report, []);
    const names = await fs.readdir(path.join(dir, 'runs'));
    expect(names).toHaveLength(401);
    expect(names).toContain('mine');
    expect(JSON.parse(await fs.readFile(path.join(dir, 'runs', report.run, 'report.json'), 'utf8'))).toEqual(
      report,
    );
    for (const file of ['index.html', 'metrics.prom', `runs/${report.run}/report.html`])
      expect((await fs.stat(path.join(dir, file))).mode & 0o777).toBe(0o600);
  } finally {
    await fs.rm(dir, { recursive: true, force: true });
  }
});

test('texts for a terminal: printable, causes first, nothing for what stays', () => {
  const report = reportOf(
    1,
    [outcomeOf('b', 'web', 'failed', { message: HOSTILE }), outcomeOf('b', 'db', 'skipped')],
    { exitStatus: 6 },
  );
  const lines = summaryLines(report, '/state');
  expect(lines.join('\n')).not.toContain('\u001b');
  expect(lines[0]).toMatch(/^failed: create web 1 in b: .*\[CLOUD_REFUSED\]$/);
  expect(lines.at(-1)).toBe('report: /state/runs/20260801T010000Z-ab12cd/report.html');
  const actions = report.outcomes.map((o) => o.action);
  const plan = {
    schema: 'port-image/sync-plan/1' as const,
    sync: 'n',
    madeAt: '',
    actions,
    coming: [],
    unreachable: [],
    leftOut: [],
    notes: [],
  };
  expect(planTable(plan, { all: false }).join('\n')).toContain('create 1, skip 1');
  expect(planTable(plan, { all: false }).filter((l) => l.startsWith('skip'))).toEqual([]);
  expect(planTable(plan, { all: true }).filter((l) => l.startsWith('skip'))).toHaveLength(1);
});
