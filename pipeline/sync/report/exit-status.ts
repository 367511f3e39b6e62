/** The status a run ends with: that of the gravest failure, for whoever watches it. */
import { ERROR_CODES, type ErrorCode, type ErrorGroup, EXIT_STATUS } from '../../../core/errors.ts';
import type { SyncReport } from '../../../core/sync/types.ts';

/** Gravest first. */
const ORDER: readonly ErrorGroup[] = [
  'bug',
  'unsafe',
  'verify',
  'source',
  'host',
  'config',
  'usage',
  'remote',
];

/** Whether a text is a code of this program. */
function isCode(code: string): code is ErrorCode {
  return Object.hasOwn(ERROR_CODES, code);
}

/**
 * 0 when every image is where it should be or will be tried again by itself; 130 when the run was stopped; else the status of the gravest
 * failure of an image, a data set, a place that could not be asked, or of what a source has and nobody can use.
 */
export function exitStatusOf(
  report: Pick<SyncReport, 'outcomes' | 'dataSets' | 'unreachable' | 'leftOut' | 'interrupted'>,
): number {
  if (report.interrupted) return EXIT_STATUS.interrupted;
  const codes = [
    ...report.outcomes.filter(({ result }) => result === 'failed').map(({ code }) => code ?? 'BUG'),
    ...report.dataSets.filter(({ result }) => result === 'failed').map(({ code }) => code ?? 'STORE'),
    ...report.unreachable.map(({ code }) => code),
    ...report.leftOut.map(({ code }) => code),
  ];
  const groups = new Set(codes.map((code) => (isCode(code) ? ERROR_CODES[code].group : 'bug')));
  const gravest = ORDER.find((group) => groups.has(group));
  return gravest === undefined ? 0 : EXIT_STATUS[gravest];
}
