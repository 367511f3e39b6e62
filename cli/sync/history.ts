/** `port-image sync status` and `sync history`: what the ledger and the reports of a sync tell; no cloud is asked. */
import * as path from 'node:path';
import type { Command } from 'commander';
import { PortError } from '../../core/errors.ts';
import { exists } from '../../core/files.ts';
import { formatBytes, formatSeconds } from '../../core/sizes.ts';
import type { SyncOutcome } from '../../core/sync/types.ts';
import { printable } from '../../core/text.ts';
import { stateDirOf } from '../../pipeline/sync/engine.ts';
import { Ledger } from '../../pipeline/sync/ledger.ts';
import { loadSync } from '../../pipeline/sync/load.ts';
import { numbersOf, verdictOf } from '../../pipeline/sync/report/numbers.ts';
import { blindSpots, outcomeLine, summaryLines } from '../../pipeline/sync/report/text.ts';
import { out, outJson } from '../output.ts';
import { tableLines } from '../table.ts';

const HISTORY_RUNS = 30;

async function withLedger<T>(
  name: string,
  work: (ledger: Ledger, stateDir: string) => T | Promise<T>,
): Promise<T> {
  const stateDir = stateDirOf(await loadSync(name));
  if (!(await exists(stateDir))) {
    throw new PortError('USAGE', `no run of ${printable(name)} is known here`, {
      hint: `run it first: port-image sync ${printable(name)}; its state is in ${printable(stateDir)}`,
    });
  }
  const ledger = await Ledger.open(stateDir);
  try {
    return await work(ledger, stateDir);
  } finally {
    ledger.close();
  }
}

function stateOf({ action, result }: SyncOutcome): string {
  const isDone = result === 'done' || result === 'adopted';
  if (action.verb === 'hide') return isDone || result === 'skipped' ? 'hidden' : `hide: ${result}`;
  if (action.verb === 'delete') return `delete: ${result}`;
  return result === 'skipped' ? 'in place' : result;
}

/** Adds the two subcommands. */
export function addHistory(sync: Command): void {
  sync
    .command('status')
    .description('the newest outcome of every image in every target, as far as this machine knows')
    .argument('<file>', 'sync.yaml')
    .option('--json', 'print JSON')
    .exitOverride()
    .action((name: string, _flags: unknown, command: Command) =>
      withLedger(name, (ledger, stateDir) => {
        const rows = ledger.newest();
        const [last] = ledger.runs(1);
        if (command.optsWithGlobals<{ json?: boolean }>().json === true) {
          outJson({
            lastRun:
              last === undefined
                ? null
                : { run: last.run, endedAt: last.endedAt, exitStatus: last.exitStatus },
            images: rows.map(({ startedAt, outcome }) => ({ at: startedAt, ...outcome })),
            coming: last?.coming ?? [],
            unreachable: last?.unreachable ?? [],
            leftOut: last?.leftOut ?? [],
          });
          return;
        }
        if (last === undefined) {
          out('no run yet');
          return;
        }
        for (const line of tableLines(rows, [
          {
            title: 'image',
            value: (r) => `${r.outcome.action.series} ${r.outcome.action.version}`,
            shrinks: true,
          },
          { title: 'target', value: (r) => r.outcome.action.target },
          { title: 'state', value: (r) => stateOf(r.outcome) },
          { title: 'since', value: (r) => r.startedAt.slice(0, 16), optional: true },
          { title: 'cause', value: (r) => r.outcome.message ?? '' },
        ]))
          out(line);
        for (const line of blindSpots(last)) out(line);
        for (const { what, target, series, version, notBefore } of last.coming)
          out(`${what} ${printable(series)} ${printable(version)} in ${target}: not before ${notBefore}`);
        out(
          `last run ${last.run}: ${verdictOf(last).word}; all nights: ${path.join(stateDir, 'index.html')}`,
        );
      }),
    );
  sync
    .command('history')
    .description('the runs of a sync, or one of them')
    .argument('<file>', 'sync.yaml')
    .option('--run <id>', 'what this run did')
    .option('--json', 'print JSON')
    .exitOverride()
    .action((name: string, _flags: unknown, command: Command) =>
      withLedger(name, (ledger, stateDir) => {
        const { json, run } = command.optsWithGlobals<{ json?: boolean; run?: string }>();
        const runs = ledger.runs(run === undefined ? HISTORY_RUNS : Number.MAX_SAFE_INTEGER);
        if (run !== undefined) {
          const report = runs.find((one) => one.run === run);
          if (report === undefined)
            throw new PortError('USAGE', `no run ${printable(run)}`, {
              hint: 'port-image sync history FILE',
            });
          if (json === true) outJson(report);
          else {
            for (const outcome of report.outcomes) {
              const line = outcomeLine(outcome);
              if (line !== undefined) out(line);
            }
            for (const line of summaryLines(report, stateDir)) out(line);
          }
          return;
        }
        if (json === true) {
          outJson(
            runs.map(({ outcomes, dataSets, ...report }) => ({
              ...report,
              ...numbersOf({ outcomes, dataSets }),
            })),
          );
          return;
        }
        for (const line of tableLines(runs, [
          { title: 'run', value: (r) => r.run },
          { title: 'result', value: (r) => verdictOf(r).word },
          { title: 'failed', value: (r) => String(numbersOf(r).results.failed), right: true },
          { title: 'sent', value: (r) => formatBytes(numbersOf(r).sentBytes), right: true },
          { title: 'saved', value: (r) => formatBytes(numbersOf(r).savedBytes), right: true },
          { title: 'time', value: (r) => formatSeconds(r.seconds), right: true },
          { title: 'host', value: (r) => r.host, optional: true },
        ]))
          out(line);
      }),
    );
}
