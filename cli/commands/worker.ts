/** `port-image worker`. */
import * as os from 'node:os';
import * as path from 'node:path';
import { Command } from 'commander';
import { makeDir } from '../../core/files.ts';
import { printable } from '../../core/text.ts';
import { openJobLog } from '../../pipeline/job-log.ts';
import { syncJob } from '../../pipeline/sync/fleet/sync-job.ts';
import { runWorker } from '../../pipeline/sync/fleet/worker.ts';
import { parseSync } from '../../pipeline/sync/load.ts';
import { Performer } from '../../pipeline/sync/performer.ts';
import { out, say } from '../output.ts';
import { QUEUE_HELP, wholeNumber, withQueue } from '../queue.ts';
import type { Interruption } from '../signals.ts';

interface WorkerFlags {
  queue: string;
  lanes: number;
  name?: string;
  state?: string;
  json?: boolean;
}

const MOST_LANES = 32;
/** Of the queue: one for each lane that asks, and some for heartbeats and results. */
const MORE_CONNECTIONS = 3;

const EXAMPLES = `
Examples:
  port-image worker --queue file:/etc/port-image/queue --lanes 4
  PGPASSFILE=/etc/port-image/pgpass port-image worker --queue postgres://fleet@db/port_image

It works until it is stopped; a stopped worker lets its jobs finish for some seconds, then hands them back. Clouds are opened with the
credentials of this host: clouds.yaml, AWS profiles and the like. See docs/fleet.md.`;

function stateHome(): string {
  return path.join(process.env.XDG_STATE_HOME ?? path.join(os.homedir(), '.local', 'state'), 'port-image');
}

/** Defines the command. */
export function workerCommand(interruption: Interruption): Command {
  return new Command('worker')
    .description('take images of syncs from a queue and do them, until stopped')
    .requiredOption('--queue <url>', QUEUE_HELP)
    .option('--lanes <n>', 'images at a time on this host', wholeNumber(1, MOST_LANES), 2)
    .option('--name <host>', 'name of this host in the queue; its own by default')
    .option('--state <dir>', 'folder for copies under way and logs, of this worker alone')
    .option('--json', 'tell each job on stdout, a line of JSON each')
    .addHelpText('after', EXAMPLES)
    .exitOverride()
    .action(async (flags: WorkerFlags) => {
      const name = flags.name ?? os.hostname();
      const stateDir = path.resolve(flags.state ?? path.join(stateHome(), 'worker'));
      // Clients of clouds outlive the signal by the seconds in which jobs may finish.
      const ended = new AbortController();
      const performer = await Performer.open(stateDir, ended.signal);
      const logs = path.join(stateDir, 'logs');
      await makeDir(logs);
      const log = openJobLog(logs, { worker: name });
      const warn = (text: string) => {
        log.warn(text);
        say(`warning: ${printable(text)}`);
      };
      try {
        const options = { log, name, connections: flags.lanes + MORE_CONNECTIONS };
        await withQueue(
          flags.queue,
          'worker',
          async (queue) => {
            say(`${name}: ${flags.lanes} lanes at ${queue.address.shown}`);
            await runWorker({
              queue,
              lanes: flags.lanes,
              name,
              parse: parseSync,
              perform: (task, file, ctx) => performer.perform(task, file, ctx),
              performSync: syncJob(queue, path.join(stateDir, 'runs')),
              signal: interruption.signal,
              log,
              warn,
              onJob:
                flags.json === true
                  ? (event) => out(JSON.stringify({ at: new Date().toISOString(), worker: name, event }))
                  : say,
            });
          },
          options,
        );
      } finally {
        ended.abort();
        await performer.close();
        log.close();
      }
    });
}
