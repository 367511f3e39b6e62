/** Services that ran before: do they run now? Judged from `systemctl show`. */
import { printable } from '../../core/text.ts';
import type { Check } from '../../core/types.ts';
import type { ExpectedDataSet } from './data-check.ts';

/** Properties of one unit as `systemctl show` prints them. */
export type UnitState = Readonly<Record<string, string>>;

/** Parses blocks of KEY=VALUE separated by empty lines. Values are printable; at most 300 units. */
export function unitStates(text: string): UnitState[] {
  return text
    .split('\n\n')
    .slice(0, 300)
    .map((block) => {
      const state: Record<string, string> = Object.create(null) as Record<string, string>;
      for (const line of block.split('\n')) {
        const at = line.indexOf('=');
        if (at > 0) state[line.slice(0, at)] = printable(line.slice(at + 1)).slice(0, 300);
      }
      return state;
    })
    .filter((state) => state.Id !== undefined);
}

/** Why a unit that should run does not, or undefined when it is as it should be. */
export function whyNotRunning(state: UnitState): string | undefined {
  const { ActiveState: active, SubState: sub, Result: result, Type: type } = state;
  if (state.LoadState !== 'loaded') return undefined; // Removed or masked by the conversion: told in the report.
  if (active === 'failed') return `failed (${result})`;
  if (active === 'activating' && sub === 'auto-restart') return 'restarts over and over';
  if (active === 'active' || active === 'reloading' || active === 'activating') return undefined;
  if (result !== undefined && result !== 'success') return `stopped (${result})`;
  if (state.ConditionResult === 'no' || type === 'oneshot') return undefined;
  const started = Number(state.ExecMainStartTimestampMonotonic ?? 0) > 0;
  if (started) return undefined; // Ran and ended well.
  const wanted = (state.WantedBy ?? '').split(' ').includes('multi-user.target');
  return wanted ? 'was never started' : undefined;
}

/** The check over all units asked for. */
export function servicesCheck(
  states: readonly UnitState[],
  expect: { services: readonly string[]; dataSets: readonly ExpectedDataSet[] },
): Check {
  const problems: string[] = [];
  let running = 0;
  for (const state of states) {
    const why = whyNotRunning(state);
    if (why !== undefined) problems.push(`${state.Id} ${why}`);
    else if (state.ActiveState === 'active') running++;
  }
  for (const unit of new Set(expect.dataSets.flatMap((d) => d.neededBy))) {
    const state = states.find((s) => s.Id === unit);
    if (!unit.endsWith('.service') || state === undefined || state.LoadState !== 'loaded') continue;
    const text = `${unit} needs a data set and is ${state.ActiveState}`;
    if (
      state.ActiveState !== 'active' &&
      state.Type !== 'oneshot' &&
      !problems.some((p) => p.startsWith(`${unit} `))
    ) {
      problems.push(text);
    }
  }
  if (expect.services.length > 0 && states.length === 0) problems.push('no unit states were reported');
  return {
    name: 'services',
    ok: problems.length === 0,
    detail: (problems.length === 0
      ? `${running} of ${states.length} asked for are active`
      : problems.join('; ')
    ).slice(0, 600),
  };
}
