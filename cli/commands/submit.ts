/** `port-image submit`. */
import { Command } from 'commander';
import { PortError } from '../../core/errors.ts';
import { isoDate } from '../../core/sync/dates.ts';
import { printable } from '../../core/text.ts';
import { scheduleSync, submitSync, unscheduleSync } from '../../pipeline/sync/fleet/submit.ts';
import { loadSync } from '../../pipeline/sync/load.ts';
import { summaryLines } from '../../pipeline/sync/report/text.ts';
import { out, outJson, say } from '../output.ts';
import { QUEUE_HELP, wholeNumber, withQueue } from '../queue.ts';
import type { Interruption } from '../signals.ts';
import { onlyOption } from '../sync/only.ts';

interface SubmitFlags {
  queue: string;
  wait?: boolean;
  only?: string[];
  priority?: number;
  cron?: string;
  timezone?: string;
  unschedule?: boolean;
  json?: boolean;
}

const MOST_PRIORITY = 1000;

const EXAMPLES = `
Examples:
  port-image submit nightly.yaml --queue env:QUEUE --wait
  port-image submit nightly.yaml --queue env:QUEUE --cron '30 1 * * *' --timezone Europe/Berlin
  port-image submit nightly.yaml --queue env:QUEUE --unschedule

The text of the file travels with the job; paths, clouds and references to secrets in it are those of the workers.
Exit status with --wait: that of the sync.`;

/** Defines the command. */
export function submitCommand(interruption: Interruption): Command {
  return new Command('submit')
    .description('hand a whole sync to the workers of a queue, now or by the clock')
    .argument('<file>', 'sync.yaml')
    .requiredOption('--queue <url>', QUEUE_HELP)
    .option('--wait', 'wait for its end')
    .addOption(onlyOption())
    .option('--priority <n>', 'larger is sooner', wholeNumber(-MOST_PRIORITY, MOST_PRIORITY))
    .option('--cron <pattern>', 'not now, but whenever the clock says so')
    .option('--timezone <zone>', 'of --cron; UTC by default')
    .option('--unschedule', 'end what --cron began')
    .option('--json', 'end stdout with one JSON object')
    .addHelpText('after', EXAMPLES)
    .exitOverride()
    .action(async (name: string, flags: SubmitFlags) => {
      if (flags.timezone !== undefined && flags.cron === undefined)
        throw new PortError('USAGE', '--timezone goes with --cron');
      if (flags.cron !== undefined && (flags.wait === true || flags.only !== undefined))
        throw new PortError('USAGE', '--cron goes neither with --wait nor with --only');
      const file = await loadSync(name);
      const { sync } = file.config;
      await withQueue(flags.queue, 'run', async (queue) => {
        if (flags.unschedule === true) {
          const removed = await unscheduleSync(queue, sync);
          if (flags.json === true) outJson({ sync, unscheduled: removed });
          else out(removed ? `${sync} has no schedule any more` : `${sync} had no schedule`);
          return;
        }
        if (flags.cron !== undefined) {
          const { cron, timezone = 'UTC', priority } = flags;
          const next = await scheduleSync(queue, file, { cron, timezone, priority });
          const at = next === undefined ? null : isoDate(next);
          if (flags.json === true) outJson({ sync, cron, timezone, next: at });
          else
            out(`${sync} runs by ${printable(cron)} in ${timezone}${at === null ? '' : `, next at ${at}`}`);
          return;
        }
        const job = await submitSync(queue, file, flags);
        if (!job.isNew) say(`note: ${sync} is in the queue already; nothing was added`);
        if (!(await queue.hasWorkers()))
          say('warning: no worker is connected to the queue; start one: port-image worker');
        if (flags.wait !== true) {
          if (flags.json === true) outJson({ sync, job: job.id, isNew: job.isNew });
          else out(job.id);
          return;
        }
        const { report, error, host } = await job.wait(interruption.signal);
        if (report === undefined) {
          const hint = error?.hint === undefined ? {} : { hint: error.hint };
          throw new PortError('QUEUE', `${sync} failed on ${host}: ${error?.message ?? ''}`, hint);
        }
        if (flags.json === true) outJson(report);
        else for (const line of summaryLines(report)) out(line);
        process.exitCode = report.exitStatus;
      });
    });
}
