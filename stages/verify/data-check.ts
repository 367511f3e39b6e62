/** Are the data sets back? Judged from `port-image-data status --json` inside the instance. */
import type { DataMode } from '../../core/data-set.ts';
import { printable } from '../../core/text.ts';
import type { Check } from '../../core/types.ts';
import type { ReportReader } from './report.ts';

/** A data set the instance should fetch. */
export interface ExpectedDataSet {
  id: string;
  path: string;
  /** Unknown for an image without its job: then whatever the instance says. */
  mode?: DataMode;
  neededBy: readonly string[];
}

/** Complete and compared with the manifest, as `port-image-data status` calls it. */
const DONE = 'done';
/** States in which a data set rests that nobody has asked for yet. */
const RESTING = new Set(['lazy', 'manual']);

/** State by id, whatever else the status holds. */
export function dataStates(status: unknown): Map<string, string> {
  const states = new Map<string, string>();
  const walk = (value: unknown, depth: number) => {
    if (depth > 3 || typeof value !== 'object' || value === null) return;
    if (Array.isArray(value)) {
      for (const item of value.slice(0, 1000)) walk(item, depth + 1);
      return;
    }
    const { id, state } = value as { id?: unknown; state?: unknown };
    if (typeof id === 'string' && typeof state === 'string') {
      states.set(id, printable(state).slice(0, 100));
      return;
    }
    for (const item of Object.values(value).slice(0, 1000)) walk(item, depth + 1);
  };
  walk(status, 0);
  return states;
}

/** All eager data sets must be complete; the others complete or untouched. */
export function dataCheck(report: ReportReader, wanted: readonly ExpectedDataSet[]): Check {
  const states = dataStates(report.json('data'));
  const problems: string[] = [];
  for (const { id, path, mode } of wanted) {
    const state = states.get(id) ?? 'not reported';
    if (state !== DONE && (mode === 'eager' || !RESTING.has(state)))
      problems.push(`${printable(path)}: ${state}`);
  }
  return {
    name: 'data sets',
    ok: problems.length === 0,
    detail:
      problems.length === 0 ? `${wanted.length} restored and verified` : problems.join('; ').slice(0, 500),
  };
}
