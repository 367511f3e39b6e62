/** Builds what a stage is given, and collects what it reports. */
import { PortError } from '../core/errors.ts';
import type { Facts } from '../core/facts.ts';
import type { GuestSession } from '../core/guest.ts';
import type { Log } from '../core/log.ts';
import type { Platform } from '../core/platform.ts';
import type { Request } from '../core/request.ts';
import type { Change, JobPaths, StageContext, StageName } from '../core/stage.ts';
import type { Listener } from './events.ts';

/** What all stages of a run share. */
export interface RunState {
  request: Request;
  paths: JobPaths;
  platforms: readonly Platform[];
  results: Map<StageName, unknown>;
  facts: Facts | undefined;
  guest: GuestSession | undefined;
  signal: AbortSignal;
  log: Log;
  listener: Listener;
}

/** A context for one stage, and the changes and warnings it reported. */
export interface StageRun {
  context: StageContext;
  changes: Change[];
  warnings: string[];
}

/** Makes the context of one stage; `intended` marks changes of a plan. */
export function stageContext(state: RunState, stage: StageName, intended: boolean): StageRun {
  const changes: Change[] = [];
  const warnings: string[] = [];
  const context: StageContext = {
    request: state.request,
    paths: state.paths,
    platforms: state.platforms,
    signal: state.signal,
    log: state.log,
    result: <T>(name: StageName): T | undefined => state.results.get(name) as T | undefined,
    get facts() {
      if (state.facts === undefined) throw new PortError('BUG', `${stage} asked for facts before inspect`);
      return state.facts;
    },
    get guest() {
      if (state.guest === undefined)
        throw new PortError('BUG', `${stage} asked for the guest outside its session`);
      return state.guest;
    },
    progress: (progress) => state.listener({ event: 'progress', stage, progress }),
    change: (change) => {
      const whole = { stage, ...change };
      changes.push(whole);
      state.listener({ event: 'change', change: whole, intended });
    },
    warn: (text) => {
      if (!warnings.includes(text)) {
        warnings.push(text);
        state.log.warn(text, { stage });
        if (!intended) state.listener({ event: 'warning', stage, text });
      }
    },
  };
  return { context, changes, warnings };
}
