import { existsSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { expect, test } from 'vitest';
import { Request } from '../../core/request.ts';
import { createJob } from '../../pipeline/job.ts';
import { runCli } from '../support/cli.ts';

test('a job that holds data sets is only removed when asked for by name', async () => {
  const dir = path.join(await fs.mkdtemp(path.join(tmpdir(), 'jobs-rm-')), 'job');
  const request = Request.parse({
    schema: 'port-image/request/1',
    source: '/x.raw',
    to: ['qemu'],
    name: 'x',
    store: `file:${dir}/store`,
    strip: 'auto',
    network: 'dhcp',
    verify: true,
  });
  await createJob(dir, request);
  await fs.mkdir(path.join(dir, 'store', 'set'), { recursive: true });
  const refused = await runCli(['jobs', 'rm', dir]);
  expect(refused.exitCode).toBe(2);
  expect(refused.stderr).toContain('--with-data');
  expect(existsSync(path.join(dir, 'store', 'set'))).toBe(true);
  expect((await runCli(['jobs', 'rm', dir, '--with-data'])).exitCode).toBe(0);
  expect(existsSync(dir)).toBe(false);
  await fs.rm(path.dirname(dir), { recursive: true });
});
