/** How long until the machine did its work, from what systemd noted. Seconds count from the start of the kernel. */
import { DATA_SET_ID, DataMode } from '../../core/data-set.ts';
import type { LazyAccess, TimeToService } from '../../core/types.ts';
import type { ReportReader } from './report.ts';
import { safeUnits } from './reporter.ts';
import { unitStates } from './services-check.ts';

/** A data set as the image itself describes it. */
interface ReportedSet {
  id: string;
  mode: DataMode;
  /** Seconds after which its fetch began; undefined when it did not. */
  fetchSeconds: number | undefined;
  neededBy: string[];
}

/** Most sets taken from a report: its sender is a guest. */
const MAX_SETS = 1000;

function reportedSets(report: ReportReader): ReportedSet[] {
  return report
    .lines('sets')
    .slice(0, MAX_SETS)
    .flatMap((line) => {
      const [id = '', word, micros, ...units] = line.split(' ');
      const mode = DataMode.safeParse(word);
      if (!DATA_SET_ID.test(id) || !mode.success) return [];
      return [{ id, mode: mode.data, fetchSeconds: seconds(micros), neededBy: safeUnits(units) }];
    });
}

/** Seconds of a systemd timestamp; undefined for 0, which means never. */
function seconds(micros: string | undefined): number | undefined {
  const value = Number(micros);
  return Number.isFinite(value) && value > 0 ? Math.round(value / 10_000) / 100 : undefined;
}

/** When each unit that needs a data set was active, earliest first; those that never were are left out. */
export function timeToService(report: ReportReader): TimeToService[] {
  const active = new Map(
    unitStates(report.text('units')).map((s) => [s.Id, seconds(s.ActiveEnterTimestampMonotonic)]),
  );
  const found = reportedSets(report).flatMap(({ id, mode, neededBy }) =>
    neededBy.flatMap((unit) => {
      const at = active.get(unit);
      return at === undefined ? [] : [{ unit, seconds: at, mode, dataSet: id }];
    }),
  );
  return found.sort((a, b) => a.seconds - b.seconds);
}

/** Lazy data sets that something used during the boot, in that order: what a prefetch should bring. */
export function lazyAccess(report: ReportReader): LazyAccess[] {
  return reportedSets(report)
    .flatMap(({ id, mode, fetchSeconds }) =>
      mode === 'lazy' && fetchSeconds !== undefined ? [{ id, seconds: fetchSeconds }] : [],
    )
    .sort((a, b) => a.seconds - b.seconds);
}
