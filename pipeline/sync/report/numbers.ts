/** Sums over a run, the same for page, text and metrics. */
import type { SyncOutcome, SyncReport } from '../../../core/sync/types.ts';

/** What a run came to. */
export interface RunNumbers {
  /** How many ended so, by result. */
  results: Record<SyncOutcome['result'], number>;
  sentBytes: number;
  receivedBytes: number;
  changedBytes: number;
  /** Bytes of images that are where they should be and had not to be sent. */
  savedBytes: number;
  failures: SyncOutcome[];
}

/** Adds it up. */
export function numbersOf(report: Pick<SyncReport, 'outcomes' | 'dataSets'>): RunNumbers {
  const results = { done: 0, adopted: 0, skipped: 0, failed: 0, deferred: 0, changed: 0 };
  const sum = (of: (outcome: SyncOutcome) => number) =>
    report.outcomes.reduce((total, outcome) => total + of(outcome), 0);
  for (const { result } of report.outcomes) results[result]++;
  const dataBytes = report.dataSets.reduce((total, set) => total + set.sentBytes, 0);
  return {
    results,
    sentBytes: sum((o) => o.sentBytes) + dataBytes,
    receivedBytes: sum((o) => o.receivedBytes),
    changedBytes: sum((o) => o.changedBytes),
    savedBytes:
      sum((o) => Math.max(0, o.dataBytes - o.sentBytes)) +
      report.dataSets.reduce((t, set) => t + set.keptBytes, 0),
    failures: report.outcomes.filter(({ result }) => result === 'failed'),
  };
}

/** One word for a run. */
export function verdictOf(report: SyncReport): { word: string; kind: 'good' | 'bad' | 'unknown' } {
  if (report.interrupted) return { word: 'stopped', kind: 'unknown' };
  if (report.exitStatus !== 0) return { word: 'incomplete', kind: 'bad' };
  const waits = report.outcomes.some(({ result }) => result === 'deferred' || result === 'changed');
  if (!waits && report.partial) return { word: 'what was asked for is in place', kind: 'good' };
  return waits ? { word: 'some wait', kind: 'unknown' } : { word: 'all in place', kind: 'good' };
}
