/** Carrier and worker against a real PostgreSQL: retries, dead letters, runs that come again, lanes, cancelling. */
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { PortError } from '../../../core/errors.ts';
import { silentLog } from '../../../core/log.ts';
import { DEAD, PARTS } from '../../../pipeline/sync/fleet/jobs.ts';
import type { Queue } from '../../../pipeline/sync/fleet/queue.ts';
import { cancelJobs, queueStatus, retryDead } from '../../../pipeline/sync/fleet/status.ts';
import { scheduleSync, submitSync, unscheduleSync } from '../../../pipeline/sync/fleet/submit.ts';
import { runWorker, type WorkerOptions } from '../../../pipeline/sync/fleet/worker.ts';
import { carrierOf, fileWith, openQueue, taskFor } from '../../support/fleet-tasks.ts';
import { parseFile, storePerformer } from '../../support/fleet-worker.ts';
import { findPostgres, type Postgres, startPostgres } from '../../support/postgres.ts';

const bin = await findPostgres();

describe.skipIf(bin === undefined)('the queue (postgresql-15)', () => {
  let postgres: Postgres;
  let dir: string;
  let queue: Queue;
  let url: string;
  let count = 0;

  beforeAll(async () => {
    postgres = await startPostgres(bin ?? '');
    dir = await fs.mkdtemp(path.join(os.tmpdir(), 'port-image-fleet-'));
  });
  beforeEach(async () => {
    url = await postgres.database(`case${++count}`);
    queue = await openQueue(url);
    return () => queue.close();
  });
  afterAll(async () => {
    await postgres?.stop();
    if (dir !== undefined) await fs.rm(dir, { recursive: true, force: true });
  });

  /** A worker of this process; ends with what is returned. */
  async function worker(options: Partial<WorkerOptions> = {}) {
    const stop = new AbortController();
    const own = await openQueue(url, { role: 'worker', name: options.name ?? 'w1', connections: 6 });
    const ended = runWorker({
      queue: own,
      lanes: 4,
      name: 'w1',
      parse: parseFile,
      perform: storePerformer(`file:${path.join(dir, `store${count}`)}`, 0),
      signal: stop.signal,
      log: silentLog,
      warn: () => {},
      ...options,
    });
    return async () => {
      stop.abort();
      await ended;
      await own.close();
    };
  }

  test('what can heal is tried again, what cannot fails at once and leaves a dead letter with its cause', async () => {
    const end = await worker();
    const { run } = carrierOf(queue, fileWith({ a: 4 }));
    const results = await run([taskFor('a', 'flaky1'), taskFor('a', 'refused1'), taskFor('a', 'plain1')]);
    const by = (series: string) => results.find(({ outcome }) => outcome.action.series === series)?.outcome;
    expect(by('flaky1')).toMatchObject({ result: 'done', attempts: 2 });
    expect(by('plain1')).toMatchObject({ result: 'done', attempts: 1 });
    expect(by('refused1')).toMatchObject({
      result: 'failed',
      code: 'CLOUD_REFUSED',
      message: 'the quota is used up',
      hint: 'ask for more',
      attempts: 1,
    });
    const status = await queueStatus(queue);
    expect(status.dead).toHaveLength(1);
    expect(status.dead[0]).toMatchObject({ series: 'refused1', target: 'a', code: 'CLOUD_REFUSED' });
    // by hand it is tried again; it fails the same way and is a dead letter again
    expect(await retryDead(queue, {})).toBe(1);
    await expect.poll(async () => (await queueStatus(queue)).dead.length, { timeout: 10_000 }).toBe(1);
    // and another run forgets it
    const again = carrierOf(queue, fileWith({ a: 4 }));
    await again.run([taskFor('a', 'plain1')]);
    expect(await queue.boss.findJobs(DEAD.image)).toHaveLength(1);
    await end();
  });

  test('attempts are counted: what never heals fails after as many as the file allows', async () => {
    let calls = 0;
    const perform: WorkerOptions['perform'] = async (task) => {
      calls++;
      return {
        outcome: {
          action: task.action,
          result: 'failed',
          code: 'CLOUD',
          message: '503',
          temporary: true,
          sentBytes: 0,
          changedBytes: 0,
          dataBytes: 0,
          receivedBytes: 0,
          seconds: 0,
          attempts: 1,
        },
        dataSets: [],
      };
    };
    const end = await worker({ perform });
    const [result] = await carrierOf(queue, fileWith({ a: 1 })).run([taskFor('a', 'x')]);
    expect(result?.outcome).toMatchObject({ result: 'failed', code: 'CLOUD', attempts: 3 });
    expect(calls).toBe(3);
    await end();
  });

  test('a run that comes again takes over the jobs of the dead one', async () => {
    const file = fileWith({ a: 1, b: 1 });
    const tasks = ['x', 'y', 'z'].flatMap((series) => [taskFor('a', series), taskFor('b', series)]);
    // the first one dies: nobody waits, nothing is cancelled
    const dying = new AbortController();
    const first = carrierOf(queue, file, { signal: dying.signal, whenInterrupted: 'leave' });
    const died = first.run(tasks).catch((error: unknown) => error);
    await expect.poll(async () => (await queueStatus(queue)).kinds[0]?.waiting).toBe(6);
    dying.abort();
    expect(await died).toMatchObject({ code: 'INTERRUPTED' });
    // the second wants another thing of one image
    const others = tasks.map((task, i) => (i === 0 ? { ...task, wantedDigest: 'other' } : task));
    const done: string[] = [];
    const second = carrierOf(queue, file);
    const running = second.run(others);
    await setTimeout(500);
    expect((await queueStatus(queue)).kinds[0]?.waiting).toBe(6);
    const perform = storePerformer(`file:${path.join(dir, 'again')}`, 0);
    const end = await worker({
      perform: async (task, told, ctx) => {
        done.push(task.wantedDigest);
        return perform(task, told, ctx);
      },
    });
    expect(await running).toHaveLength(6);
    expect(done.sort()).toEqual(['other', 'wanted', 'wanted', 'wanted', 'wanted', 'wanted']);
    await end();
  });

  test('a running job of another wish is waited for, then ours is done', async () => {
    const file = fileWith({ a: 1 });
    const wishes: string[] = [];
    let begun = () => {};
    const isBegun = new Promise<void>((resolve) => {
      begun = resolve;
    });
    const perform = storePerformer(`file:${path.join(dir, 'wishes')}`, 20);
    const end = await worker({
      perform: async (task, told, ctx) => {
        wishes.push(task.wantedDigest);
        begun();
        return perform(task, told, ctx);
      },
    });
    const first = carrierOf(queue, file).run([taskFor('a', 'x')]);
    await isBegun;
    const [second] = await carrierOf(queue, file).run([{ ...taskFor('a', 'x'), wantedDigest: 'other' }]);
    expect(wishes).toEqual(['wanted', 'other']);
    expect(second?.outcome.result).not.toBe('failed');
    expect((await first)[0]?.outcome.result).toBe('done');
    await end();
  });

  test('an interrupted run takes back what nobody has begun', async () => {
    const stop = new AbortController();
    const running = carrierOf(queue, fileWith({ a: 1 }), { signal: stop.signal })
      .run(['x', 'y', 'z'].map((series) => taskFor('a', series)))
      .catch((error: unknown) => error);
    await expect.poll(async () => (await queueStatus(queue)).kinds[0]?.waiting).toBe(3);
    stop.abort();
    expect(await running).toMatchObject({ code: 'INTERRUPTED' });
    expect((await queueStatus(queue)).kinds[0]).toMatchObject({ waiting: 0, cancelled: 3 });
  });

  test('lanes of a target count over all hosts, of several targets each by itself', async () => {
    const running = { a: 0, b: 0 } as Record<string, number>;
    const most = { a: 0, b: 0 } as Record<string, number>;
    const perform: WorkerOptions['perform'] = async (task) => {
      const { target } = task.action;
      running[target] = (running[target] ?? 0) + 1;
      most[target] = Math.max(most[target] ?? 0, running[target] ?? 0);
      await setTimeout(100);
      running[target] = (running[target] ?? 0) - 1;
      const outcome = { action: task.action, result: 'done' as const, attempts: 1, seconds: 0.1 };
      return {
        outcome: { ...outcome, sentBytes: 0, changedBytes: 0, dataBytes: 0, receivedBytes: 0 },
        dataSets: [],
      };
    };
    const ends = await Promise.all(
      ['w1', 'w2', 'w3', 'w4', 'w5', 'w6'].map((name) => worker({ name, perform })),
    );
    const tasks = Array.from({ length: 12 }, (_, i) => `i${i}`).flatMap((s) => [
      taskFor('a', s),
      taskFor('b', s),
    ]);
    const results = await carrierOf(queue, fileWith({ a: 1, b: 3 })).run(tasks);
    process.stderr.write(`lanes: most at a time ${JSON.stringify(most)} of {"a":1,"b":3}\n`);
    expect(most.b).toBeGreaterThan(1);
    // hosts that ask in the same instant may each get the last lane; all but one give it back
    expect(most.a).toBeLessThanOrEqual(2);
    expect(most.b).toBeLessThanOrEqual(4);
    expect(results.map(({ outcome }) => outcome.attempts)).toEqual(results.map(() => 1));
    for (const end of ends) await end();
  });

  test('a cancelled job ends its work at the worker, and the run hears of it', async () => {
    let aborted = false;
    const perform: WorkerOptions['perform'] = async (_task, _file, ctx) => {
      await setTimeout(60_000, undefined, { signal: ctx.signal }).catch(() => {
        aborted = true;
      });
      throw new Error('stopped');
    };
    const end = await worker({ perform });
    const running = carrierOf(queue, fileWith({ a: 1 })).run([taskFor('a', 'x')]);
    await expect
      .poll(async () => (await queueStatus(queue)).running.map(({ host }) => host), { timeout: 5000 })
      .toEqual(['w1']);
    const { running: shown, workers } = await queueStatus(queue);
    expect(shown[0]).toMatchObject({ kind: 'image', target: 'a', series: 'x', host: 'w1', attempt: 1 });
    expect(workers[0]).toMatchObject({ name: 'w1', lanes: 4, running: 1, alive: true });
    expect(await cancelJobs(queue, { sync: 'nightly' })).toBe(1);
    const [result] = await running;
    expect(result?.outcome).toMatchObject({ result: 'deferred', message: 'cancelled in the queue' });
    await expect.poll(() => aborted, { timeout: 10_000 }).toBe(true);
    await end();
  });

  test('an image somebody is at is asked for again, without losing an attempt', async () => {
    let calls = 0;
    const perform = storePerformer(`file:${path.join(dir, 'busy')}`, 0);
    const end = await worker({
      perform: async (task, file, ctx) => {
        const result = await perform(task, file, ctx);
        if (++calls > 3) return result;
        const busy = { result: 'deferred' as const, code: 'SYNC_BUSY', message: 'another is at it' };
        return { ...result, outcome: { ...result.outcome, ...busy } };
      },
    });
    const [result] = await carrierOf(queue, fileWith({ a: 1 })).run([taskFor('a', 'x')]);
    expect(result?.outcome).toMatchObject({ result: 'done', attempts: 1 });
    expect(calls).toBe(4);
    await end();
  });

  test('every connection is cut while images are done: all arrive', async () => {
    const end = await worker({ perform: storePerformer(`file:${path.join(dir, 'cut')}`, 50) });
    const series = ['x', 'y', 'z', 'u', 'v', 'w'];
    const running = carrierOf(queue, fileWith({ a: 2 })).run(series.map((name) => taskFor('a', name)));
    for (let cut = 0; cut < 4; cut++) {
      await setTimeout(700);
      await postgres.psql(
        `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = 'case${count}'`,
        'postgres',
      );
    }
    const results = await running;
    expect(results.map(({ outcome }) => outcome.result)).toEqual(series.map(() => 'done'));
    await end();
  });

  test('the server is away when a run begins: it waits', async () => {
    const end = await worker({ perform: storePerformer(`file:${path.join(dir, 'away')}`, 0) });
    const away = (isAway: boolean) =>
      postgres.psql(
        `ALTER DATABASE case${count} ALLOW_CONNECTIONS ${!isAway}; SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = 'case${count}'`,
        'postgres',
      );
    await away(true);
    const running = carrierOf(queue, fileWith({ a: 1 })).run([taskFor('a', 'x')]);
    await setTimeout(2000);
    await away(false);
    expect((await running).map(({ outcome }) => outcome.result)).toEqual(['done']);
    await end();
  });

  test('a run without workers says so; priority goes before order', async () => {
    const low = carrierOf(queue, fileWith({ a: 1 }, 'low'));
    const lowRuns = low.run([taskFor('a', 'x')]);
    const high = carrierOf(queue, fileWith({ a: 1 }, 'high'), { priority: 10 });
    const highRuns = high.run([taskFor('a', 'y')]);
    await expect.poll(() => low.warnings).toHaveLength(1);
    expect(low.warnings[0]).toMatch(/no worker is connected/);
    await expect.poll(async () => (await queueStatus(queue)).kinds[0]?.waiting).toBe(2);
    const order: string[] = [];
    const perform = storePerformer(`file:${path.join(dir, 'order')}`, 0);
    const end = await worker({
      lanes: 1,
      perform: async (task, file, ctx) => {
        order.push(task.action.series);
        return perform(task, file, ctx);
      },
    });
    await Promise.all([lowRuns, highRuns]);
    expect(order).toEqual(['y', 'x']);
    await end();
  });

  test('a whole sync as a job: planned by a worker, its images by the queue, one at a time', async () => {
    const file = fileWith({ a: 2 });
    const syncs: string[] = [];
    const end = await worker({
      performSync: async (told, _data, ctx) => {
        syncs.push(ctx.run);
        const results = await carrierOf(queue, told, { signal: ctx.signal }).run([taskFor('a', 'x')]);
        return { ...report, outcomes: results.map(({ outcome }) => outcome) };
      },
    });
    const first = await submitSync(queue, file, {});
    expect(first.isNew).toBe(true);
    const second = await submitSync(queue, file, {});
    if (!second.isNew) expect(second.id).toBe(first.id);
    const ended = await first.wait(new AbortController().signal);
    expect(ended.report?.outcomes[0]).toMatchObject({ result: 'done' });
    await end();
  });

  test('a sync whose state folder is still in use is tried again when it is free, and is no dead letter', async () => {
    let tried = 0;
    const end = await worker({
      performSync: async () => {
        if (++tried < 3) throw new PortError('JOB_LOCKED', 'process 7 works in /x');
        return { ...report, outcomes: [] };
      },
    });
    const job = await submitSync(queue, fileWith({ a: 1 }), {});
    expect((await job.wait(AbortSignal.timeout(30_000))).report?.run).toBe(report.run);
    expect(tried).toBe(3);
    await end();
  });

  test('schedules: by cron in a time zone, shown, removed', async () => {
    await scheduleSync(queue, fileWith({ a: 1 }), { cron: '30 1 * * *', timezone: 'Europe/Berlin' });
    expect((await queueStatus(queue)).schedules).toMatchObject([
      { sync: 'nightly', cron: '30 1 * * *', timezone: 'Europe/Berlin' },
    ]);
    await expect(
      scheduleSync(queue, fileWith({ a: 1 }), { cron: '99 * * * *', timezone: 'UTC' }),
    ).rejects.toMatchObject({ code: 'USAGE' });
    expect(await unscheduleSync(queue, 'nightly')).toBe(true);
    expect(await unscheduleSync(queue, 'nightly')).toBe(false);
  });

  test('only pg-boss has tables', async () => {
    const tables = await postgres.psql(
      `SELECT string_agg(DISTINCT schemaname, ',') FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')`,
      `case${count}`,
    );
    expect(tables).toBe('port_image');
    expect(Object.keys(PARTS)).toHaveLength(6);
  });
});

const report = {
  schema: 'port-image/sync-run/1' as const,
  sync: 'nightly',
  run: '20260821T010000Z-ab12cd',
  host: 'w1',
  startedAt: '2026-08-21T01:00:00Z',
  endedAt: '2026-08-21T01:00:01Z',
  seconds: 1,
  dataSets: [],
  coming: [],
  unreachable: [],
  leftOut: [],
  partial: false,
  notes: [],
  calls: {},
  freedBytes: 0,
  exitStatus: 0,
  interrupted: false,
};
