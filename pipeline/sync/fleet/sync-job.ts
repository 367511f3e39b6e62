/** A whole sync as a worker does it: planned here, its images by the queue. */
import * as path from 'node:path';
import { runSync } from '../engine.ts';
import { notifyAll } from '../notify.ts';
import { PgCarrier } from './carrier.ts';
import type { Queue } from './queue.ts';
import type { WorkerOptions } from './worker.ts';

/**
 * Its ledger and reports are below `dir` on whichever host did it, unless the file names a folder; the report is in the queue as
 * well. When the worker is stopped the images stay in the queue: the worker that goes on with the sync finds them.
 */
export function syncJob(queue: Queue, dir: string): NonNullable<WorkerOptions['performSync']> {
  return async (file, data, ctx) => {
    const { config } = file;
    const here = { ...file, config: { ...config, state: config.state ?? path.join(dir, config.sync) } };
    const report = await runSync(here, {
      ...ctx,
      only: data.only,
      carrier: async (run) =>
        new PgCarrier({
          queue,
          file,
          run,
          signal: ctx.signal,
          log: ctx.log,
          warn: ctx.warn,
          whenInterrupted: 'leave',
        }),
    });
    if (!report.interrupted) await notifyAll(config, report, ctx);
    return report;
  };
}
