/** The fleet without a server: addresses that never show a password, errors in one line, forms of jobs. */
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { describe, expect, test } from 'vitest';
import { silentLog } from '../../../core/log.ts';
import { queueAddress, queueError } from '../../../pipeline/sync/fleet/address.ts';
import {
  ImageData,
  isSameTask,
  LANE_TIERS,
  laneGroup,
  taskKey,
  withoutResult,
} from '../../../pipeline/sync/fleet/jobs.ts';
import { Queue } from '../../../pipeline/sync/fleet/queue.ts';
import { submitSync } from '../../../pipeline/sync/fleet/submit.ts';
import { carrierOf, fileWith, taskFor } from '../../support/fleet-tasks.ts';

const PASSWORD = 'correct-horse';

describe('address of the queue', () => {
  test.each([
    [`postgres://fleet:${PASSWORD}@db:5433/images`, 'postgres://fleet@db:5433/images', true],
    [`postgresql://fleet:${PASSWORD}@db/images?sslmode=verify-full`, 'postgres://fleet@db/images', true],
    [`postgres://fleet@db/images?password=${PASSWORD}`, 'postgres://fleet@db/images', true],
    ['postgres://fleet@db/images', 'postgres://fleet@db/images', false],
    ['postgres:///images?host=/run/postgresql', 'postgres:///run/postgresql/images', false],
  ])('%s is shown as %s', async (text, shown, passwordInText) => {
    expect(await queueAddress(text, {})).toEqual({ url: text, shown, passwordInText });
  });

  test('references: a variable or a file holds the URL', async () => {
    const url = `postgres://fleet:${PASSWORD}@db/images`;
    const dir = await fs.mkdtemp(path.join(os.tmpdir(), 'port-image-address-'));
    try {
      const file = path.join(dir, 'queue');
      await fs.writeFile(file, `${url}\n`);
      const wanted = { url, shown: 'postgres://fleet@db/images', passwordInText: false };
      expect(await queueAddress(`file:${file}`, {})).toEqual(wanted);
      expect(await queueAddress('env:QUEUE', { QUEUE: url })).toEqual(wanted);
      await expect(queueAddress(`file:${file}.not`, {})).rejects.toMatchObject({ code: 'USAGE' });
      await expect(queueAddress('env:QUEUE', {})).rejects.toThrow(/QUEUE, which is not set/);
    } finally {
      await fs.rm(dir, { recursive: true, force: true });
    }
  });

  test.each([
    `http://fleet:${PASSWORD}@db/images`,
    `fleet:${PASSWORD}@db`,
    `postgres://fleet:${PASSWORD}@db:port/images`,
    `postgres://fleet:${PASSWORD}@${'x'.repeat(3000)}/images`,
    '',
  ])('%s is refused, and not quoted', async (text) => {
    const error = await queueAddress(text, {}).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: 'USAGE' });
    const { message, hint } = error as { message: string; hint: string };
    expect(`${message} ${hint}`).not.toContain(PASSWORD);
    expect(message).not.toContain('\n');
  });
});

describe('errors of the queue', () => {
  const shown = 'postgres://fleet@db/images';
  test.each([
    [{ code: 'ECONNREFUSED', message: 'connect ECONNREFUSED' }, /nobody listens/, true],
    [new AggregateError([Object.assign(new Error('x'), { code: 'ECONNREFUSED' })]), /nobody listens/, true],
    [{ code: '28P01', message: 'password authentication failed' }, /wrong password/, false],
    [{ code: '3D000', message: 'database "x" does not exist' }, /no such database/, false],
    [{ code: '53300', message: 'sorry, too many clients already' }, /too many connections/, true],
    [{ message: 'timeout exceeded when trying to connect' }, /timeout/, true],
    [{ message: 'odd\nsecond line\u001b[31m' }, /: odd$/, false],
  ])('%s', (error, wanted, temporary) => {
    const told = queueError(error, { shown });
    expect(told).toMatchObject({ code: 'QUEUE', temporary });
    expect(told.message).toMatch(wanted);
    expect(told.message).not.toContain('\n');
  });

  test('a server that is not there, for real', async () => {
    const opened = Queue.open(`postgres://fleet:${PASSWORD}@127.0.0.1:1/x`, {
      log: silentLog,
      name: 'test',
      role: 'run',
    });
    await expect(opened).rejects.toMatchObject({
      code: 'QUEUE',
      message: 'the queue postgres://fleet@127.0.0.1:1/x: nobody listens there',
      temporary: true,
    });
  });
});

describe('jobs', () => {
  test('a key for each image, version and target; lanes by tier', () => {
    expect(taskKey('nightly', taskFor('a', 'web', '2'))).toBe('nightly/a/web/2');
    expect(laneGroup('nightly', 'a', 3)).toEqual({ id: 'nightly/a', tier: 'lanes-3' });
    expect(laneGroup('nightly', 'a', 99).tier).toBe('lanes-16');
    expect(LANE_TIERS[laneGroup('nightly', 'a', 0).tier]).toBe(1);
  });

  test('the same task, whatever the order of its fields and its reason', () => {
    const task = taskFor('a', 'web');
    const { action, ...rest } = task;
    const turned = { action: Object.fromEntries(Object.entries(action).reverse()), ...rest };
    expect(isSameTask(task, turned as typeof task)).toBe(true);
    expect(isSameTask(task, { ...task, action: { ...action, why: 'another reason' } })).toBe(true);
    expect(isSameTask(task, { ...task, wantedDigest: 'other' })).toBe(false);
    expect(isSameTask(task, { ...task, action: { ...action, verb: 'hide' } })).toBe(false);
  });

  test('jobs of another form are not taken for ours', () => {
    const data = {
      schema: 'port-image/queue-image/1',
      runId: 'x',
      run: 'r',
      sync: 'nightly',
      attempts: 3,
      returns: 0,
      task: taskFor('a', 'web'),
    };
    expect(ImageData.safeParse(data).success).toBe(true);
    expect(ImageData.safeParse({ ...data, schema: 'port-image/queue-image/2' }).success).toBe(false);
    expect(ImageData.safeParse({ ...data, task: { action: { verb: 'create' } } }).success).toBe(false);
    expect(ImageData.safeParse({ ...data, attempts: 0 }).success).toBe(false);
    expect(ImageData.safeParse(null).success).toBe(false);
  });

  test('an outcome without a result', () => {
    const task = taskFor('a', 'web');
    expect(withoutResult(task, 'failed', { code: 'QUEUE', message: 'gone' })).toEqual({
      outcome: {
        action: task.action,
        result: 'failed',
        sentBytes: 0,
        changedBytes: 0,
        dataBytes: 0,
        receivedBytes: 0,
        seconds: 0,
        attempts: 0,
        code: 'QUEUE',
        message: 'gone',
      },
      dataSets: [],
    });
  });
});

test('every task is told once, also when the server refuses between two of many jobs', async () => {
  let inserts = 0;
  const boss = {
    send: async () => 'run',
    findJobs: async () => [],
    insert: async (_part: string, jobs: { id: string }[]) => {
      if (++inserts > 1) throw Object.assign(new Error('no'), { code: '42501' });
      return jobs.map(({ id }) => id);
    },
    complete: async () => {},
    getInstances: async () => [],
  };
  const queue = {
    boss,
    name: 'test',
    times: { pollSeconds: 1 },
    hasWorkers: async () => true,
    error: (error: unknown) => queueError(error, { shown: 'postgres://fleet@db/images' }),
  } as unknown as Queue;
  const tasks = Array.from({ length: 1200 }, (_, i) => taskFor('b', `web-${i}`));
  const carrier = carrierOf(queue, fileWith({ b: 1 }));
  const results = await carrier.run(tasks);
  expect(new Set(carrier.told.map(({ task }) => task)).size).toBe(1200);
  expect(carrier.told).toHaveLength(1200);
  expect(new Set(results.map(({ outcome }) => outcome.result))).toEqual(new Set(['failed']));
});

test('who waits for a sync that somebody deleted from the queue is told, and does not wait for ever', async () => {
  const boss = { send: async () => 'id', getDb: () => ({ executeSql: async () => ({ rows: [] }) }) };
  const queue = {
    boss,
    times: { pollSeconds: 0.01 },
    error: (error: unknown) => queueError(error, { shown: 'postgres://fleet@db/images' }),
  } as unknown as Queue;
  const job = await submitSync(queue, fileWith({ b: 1 }), {});
  await expect(job.wait(AbortSignal.timeout(3000))).rejects.toMatchObject({
    code: 'QUEUE',
    message: expect.stringContaining('deleted'),
  });
});
