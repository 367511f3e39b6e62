/** Plan and outcome for a terminal. Lines are printable. */
import * as path from 'node:path';
import { formatBytes, formatSeconds } from '../../../core/sizes.ts';
import type { LeftOut, SyncAction, SyncOutcome, SyncPlan, SyncReport } from '../../../core/sync/types.ts';
import { printable } from '../../../core/text.ts';
import { numbersOf, verdictOf } from './numbers.ts';

const VERBS = ['create', 'update', 'skip', 'hide', 'delete'] as const;

/** Text cut to a width, its end shown as cut. */
function column(text: string, width: number): string {
  const plain = printable(text);
  return plain.length <= width ? plain.padEnd(width) : `${plain.slice(0, width - 1)}…`;
}

/** Series and version; the version is what tells two lines apart, so it is whole. */
function imageColumn({ series, version }: SyncAction, width: number): string {
  const end = ` ${printable(version)}`;
  return column(
    `${column(series, Math.max(8, width - end.length)).trimEnd()}${end}`,
    Math.max(width, end.length + 8),
  );
}

function actionRow({ verb, target, series, version, why, mostBytes }: SyncAction): string {
  const bytes = mostBytes === 0 ? '' : `≤ ${formatBytes(mostBytes)}`;
  return `${verb.padEnd(7)} ${column(target, 12)} ${column(series, 22)} ${column(version, 17)} ${bytes.padStart(11)}  ${printable(why)}`.trimEnd();
}

/** Lines of the plan: a sum per target, then what is not left as it is (with `all`: everything). */
export function planTable(plan: SyncPlan, { all }: { all: boolean }): string[] {
  const lines: string[] = [];
  const targets = [...new Set(plan.actions.map((action) => action.target))].sort();
  for (const target of targets) {
    const own = plan.actions.filter((action) => action.target === target);
    const counts = VERBS.flatMap((verb) => {
      const count = own.filter((action) => action.verb === verb).length;
      return count === 0 ? [] : [`${verb} ${count}`];
    });
    const bytes = own.reduce((sum, action) => sum + action.mostBytes, 0);
    lines.push(
      `${column(target, 12).trimEnd()}: ${counts.join(', ')}${bytes === 0 ? '' : `; at most ${formatBytes(bytes)} to send`}`,
    );
  }
  const rows = plan.actions.filter((action) => all || action.verb !== 'skip');
  if (rows.length > 0) lines.push('', ...rows.map(actionRow));
  if (plan.actions.length === 0) {
    // Where places are silent or images unusable, nothing can be said of what fits.
    if (plan.unreachable.length + plan.leftOut.length === 0) lines.push('nothing to do: no image fits');
  } else if (rows.length === 0) {
    lines.push(
      plan.unreachable.length + plan.leftOut.length === 0
        ? 'nothing to do: everything is in place'
        : 'nothing to do where places answered',
    );
  }
  if (plan.coming.length > 0) {
    lines.push('', 'later:');
    for (const { what, target, series, version, notBefore } of plan.coming)
      lines.push(
        `${what.padEnd(7)} ${column(target, 12)} ${column(series, 22)} ${column(version, 17)} not before ${notBefore}`,
      );
  }
  for (const { kind, name, message, hint } of plan.unreachable) {
    lines.push('', `${kind} ${name} cannot be used: ${printable(message)}`);
    if (hint !== undefined) lines.push(`  hint: ${printable(hint)}`);
  }
  if (plan.leftOut.length > 0) lines.push('', ...plan.leftOut.flatMap(leftOutLines));
  if (plan.notes.length > 0) lines.push('', ...plan.notes.map((note) => `note: ${printable(note)}`));
  return lines;
}

function leftOutLines({ source, what, message, code, hint }: LeftOut): string[] {
  return [
    `left out: ${printable(what)} of ${source}: ${printable(message)} [${code}]`,
    ...(hint === undefined ? [] : [`  hint: ${printable(hint)}`]),
  ];
}

/** One line for an outcome as it comes; nothing for what stays as it is. */
export function outcomeLine(outcome: SyncOutcome): string | undefined {
  const { action, result, message, seconds, sentBytes, changedBytes } = outcome;
  if (result === 'skipped') return undefined;
  const what = `${action.verb.padEnd(7)} ${column(action.target, 12)} ${imageColumn(action, 34)}`;
  const bytes =
    sentBytes > 0 ? `${formatBytes(sentBytes)} sent for ${formatBytes(changedBytes)} changed, ` : '';
  const more = message === undefined ? `${bytes}${formatSeconds(seconds)}` : printable(message);
  return `${what} ${result}: ${more}`;
}

/** What a run could not ask or use. */
export function blindSpots({ unreachable, leftOut }: Pick<SyncReport, 'unreachable' | 'leftOut'>): string[] {
  return [
    ...unreachable.flatMap(({ kind, name, message, hint, code }) => [
      `${kind} ${name} could not be used: ${printable(message)} [${code}]`,
      ...(hint === undefined ? [] : [`  hint: ${printable(hint)}`]),
    ]),
    ...leftOut.flatMap(leftOutLines),
  ];
}

/** What a run came to, failures first; without a state folder the report is on the host that planned it. */
export function summaryLines(report: SyncReport, stateDir?: string): string[] {
  const numbers = numbersOf(report);
  const lines: string[] = [];
  for (const { action, message, hint, code } of numbers.failures) {
    lines.push(
      `failed: ${action.verb} ${printable(action.series)} ${printable(action.version)} in ${action.target}: ${printable(message ?? '')} [${code ?? ''}]`,
    );
    if (hint !== undefined) lines.push(`  hint: ${printable(hint)}`);
  }
  for (const set of report.dataSets.filter(({ result }) => result === 'failed'))
    lines.push(
      `failed: data set ${printable(set.id)} to ${set.target}: ${printable(set.message ?? '')} [${set.code ?? ''}]`,
    );
  lines.push(...blindSpots(report));
  for (const note of report.notes) lines.push(`note: ${printable(note)}`);
  const { done, adopted, skipped, failed, deferred, changed } = numbers.results;
  const counts = [
    [done, 'done'],
    [adopted, 'found there'],
    [skipped, 'in place'],
    [failed, 'failed'],
    [deferred, 'deferred'],
    [changed, 'not as planned'],
  ].flatMap(([count, word]) => (count === 0 ? [] : [`${count} ${word}`]));
  lines.push(
    `${report.sync}: ${verdictOf(report).word}; ${counts.join(', ') || 'nothing to do'}; ${formatBytes(numbers.sentBytes)} sent, ${formatBytes(numbers.savedBytes)} saved, ${formatSeconds(report.seconds)}`,
  );
  const page = path.join('runs', report.run, 'report.html');
  lines.push(
    stateDir === undefined
      ? `report: ${page} in the state folder of ${printable(report.host)}`
      : `report: ${path.join(stateDir, page)}`,
  );
  return lines;
}
