/** `port-image sync`: images kept the same across clouds. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { Command } from 'commander';
import { PortError } from '../../core/errors.ts';
import { makeDir } from '../../core/files.ts';
import type { SyncContext, SyncReport } from '../../core/sync/types.ts';
import { printable } from '../../core/text.ts';
import { openJobLog } from '../../pipeline/job-log.ts';
import { runDaemon } from '../../pipeline/sync/daemon.ts';
import { planOnly, runSync, type SyncOptions, stateDirOf } from '../../pipeline/sync/engine.ts';
import { loadSync } from '../../pipeline/sync/load.ts';
import { notifyAll } from '../../pipeline/sync/notify.ts';
import type { SyncFile } from '../../pipeline/sync/perform-types.ts';
import { outcomeLine, planTable, summaryLines } from '../../pipeline/sync/report/text.ts';
import { out, outJson, say } from '../output.ts';
import { withProgress } from '../progress.ts';
import { hidePassword } from '../queue.ts';
import type { Interruption } from '../signals.ts';
import { addCheck } from '../sync/check.ts';
import { addHistory } from '../sync/history.ts';
import { onlyOption } from '../sync/only.ts';

interface SyncFlags {
  plan?: boolean;
  all?: boolean;
  only?: string[];
  json?: boolean;
  daemon?: boolean;
  queue?: string;
}

const EXAMPLES = `
Examples:
  port-image sync check nightly.yaml
  port-image sync nightly.yaml --plan
  port-image sync nightly.yaml
  port-image sync nightly.yaml --only shop-web --json
  port-image sync history nightly.yaml
  port-image sync retry nightly.yaml

Exit status: 0 when every image is where it should be; otherwise that of the gravest failure. A run that is cut off is gone on
with by the next one.`;

/** Runs `work` with the log of the sync and a line of progress. */
async function withContext<T>(
  file: SyncFile,
  interruption: Interruption,
  work: (ctx: SyncContext) => Promise<T>,
): Promise<T> {
  const logs = path.join(stateDirOf(file), 'logs');
  await makeDir(logs);
  keepSmall(path.join(logs, 'port-image.jsonl'));
  const log = openJobLog(logs, { sync: file.config.sync });
  try {
    return await withProgress((progress) =>
      work({
        signal: interruption.signal,
        log,
        // Nobody watches at night: outcomes and warnings alone, so that an unchanged one is silent.
        progress: process.stderr.isTTY === true ? progress : () => {},
        warn: (text) => {
          log.warn(text);
          say(`warning: ${printable(text)}`);
        },
      }),
    );
  } finally {
    log.close();
  }
}

/** A log of years of nights would fill the disk: the one before is kept, older lines are not. */
const LOG_BYTES = 64 * 1024 * 1024;
function keepSmall(file: string): void {
  const size = fs.statSync(file, { throwIfNoEntry: false })?.size ?? 0;
  if (size > LOG_BYTES) fs.renameSync(file, `${file}.1`);
}

async function carrierOf(
  file: SyncFile,
  queue: string | undefined,
  ctx: SyncContext,
): Promise<Pick<SyncOptions, 'carrier'>> {
  if (queue === undefined) return {};
  hidePassword(queue);
  const { PgCarrier } = await import('../../pipeline/sync/fleet/carrier.ts');
  return { carrier: (run) => PgCarrier.open({ url: queue, file, run, ...ctx }) };
}

/** One run, told as it goes. */
async function runOnce(
  file: SyncFile,
  flags: SyncFlags,
  interruption: Interruption,
  more: Pick<SyncOptions, 'onlyFailed'> = {},
): Promise<SyncReport> {
  return withContext(file, interruption, async (ctx) => {
    const report = await runSync(file, {
      ...ctx,
      ...more,
      ...(await carrierOf(file, flags.queue, ctx)),
      only: flags.only,
      onOutcome: (outcome) => {
        const line = outcomeLine(outcome);
        if (line !== undefined) say(line);
      },
    });
    await notifyAll(file.config, report, ctx);
    return report;
  });
}

function tell(file: SyncFile, report: SyncReport, json: boolean, interruption: Interruption): void {
  if (json) outJson(report);
  else for (const line of summaryLines(report, stateDirOf(file))) out(line);
  process.exitCode = report.interrupted && interruption.name() === 'SIGTERM' ? 143 : report.exitStatus;
}

/** Defines the command and its subcommands. */
export function syncCommand(interruption: Interruption): Command {
  const sync = new Command('sync')
    .description('keep images and their data the same across clouds, as a file says')
    .argument('[file]', 'sync.yaml')
    .option('--plan', 'print what a run would do now, and do nothing')
    .option('--all', 'with --plan: also what stays as it is')
    .addOption(onlyOption())
    .option('--daemon', "run at the times of the file's schedule until stopped")
    .option('--queue <url>', 'let workers of this queue do it: postgres://… or env:NAME, file:/PATH')
    .option('--json', 'end stdout with one JSON object')
    .addHelpText('after', EXAMPLES)
    .exitOverride()
    .action(async (name: string | undefined, flags: SyncFlags) => {
      if (name === undefined) {
        throw new PortError('USAGE', 'which file?', { hint: 'port-image sync FILE; port-image sync --help' });
      }
      const file = await loadSync(name);
      if (flags.plan === true) {
        const plan = await withContext(file, interruption, (ctx) =>
          planOnly(file, { ...ctx, only: flags.only }),
        );
        if (flags.json === true) outJson(plan);
        else for (const line of planTable(plan, { all: flags.all === true })) out(line);
        const [silent] = plan.unreachable;
        if (silent !== undefined)
          throw new PortError('SYNC_INCOMPLETE', `${silent.name} cannot be used: ${silent.message}`);
        const [unusable] = plan.leftOut;
        if (unusable !== undefined)
          throw new PortError(
            'SYNC_INCOMPLETE',
            `${printable(unusable.what)} of ${unusable.source} cannot be used: ${unusable.message}`,
          );
        return;
      }
      if (flags.daemon === true) {
        await runDaemon(file, {
          signal: interruption.signal,
          say,
          // The file may have changed since the night before.
          run: async () => {
            const now = await loadSync(name);
            const report = await runOnce(now, flags, interruption);
            for (const line of summaryLines(report, stateDirOf(now))) say(line);
          },
        });
        return;
      }
      tell(file, await runOnce(file, flags, interruption), flags.json === true, interruption);
    });
  sync
    .command('retry')
    .description('only what failed in the run before')
    .argument('<file>', 'sync.yaml')
    .addOption(onlyOption())
    .option('--queue <url>', 'let workers of this queue do it')
    .option('--json', 'end stdout with one JSON object')
    .exitOverride()
    .action(async (name: string, _flags: SyncFlags, command: Command) => {
      const flags: SyncFlags = command.optsWithGlobals();
      const file = await loadSync(name);
      const report = await runOnce(file, flags, interruption, { onlyFailed: true });
      tell(file, report, flags.json === true, interruption);
    });
  addCheck(sync, interruption);
  addHistory(sync);
  return sync;
}
