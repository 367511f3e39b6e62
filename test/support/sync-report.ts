/** Reports of runs for tests. */
import type { SyncOutcome, SyncReport } from '../../core/sync/types.ts';

/** An outcome of a creation, or of what stays. */
export function outcomeOf(
  target: string,
  series: string,
  result: SyncOutcome['result'],
  more: Partial<SyncOutcome> = {},
): SyncOutcome {
  return {
    action: {
      verb: result === 'skipped' ? 'skip' : 'create',
      target,
      source: 'golden',
      series,
      version: '1',
      name: series,
      sourceRef: 'ref',
      targetRef: '',
      why: 'the target has no version of it',
      mostBytes: 0,
    },
    result,
    ...(result === 'failed'
      ? { code: 'CLOUD_REFUSED', message: 'the quota is used up', hint: 'ask for more' }
      : {}),
    sentBytes: result === 'done' ? 1000 : 0,
    changedBytes: result === 'done' ? 2000 : 0,
    dataBytes: 5000,
    receivedBytes: 0,
    seconds: 1,
    attempts: 1,
    ...more,
  };
}

/** The run of a day of August 2026. */
export function reportOf(day: number, outcomes: SyncOutcome[], more: Partial<SyncReport> = {}): SyncReport {
  const date = `2026-08-${String(day).padStart(2, '0')}`;
  return {
    schema: 'port-image/sync-run/1',
    sync: 'nightly',
    run: `${date.replaceAll('-', '')}T010000Z-ab12cd`,
    host: 'backup1',
    startedAt: `${date}T01:00:00Z`,
    endedAt: `${date}T01:05:00Z`,
    seconds: 300,
    outcomes,
    dataSets: [],
    coming: [],
    unreachable: [],
    leftOut: [],
    notes: [],
    calls: {},
    freedBytes: 0,
    exitStatus: 0,
    interrupted: false,
    partial: false,
    ...more,
  };
}
