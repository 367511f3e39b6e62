/** Runs a job for a command and prints how it ended. */
import { PortError } from '../core/errors.ts';
import type { StageName } from '../core/stage.ts';
import { printable } from '../core/text.ts';
import { type RunOutcome, runJob } from '../pipeline/engine.ts';
import { drawRun, out, outJson, say } from './output.ts';
import type { Interruption } from './signals.ts';
import { printSummary } from './summary.ts';

/** How a command wants its job run. */
export interface FinishOptions {
  interruption: Interruption;
  json: boolean;
  dryRun: boolean;
  /** Removes what a dry run or an early refusal leaves; false when there is something worth keeping. */
  leave?: () => Promise<boolean>;
  until?: StageName;
  repeat?: readonly StageName[];
}

/** Runs the job and prints its summary; with `json` stdout is one object. */
export async function finishJob(dir: string, options: FinishOptions): Promise<void> {
  const draw = drawRun({ quiet: false });
  let outcome: RunOutcome;
  let began = false;
  try {
    outcome = await runJob(dir, {
      signal: options.interruption.signal,
      listener: (event) => {
        // what capture copied is seen in the folder; from inspect on there is something worth keeping
        if (event.event === 'stage-done' && event.stage !== 'capture') began = true;
        draw(event);
      },
      dryRun: options.dryRun,
      ...(options.until === undefined ? {} : { until: options.until }),
      ...(options.repeat === undefined ? {} : { repeat: options.repeat }),
    });
  } catch (error) {
    draw.end();
    const interrupted = options.interruption.signal.aborted;
    const nothingDone =
      !began && !interrupted && !(error instanceof PortError && error.code === 'JOB_LOCKED');
    const gone = (nothingDone || options.dryRun) && (await options.leave?.()) === true;
    if (!gone && !options.dryRun && !(error instanceof PortError && error.code === 'JOB_LOCKED'))
      say(`job: ${dir} (port-image resume goes on)`);
    throw error;
  }
  draw.end();
  if (options.dryRun) {
    await options.leave?.();
    if (options.json)
      outJson({
        dryRun: true,
        changes: outcome.planned,
        warnings: [...new Set([...outcome.summary.warnings, ...outcome.warnings])],
      });
    else {
      out(`${outcome.planned.length} intended changes:`);
      for (const change of outcome.planned) {
        out(
          `  ${change.stage.padEnd(14)}${change.action.padEnd(8)} ${printable(change.path)}  (${printable(change.why)})`,
        );
      }
    }
    return;
  }
  if (options.json) outJson(outcome.summary);
  else printSummary(outcome.summary);
}
