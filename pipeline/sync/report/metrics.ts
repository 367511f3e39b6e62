/** Numbers for Prometheus' textfile collector (exposition format 0.0.4). */
import type { SyncReport } from '../../../core/sync/types.ts';
import { numbersOf } from './numbers.ts';

type Labels = Readonly<Record<string, string>>;

function escaped(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}

function line(name: string, labels: Labels, value: number): string {
  const text = Object.entries(labels)
    .map(([key, label]) => `${key}="${escaped(label)}"`)
    .join(',');
  return `${name}{${text}} ${value}`;
}

/** Last time each target had everything it should, seconds since 1970; of this run and of those before, newest first. */
function lastSuccess(reports: readonly SyncReport[]): Map<string, number> {
  const found = new Map<string, number>();
  for (const report of reports) {
    const bad = new Set<string>();
    const seen = new Set<string>();
    for (const { action, result } of report.outcomes) {
      seen.add(action.target);
      if (result === 'failed' || result === 'deferred') bad.add(action.target);
    }
    for (const { kind, name } of report.unreachable) if (kind === 'target') bad.add(name);
    // What could not be used is nowhere, whatever the targets say.
    // A part of it says nothing of the rest, and what a silent source has may be missing everywhere.
    if (report.interrupted || report.partial || report.leftOut.length > 0) continue;
    if (report.unreachable.some(({ kind }) => kind === 'source')) continue;
    for (const target of seen) {
      if (!bad.has(target) && !found.has(target)) found.set(target, Date.parse(report.endedAt) / 1000);
    }
  }
  return found;
}

/** The file's text; `reports` newest first, the first one is the run that just ended. */
export function metricsOf(reports: readonly SyncReport[]): string {
  const [report] = reports;
  if (report === undefined) return '';
  const sync = { sync: report.sync };
  const numbers = numbersOf(report);
  const lines: string[] = [];
  const metric = (name: string, help: string, values: readonly [Labels, number][]) => {
    const full = `port_image_sync_${name}`;
    lines.push(`# HELP ${full} ${help}`, `# TYPE ${full} gauge`);
    for (const [labels, value] of values) lines.push(line(full, { ...sync, ...labels }, value));
  };
  const targets = [
    ...new Set([...report.outcomes.map((o) => o.action.target), ...Object.keys(report.calls)]),
  ].sort();
  const per = (of: (target: string) => number): [Labels, number][] =>
    targets.map((target) => [{ target }, of(target)]);
  const sumFor = (target: string, of: (o: SyncReport['outcomes'][number]) => number) =>
    report.outcomes.filter((o) => o.action.target === target).reduce((sum, o) => sum + of(o), 0);
  metric('last_run_timestamp_seconds', 'End of the newest run.', [[{}, Date.parse(report.endedAt) / 1000]]);
  metric(
    'last_success_timestamp_seconds',
    'End of the newest run after which a target had everything it should.',
    [...lastSuccess(reports)].sort().map(([target, at]) => [{ target }, at]),
  );
  metric('exit_status', 'Status the newest run ended with.', [[{}, report.exitStatus]]);
  metric('duration_seconds', 'Length of the newest run.', [[{}, report.seconds]]);
  metric(
    'outcomes',
    'Actions of the newest run by their result.',
    targets.flatMap((target) =>
      Object.keys(numbers.results).map((result): [Labels, number] => [
        { target, result },
        report.outcomes.filter((o) => o.action.target === target && o.result === result).length,
      ]),
    ),
  );
  metric(
    'sent_bytes',
    'Bytes sent into the target by the newest run.',
    per((t) => sumFor(t, (o) => o.sentBytes)),
  );
  metric(
    'changed_bytes',
    'Bytes of blocks that had changed.',
    per((t) => sumFor(t, (o) => o.changedBytes)),
  );
  metric(
    'saved_bytes',
    'Bytes of images that had not to be sent.',
    per((t) => sumFor(t, (o) => Math.max(0, o.dataBytes - o.sentBytes))),
  );
  metric(
    'api_calls',
    'Requests sent to the target.',
    per((t) => report.calls[t] ?? 0),
  );
  metric(
    'coming_retirements',
    'Versions that will be hidden or deleted in later runs.',
    per((t) => report.coming.filter((c) => c.target === t).length),
  );
  metric('unreachable_places', 'Sources and targets that could not be asked.', [
    [{}, report.unreachable.length],
  ]);
  metric('left_out', 'Images and servers of sources that could not be used.', [[{}, report.leftOut.length]]);
  return `${lines.join('\n')}\n`;
}
