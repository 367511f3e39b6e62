/** A fleet of three processes on a real PostgreSQL; one of them is killed in the middle of a job. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { ImageOutput } from '../../../pipeline/sync/fleet/jobs.ts';
import { PARTS } from '../../../pipeline/sync/fleet/jobs.ts';
import { carrierOf, fileWith, openQueue, taskFor } from '../../support/fleet-tasks.ts';
import { contentOf } from '../../support/fleet-worker.ts';
import { findPostgres, type Postgres, startPostgres } from '../../support/postgres.ts';

const bin = await findPostgres();
const WORKER = path.resolve(import.meta.dirname, '../../support/fleet-worker.ts');

describe.skipIf(bin === undefined)('a fleet (postgresql-15)', () => {
  let postgres: Postgres;
  let dir: string;
  const workers: { process: ChildProcess; lines: string[]; ended: Promise<unknown> }[] = [];

  beforeAll(async () => {
    postgres = await startPostgres(bin ?? '');
    dir = await fs.mkdtemp(path.join(os.tmpdir(), 'port-image-fleet-'));
  });
  afterEach(async () => {
    for (const { process: worker, ended } of workers.splice(0)) {
      worker.kill('SIGKILL');
      await ended;
    }
  });
  afterAll(async () => {
    await postgres?.stop();
    if (dir !== undefined) await fs.rm(dir, { recursive: true, force: true });
  });

  /** Starts a worker; the password is in its environment, not in its arguments. */
  function startWorker(url: string, name: string, env: Record<string, string> = {}) {
    const child = spawn(process.execPath, [WORKER], {
      env: {
        PATH: process.env.PATH ?? '',
        FLEET_QUEUE: url,
        FLEET_NAME: name,
        FLEET_STORE: path.join(dir, 'store'),
        ...env,
      },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const lines: string[] = [];
    const ended = new Promise((resolve) => child.once('exit', (code, signal) => resolve(signal ?? code)));
    createInterface({ input: child.stdout }).on('line', (line) => lines.push(line));
    const worker = { process: child, lines, ended };
    workers.push(worker);
    return worker;
  }

  test('of three workers one is killed: everything is done, once by result, and elsewhere', async () => {
    const url = await postgres.database('killed');
    const file = fileWith({ a: 4, b: 4 });
    const tasks = Array.from({ length: 12 }, (_, i) => `image${i}`).flatMap((series) => [
      taskFor('a', series),
      taskFor('b', series),
    ]);
    const queue = await openQueue(url);
    try {
      const { run, told } = carrierOf(queue, file);
      const running = run(tasks);
      const [first] = ['w1', 'w2', 'w3'].map((name) => startWorker(url, name, { FLEET_SLOW_MS: '100' }));
      // killed while it holds a job it began but did not end
      for (;;) {
        await setTimeout(20);
        const begun = first?.lines.filter((line) => line.startsWith('begins ')).length ?? 0;
        const done = first?.lines.filter((line) => line.startsWith('done ')).length ?? 0;
        if (done >= 1 && begun > done) break;
      }
      await setTimeout(300);
      const began = performance.now();
      first?.process.kill('SIGKILL');
      expect(await first?.ended).toBe('SIGKILL');
      const keys = (lines: string[] = [], word = '') =>
        lines.filter((line) => line.startsWith(`${word} `)).map((line) => line.slice(word.length + 1));
      const lost = keys(first?.lines, 'begins').filter((key) => !keys(first?.lines, 'done').includes(key));
      expect(lost.length).toBeGreaterThan(0);

      const results = await running;
      const seconds = (performance.now() - began) / 1000;
      process.stderr.write(
        `fleet: ${lost.length} jobs of the killed worker, all done ${seconds.toFixed(1)} s later\n`,
      );

      // each task has one result, and it is a success
      expect(results).toHaveLength(24);
      expect(told).toHaveLength(24);
      const results24 = new Set(told.map(({ task: { action } }) => `${action.target}/${action.series}`));
      expect(results24.size).toBe(24);
      expect(new Set(told.map(({ result }) => result.outcome.result))).toEqual(new Set(['done']));

      // what the dead one held was begun again by another, which is told by its attempt
      const others = workers.slice(1).flatMap(({ lines }) => lines);
      for (const key of lost) {
        expect(keys(others, 'done').filter((k) => k === key)).toHaveLength(1);
        const [target, series] = key.split('/');
        const { result } = told.find(
          ({ task: { action } }) => action.target === target && action.series === series,
        ) ?? { result: undefined };
        expect(result?.outcome.attempts).toBe(2);
      }

      // side effects: every object is whole and right, none is doubled
      const ends = workers.flatMap(({ lines }) => keys(lines, 'done'));
      expect(new Set(ends).size).toBe(24);
      expect(ends).toHaveLength(24);
      for (const { action } of tasks) {
        const stored = await fs.readFile(
          path.join(dir, 'store', action.target, action.series, action.version),
        );
        const wanted = createHash('sha256');
        for (const block of contentOf(action.series, action.version)) wanted.update(block);
        expect(createHash('sha256').update(stored).digest('hex')).toBe(wanted.digest('hex'));
      }

      // an independent client sees the same
      expect(
        await postgres.psql(
          `SELECT state, count(*) FROM port_image.job WHERE name = '${PARTS.image}' GROUP BY 1`,
          'killed',
        ),
      ).toBe('completed|24');
      expect(
        await postgres.psql(
          `SELECT count(*) FROM port_image.job WHERE name = '${PARTS.deadImage}'`,
          'killed',
        ),
      ).toBe('0');
    } finally {
      await queue.close();
    }
  });

  test('a stopped worker hands its job back within ten seconds, without an attempt pause', async () => {
    const url = await postgres.database('stopped');
    const queue = await openQueue(url);
    try {
      const { run } = carrierOf(queue, fileWith({ a: 2 }));
      const running = run([taskFor('a', 'slow')]);
      // 20 blocks with a pause of 2 s each: it cannot end in time
      const first = startWorker(url, 'w1', { FLEET_SLOW_MS: '2000' });
      while (!first.lines.some((line) => line.startsWith('begins '))) await setTimeout(20);
      const began = performance.now();
      first.process.kill('SIGTERM');
      expect(await first.ended).toBe(0);
      expect((performance.now() - began) / 1000).toBeLessThan(10);
      startWorker(url, 'w2', { FLEET_SLOW_MS: '1' });
      const [result] = await running;
      expect(result?.outcome).toMatchObject({ result: 'done', attempts: 1 });
      const [job] = await queue.boss.findJobs(PARTS.image);
      expect((job?.output as unknown as ImageOutput | undefined)?.host).toBe('w2');
    } finally {
      await queue.close();
    }
  });
});
