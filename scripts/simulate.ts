/**
 * A night of a large fleet, played: the real planner, the real queue on a real PostgreSQL, and workers that wait as long as recorded
 * work took, only faster.
 *
 *     npm run simulate -- --images 10000 --clouds 5 --workers 50 --night first
 *     npm run simulate -- --night unchanged
 *     npm run simulate -- --night one-percent --scale 1000 --json
 *     npm run simulate -- --record                  plays every verb with scripts/cloud and writes down what it took
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import * as path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { silentLog } from '../core/log.ts';
import { formatBytes, formatSeconds, MIB } from '../core/sizes.ts';
import { PgCarrier } from '../pipeline/sync/fleet/carrier.ts';
import { PARTS } from '../pipeline/sync/fleet/jobs.ts';
import { Queue } from '../pipeline/sync/fleet/queue.ts';
import { jobCounts } from '../pipeline/sync/fleet/table.ts';
import type { SyncFile, SyncTask } from '../pipeline/sync/perform-types.ts';
import { planSync } from '../pipeline/sync/plan.ts';
import { findPostgres, startPostgres } from '../test/support/postgres.ts';
import type { WorkerFigures, WorkerSettings } from './lib/simulate-workers.ts';
import {
  heldAfterFirstNight,
  loadTimings,
  type Night,
  worldFile,
  worldImages,
} from './lib/simulate-world.ts';

const WORKERS = path.join(import.meta.dirname, 'lib/simulate-workers.ts');
const CHANGED_PERCENT = 1;

const { values } = parseArgs({
  options: {
    images: { type: 'string', default: '10000' },
    clouds: { type: 'string', default: '5' },
    workers: { type: 'string', default: '50' },
    lanes: { type: 'string', default: '2' },
    scale: { type: 'string', default: '1000' },
    night: { type: 'string', default: 'first' },
    json: { type: 'boolean', default: false },
    record: { type: 'boolean', default: false },
  },
});
if (values.record) {
  const { recordTimings } = await import('./lib/simulate-record.ts');
  process.stdout.write(`${JSON.stringify(await recordTimings(), null, 2)}\n`);
  process.exit();
}
const count = (name: 'images' | 'clouds' | 'workers' | 'lanes' | 'scale', most: number): number => {
  const value = Number(values[name]);
  if (Number.isInteger(value) && value >= 1 && value <= most) return value;
  process.stderr.write(`simulate: --${name} is a whole number from 1 to ${most}\n`);
  process.exit(2);
};
const images = count('images', 100_000);
const clouds = count('clouds', 20);
const workers = count('workers', 100);
const lanes = count('lanes', 16);
const scale = count('scale', 1_000_000);
const night = ['first', 'unchanged', 'one-percent'].find((n) => n === values.night) as Night | undefined;
if (night === undefined) {
  process.stderr.write('simulate: --night is first, unchanged or one-percent\n');
  process.exit(2);
}

/** What a night took. */
interface Figures {
  images: number;
  clouds: number;
  workers: number;
  lanes: number;
  scale: number;
  night: Night;
  planSeconds: number;
  planned: Record<string, number>;
  queued: number;
  submitSeconds: number;
  drainSeconds: number;
  jobsPerSecond: number;
  callsPerImageAndTarget: number;
  sentMib: number;
  /** Of all work, one after the other, at the recorded speed. */
  workSeconds: number;
  databaseBytes: number;
  peakBytes: { run: number; workers: number };
}

const since = (started: number) => (performance.now() - started) / 1000;

/** Submits the tasks, lets the workers do them, and measures both. */
async function play(
  file: SyncFile,
  tasks: readonly SyncTask[],
): Promise<Pick<Figures, 'submitSeconds' | 'drainSeconds' | 'databaseBytes'> & { workers: WorkerFigures }> {
  const bin = await findPostgres();
  if (bin === undefined) process.exit(5);
  const connections = workers * 4 + 20;
  const postgres = await startPostgres(bin, {
    // as durable as a real one; only the number of connections differs from what Debian sets
    settings: {
      fsync: 'on',
      synchronous_commit: 'on',
      full_page_writes: 'on',
      max_connections: `${connections}`,
    },
  });
  const end = () => void postgres.stop().finally(() => process.exit(130));
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, end);
  try {
    const queue = await Queue.open(postgres.url, { log: silentLog, name: 'run', role: 'run' });
    const carrier = new PgCarrier({
      queue,
      file,
      run: '20260821T010000Z-000000',
      signal: new AbortController().signal,
      log: silentLog,
      warn: () => {},
    });
    let ended = 0;
    const submitted = performance.now();
    const running = carrier.run(tasks, () => ended++);
    const waiting = async () =>
      (await jobCounts(queue.boss)).find(({ name, state }) => name === PARTS.image && state === 'created');
    while (((await waiting())?.count ?? 0) < tasks.length) await setTimeout(100);
    const submitSeconds = since(submitted);

    const settings: WorkerSettings = {
      queue: postgres.url,
      workers,
      lanes,
      clouds,
      night: night ?? 'first',
      scale,
    };
    const child = fork(WORKERS, { env: { ...process.env, SIMULATE: JSON.stringify(settings) } });
    await once(child, 'message');
    const began = performance.now();
    const timer = setInterval(() => {
      const rate = (ended / since(began)).toFixed(0);
      process.stderr.write(`simulate: ${ended} of ${tasks.length} jobs, ${rate}/s\n`);
    }, 10_000);
    const results = await running;
    clearInterval(timer);
    const drainSeconds = since(began);
    const failed = results.filter(({ outcome }) => outcome.result !== 'done');
    if (failed.length > 0 || results.length !== tasks.length)
      throw new Error(`${failed.length} of ${results.length} failed: ${failed[0]?.outcome.message}`);
    const databaseBytes = Number(await postgres.psql("SELECT pg_database_size('fleet')"));
    child.send('stop');
    const [figures] = (await once(child, 'message')) as [WorkerFigures];
    await queue.close();
    return { submitSeconds, drainSeconds, databaseBytes, workers: figures };
  } finally {
    await postgres.stop();
  }
}

const timings = await loadTimings();
const file = worldFile(clouds);
const changed = night === 'one-percent' ? Math.ceil((images * CHANGED_PERCENT) / 100) : 0;
const source = worldImages(images, changed);
const targets =
  night === 'first'
    ? new Map(Object.keys(file.config.targets).map((name) => [name, []]))
    : heldAfterFirstNight(file, images);
const planBegan = performance.now();
const { plan, tasks } = planSync({
  config: file.config,
  listings: { sources: new Map([['golden', source]]), targets, unreachable: [], leftOut: [] },
  now: new Date('2026-08-22T02:00:00Z'),
  rawOf: () => undefined,
});
const planSeconds = since(planBegan);
const planned: Record<string, number> = {};
for (const { verb } of plan.actions) planned[verb] = (planned[verb] ?? 0) + 1;
// as the engine does: what costs no bytes is done by the run itself
const queued = tasks.filter(({ action: { verb } }) => verb === 'create' || verb === 'update');
// one listing of the source and one of each target, in pages; Glance lists hidden images apart
const pages = (n: number) => Math.max(1, Math.ceil((n + 1) / timings.listPage));
const listCalls = [...targets.values()].reduce((sum, held) => sum + pages(held.length) + 1, pages(images));
const played = queued.length === 0 ? undefined : await play(file, queued);
const figures: Figures = {
  ...{ images, clouds, workers, lanes, scale, night, planSeconds, planned },
  queued: queued.length,
  submitSeconds: played?.submitSeconds ?? 0,
  drainSeconds: played?.drainSeconds ?? 0,
  jobsPerSecond: played === undefined ? 0 : queued.length / played.drainSeconds,
  callsPerImageAndTarget: (listCalls + (played?.workers.calls ?? 0)) / (images * clouds),
  sentMib: played?.workers.mib ?? 0,
  workSeconds: played?.workers.seconds ?? 0,
  databaseBytes: played?.databaseBytes ?? 0,
  peakBytes: { run: process.resourceUsage().maxRSS * 1024, workers: played?.workers.peakBytes ?? 0 },
};

if (values.json) process.stdout.write(`${JSON.stringify(figures, null, 2)}\n`);
else {
  const say = (what: string, value: string) => process.stdout.write(`${what.padEnd(26)} ${value}\n`);
  const verbs = Object.entries(planned).map(([verb, n]) => `${n} ${verb}`);
  say('night', `${night}: ${images} images, ${clouds} clouds, ${workers} workers of ${lanes} lanes`);
  say('timings', `${timings.recorded}, played ${scale} times faster`);
  say('plan', `${planSeconds.toFixed(2)} s: ${verbs.join(', ')}`);
  say('queued', `${figures.queued} jobs in ${figures.submitSeconds.toFixed(1)} s`);
  if (played !== undefined) {
    const busy = Math.min(workers * lanes, clouds * 16);
    say('drained', `${figures.drainSeconds.toFixed(1)} s, ${figures.jobsPerSecond.toFixed(0)} jobs/s`);
    say(
      'at the recorded speed',
      `${formatSeconds(figures.workSeconds / busy)} with ${busy} images at a time; the queue's part of it is ${((100 * figures.drainSeconds * busy) / figures.workSeconds).toFixed(2)} % at most`,
    );
    say('sent', formatBytes(figures.sentMib * MIB));
    say('size of the database', formatBytes(figures.databaseBytes));
  }
  say('API calls', `${figures.callsPerImageAndTarget.toFixed(3)} per image and target`);
  say(
    'memory, most',
    `run ${formatBytes(figures.peakBytes.run)}, ${workers} workers ${formatBytes(figures.peakBytes.workers)}`,
  );
}
