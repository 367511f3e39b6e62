/** `port-image queue`. */
import { Command } from 'commander';
import { PortError } from '../../core/errors.ts';
import { formatSeconds } from '../../core/sizes.ts';
import {
  cancelJobs,
  type DeadJob,
  type JobFilter,
  type KindStatus,
  type QueueStatus,
  queueStatus,
  type RunningJob,
  retryDead,
  type WorkerStatus,
} from '../../pipeline/sync/fleet/status.ts';
import { out, outJson } from '../output.ts';
import { QUEUE_HELP, withQueue } from '../queue.ts';
import { type Column, tableLines } from '../table.ts';

interface QueueFlags {
  queue: string;
  sync?: string;
  target?: string;
  all?: boolean;
  json?: boolean;
}

const KIND_COLUMNS: readonly Column<KindStatus>[] = [
  { title: 'kind', value: ({ kind }) => kind },
  ...(['waiting', 'retrying', 'running', 'done', 'failed', 'cancelled', 'dead'] as const).map(
    (name): Column<KindStatus> => ({ title: name, value: (row) => String(row[name]), right: true }),
  ),
];

const titleOf = ({ kind, sync, verb, series, version }: RunningJob | DeadJob) =>
  kind === 'sync' ? `sync ${sync}` : `${verb} ${series} ${version}`;

const RUNNING_COLUMNS: readonly Column<RunningJob>[] = [
  { title: 'running', value: titleOf, shrinks: true },
  { title: 'target', value: ({ target }) => target },
  { title: 'host', value: ({ host }) => host },
  { title: 'for', value: ({ seconds }) => formatSeconds(seconds), right: true },
  { title: 'last sign', value: ({ silentSeconds }) => `${formatSeconds(silentSeconds)} ago`, right: true },
  { title: 'attempt', value: ({ attempt }) => String(attempt), right: true },
  { title: 'job', value: ({ id }) => id, optional: true },
];

const DEAD_COLUMNS: readonly Column<DeadJob>[] = [
  { title: 'failed for good', value: titleOf },
  { title: 'target', value: ({ target }) => target },
  { title: 'at', value: ({ at }) => at, optional: true },
  { title: 'attempts', value: ({ attempts }) => String(attempts), right: true },
  { title: 'cause', value: ({ code, message }) => `${message} [${code}]`, shrinks: true },
  { title: 'job', value: ({ id }) => id, optional: true },
];

const WORKER_COLUMNS: readonly Column<WorkerStatus>[] = [
  { title: 'worker', value: ({ name }) => name },
  { title: 'pid', value: ({ pid }) => String(pid), right: true },
  { title: 'lanes', value: ({ lanes }) => String(lanes), right: true },
  { title: 'running', value: ({ running }) => String(running), right: true },
  { title: 'state', value: ({ alive }) => (alive ? 'alive' : 'silent') },
  { title: 'since', value: ({ startedAt }) => startedAt },
];

function statusLines({ kinds, running, dead, workers, schedules }: QueueStatus): string[] {
  const lines = tableLines(kinds, KIND_COLUMNS);
  lines.push('', ...(workers.length === 0 ? ['no workers'] : tableLines(workers, WORKER_COLUMNS)));
  if (running.length > 0) lines.push('', ...tableLines(running, RUNNING_COLUMNS));
  if (dead.length > 0) lines.push('', ...tableLines(dead, DEAD_COLUMNS));
  if (schedules.length > 0)
    lines.push(
      '',
      ...tableLines(schedules, [
        { title: 'schedule', value: ({ sync }) => sync },
        { title: 'cron', value: ({ cron }) => cron },
        { title: 'time zone', value: ({ timezone }) => timezone },
      ]),
    );
  return lines;
}

const JOB_ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** What the words and flags of a command mean; without any of them only `--all` means everything. */
function filterOf(ids: readonly string[], { sync, target, all }: QueueFlags): JobFilter {
  for (const id of ids)
    if (!JOB_ID.test(id))
      throw new PortError('USAGE', `no id of a job: ${id}`, { hint: 'port-image queue status' });
  const isNarrow = ids.length > 0 || sync !== undefined || target !== undefined;
  if (isNarrow === (all === true))
    throw new PortError('USAGE', 'which jobs?', {
      hint: 'ids of jobs, --sync NAME, --target NAME, or --all',
    });
  return { ids: ids.length === 0 ? undefined : ids, sync, target };
}

const EXAMPLES = `
Examples:
  port-image queue status --queue env:QUEUE --json
  port-image queue cancel --queue env:QUEUE --sync nightly --target region-b
  port-image queue retry --queue env:QUEUE --all`;

/** Defines the command and its subcommands. */
export function queueCommand(): Command {
  const queue = new Command('queue')
    .description('look at the queue of a fleet, cancel jobs, or try again what failed for good')
    .addHelpText('after', EXAMPLES)
    .exitOverride();
  queue
    .command('status')
    .description('jobs by state, workers, what runs where, what failed for good and why')
    .requiredOption('--queue <url>', QUEUE_HELP)
    .option('--json', 'print JSON')
    .exitOverride()
    .action(async (flags: QueueFlags) => {
      const status = await withQueue(flags.queue, 'look', queueStatus);
      if (flags.json === true) outJson(status);
      else for (const line of statusLines(status)) out(line);
    });
  for (const [name, description, act, done] of [
    ['cancel', 'cancel jobs that wait or run', cancelJobs, 'cancelled'],
    ['retry', 'put jobs that failed for good back into the queue', retryDead, 'retried'],
  ] as const)
    queue
      .command(name)
      .description(description)
      .argument('[job...]', 'ids, as status tells them')
      .requiredOption('--queue <url>', QUEUE_HELP)
      .option('--sync <name>', 'only jobs of this sync')
      .option('--target <name>', 'only jobs of this target')
      .option('--all', 'all of them')
      .option('--json', 'print JSON')
      .exitOverride()
      .action(async (ids: string[], flags: QueueFlags) => {
        const filter = filterOf(ids, flags);
        const count = await withQueue(flags.queue, 'look', (opened) => act(opened, filter));
        if (flags.json === true) outJson({ [done]: count });
        else out(`${done}: ${count}`);
      });
  return queue;
}
