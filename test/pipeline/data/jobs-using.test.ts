import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { dataSetId } from '../../../core/data-set.ts';
import { Request } from '../../../core/request.ts';
import { jobsUsing, openJobs } from '../../../pipeline/data/jobs-using.ts';
import { createJob } from '../../../pipeline/job.ts';
import { lockFolder } from '../../../pipeline/lock.ts';

let home: string;
beforeEach(async () => {
  home = await fs.mkdtemp(path.join(os.tmpdir(), 'jobs-using-'));
});
afterEach(() => fs.rm(home, { recursive: true, force: true }));

async function job(name: string, store: string, journal?: object[]) {
  const request = Request.parse({
    schema: 'port-image/request/1',
    source: '/x.raw',
    to: ['qemu'],
    name,
    store,
    strip: 'auto',
    network: 'dhcp',
    verify: true,
  });
  const paths = await createJob(path.join(home, name), request);
  const lines = (journal ?? []).map((e) => `${JSON.stringify({ at: '2030-01-01T00:00:00Z', ...e })}\n`);
  await fs.writeFile(paths.journal, lines.join(''));
  return paths.dir;
}

test('an unfinished job keeps the sets its journal or its name says, in its store; a running one is told', async () => {
  const dir = await job('shop', 'swift:');
  const id = dataSetId('shop', '/srv', 'any');
  const using = async (url: string, set: string) => jobsUsing(await openJobs(home), url, set);
  expect(await using('swift:port-image', id)).toMatchObject([{ dir, running: false }]);
  expect(await using('swift:other', id)).toEqual([]);
  expect(await using('swift:port-image', dataSetId('shopping', '/srv', 'any'))).toEqual([]);
  const unlock = await lockFolder(dir);
  expect(await using('swift:port-image', id)).toMatchObject([{ dir, running: true }]);
  await unlock();
  // asking left no lock behind
  await (await lockFolder(dir))();
});

test('a finished job keeps nothing; folders that are no jobs are passed over', async () => {
  await job('done', 'swift:x', [
    { event: 'run-started', pid: 1, version: '1' },
    { event: 'run-done', ok: true },
  ]);
  await fs.mkdir(path.join(home, 'empty'));
  await fs.writeFile(path.join(home, 'file'), 'x');
  expect(await openJobs(home)).toEqual([]);
  expect(await openJobs(path.join(home, 'nowhere'))).toEqual([]);
});
