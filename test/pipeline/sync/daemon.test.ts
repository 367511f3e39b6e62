import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { PortError } from '../../../core/errors.ts';
import { localTime, nextTimes, runDaemon } from '../../../pipeline/sync/daemon.ts';
import { parseSync } from '../../../pipeline/sync/load.ts';
import type { SyncFile } from '../../../pipeline/sync/perform-types.ts';

function fileOf(more = "schedule: { cron: '* * * * * *', timezone: Europe/Berlin }\n"): SyncFile {
  const text = `sync: nightly\nsources: { a: { job: a } }\ntargets: { b: { platform: openstack, options: { cloud: B } } }\n`;
  return parseSync(`${text}${more}`, '/etc/port-image/nightly.yaml');
}

/** A daemon under way, what it said and how often it ran. */
function started(run: (signal: AbortSignal, at: number) => Promise<void>) {
  const stop = new AbortController();
  const lines: string[] = [];
  const state = { begun: 0, running: 0, most: 0 };
  const ended = runDaemon(fileOf(), {
    signal: stop.signal,
    say: (line) => lines.push(line),
    run: async () => {
      state.begun++;
      state.running++;
      state.most = Math.max(state.most, state.running);
      try {
        await run(stop.signal, state.begun);
      } finally {
        state.running--;
      }
    },
  });
  return { stop, lines, state, ended };
}

async function until(condition: () => boolean, ms = 8000): Promise<void> {
  const end = Date.now() + ms;
  while (!condition()) {
    if (Date.now() > end) throw new Error('it did not come to it');
    await sleep(20);
  }
}

test('never two at once: a time that comes meanwhile is left out, and told', async () => {
  const { stop, lines, state, ended } = started(() => sleep(1300));
  await until(() => state.begun === 2);
  stop.abort();
  await ended;
  expect(state).toEqual({ begun: 2, running: 0, most: 1 });
  expect(lines[0]).toMatch(/^nightly: next run \d{4}-\d\d-\d\d \d\d:\d\d GMT\+[12]$/);
  expect(lines).toContain('nightly: a time is left out, the run before is still under way');
  expect(lines.at(-1)).toBe('nightly: stopped');
});

test('a run that fails is told, and the next comes', async () => {
  const { stop, lines, state, ended } = started(async (_, at) => {
    if (at === 1) throw new PortError('JOB_LOCKED', 'another run works here');
  });
  await until(() => state.begun === 2);
  stop.abort();
  await ended;
  expect(lines).toContain('nightly: no run: another run works here [JOB_LOCKED]');
});

test('stopped in the middle it waits for the run, which ends by the same signal; no time comes afterwards', async () => {
  const order: string[] = [];
  const { stop, state, ended } = started(async (signal) => {
    order.push('begun');
    await sleep(20_000, undefined, { signal }).catch(() => undefined);
    await sleep(300);
    order.push('cleaned up');
  });
  await until(() => state.begun === 1);
  stop.abort();
  await ended;
  order.push('ended');
  expect(order).toEqual(['begun', 'cleaned up', 'ended']);
  await sleep(1200);
  expect(state.begun).toBe(1);
});

test('stopped before it began nothing runs', async () => {
  const signal = AbortSignal.abort();
  const run = async () => {
    throw new Error('it ran');
  };
  await runDaemon(fileOf(), { signal, say: () => {}, run });
});

test('without a schedule there is nothing to wait for', async () => {
  const options = { signal: new AbortController().signal, say: () => {}, run: async () => {} };
  await expect(runDaemon(fileOf(''), options)).rejects.toMatchObject({
    code: 'CONFIG',
    hint: expect.stringMatching(/schedule: \{ cron:/),
  });
});

test('times are those of the place, over both changes of its clock', () => {
  const daily = { cron: '30 2 * * *', timezone: 'Europe/Berlin' };
  const shown = (from: string) =>
    nextTimes(daily, 2, new Date(from)).map((time) => localTime(time, 'Europe/Berlin'));
  // 02:30 does not exist on 29 March 2026: the first minute that does; it comes twice on 25 October: once
  expect(shown('2026-03-28T12:00:00Z')).toEqual(['2026-03-29 03:00 GMT+2', '2026-03-30 02:30 GMT+2']);
  expect(shown('2026-10-24T12:00:00Z')).toEqual(['2026-10-25 02:30 GMT+2', '2026-10-26 02:30 GMT+1']);
});
