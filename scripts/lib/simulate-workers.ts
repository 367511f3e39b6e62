/** The workers of a simulation, in a process of their own: `node simulate-workers.ts` with the settings as JSON in SIMULATE. */
import { setTimeout } from 'node:timers/promises';
import { silentLog } from '../../core/log.ts';
import { Queue } from '../../pipeline/sync/fleet/queue.ts';
import { runWorker } from '../../pipeline/sync/fleet/worker.ts';
import { costOf, loadTimings, type Night, worldFile } from './simulate-world.ts';

/** What the workers are told. */
export interface WorkerSettings {
  queue: string;
  workers: number;
  lanes: number;
  clouds: number;
  night: Night;
  /** So many times faster than recorded. */
  scale: number;
}

/** What they tell when they are stopped. */
export interface WorkerFigures {
  jobs: number;
  calls: number;
  /** At the recorded speed. */
  seconds: number;
  mib: number;
  peakBytes: number;
}

const { SIMULATE } = process.env;
if (SIMULATE !== undefined && process.argv[1] === import.meta.filename) {
  const { queue: url, workers, lanes, clouds, night, scale } = JSON.parse(SIMULATE) as WorkerSettings;
  const timings = await loadTimings();
  const file = worldFile(clouds);
  const stop = new AbortController();
  const figures: WorkerFigures = { jobs: 0, calls: 0, seconds: 0, mib: 0, peakBytes: 0 };
  const queues: Queue[] = [];
  for (let i = 0; i < workers; i++)
    queues.push(
      await Queue.open(url, { log: silentLog, name: `worker-${i + 1}`, role: 'worker', connections: 3 }),
    );
  process.once('message', () => stop.abort());
  // nobody waits any more
  process.once('disconnect', () => process.exit(1));
  process.send?.('ready');
  await Promise.all(
    queues.map((queue) =>
      runWorker({
        queue,
        lanes,
        name: queue.name,
        parse: () => file,
        perform: async (task) => {
          const cost = costOf(timings, task, night);
          await setTimeout((cost.seconds * 1000) / scale);
          figures.jobs++;
          figures.calls += cost.calls;
          figures.seconds += cost.seconds;
          figures.mib += cost.mib;
          const bytes = Math.round(cost.mib * 2 ** 20);
          const seconds = Number(cost.seconds.toFixed(2));
          return {
            outcome: {
              action: task.action,
              result: 'done',
              ref: task.action.series,
              method: 'blocks',
              sentBytes: bytes,
              changedBytes: bytes,
              dataBytes: task.image?.fileBytes ?? 0,
              receivedBytes: 0,
              seconds,
              attempts: 1,
              content: 'ok',
              proof: 'simulated',
            },
            dataSets: [],
          };
        },
        signal: stop.signal,
        log: silentLog,
        warn: () => {},
      }),
    ),
  );
  for (const queue of queues) await queue.close();
  // ru_maxrss is in KiB
  figures.peakBytes = process.resourceUsage().maxRSS * 1024;
  process.send?.(figures, () => process.exit(0));
}
