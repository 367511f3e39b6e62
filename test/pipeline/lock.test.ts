import { spawn } from 'node:child_process';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { lockFolder } from '../../pipeline/lock.ts';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'lock-'));
});
afterEach(async () => {
  await rm(dir, { recursive: true });
});

test('a second taker is refused and told the pid', async () => {
  const release = await lockFolder(dir);
  await expect(lockFolder(dir)).rejects.toMatchObject({
    code: 'JOB_LOCKED',
    message: expect.stringContaining(String(process.pid)),
  });
  await release();
  await (await lockFolder(dir))();
  expect(await readdir(dir)).toEqual([]);
});

test('the lock of a dead process is taken over', async () => {
  const child = spawn(process.execPath, [
    '--input-type=module',
    '-e',
    `import { lockFolder } from ${JSON.stringify(path.resolve('pipeline/lock.ts'))}; await lockFolder(${JSON.stringify(dir)}); process.kill(process.pid, 'SIGKILL');`,
  ]);
  await new Promise((resolve) => child.on('exit', resolve));
  expect(await readdir(dir)).toEqual(['lock']);
  await (await lockFolder(dir))();
});

test('a lock of an earlier boot and a broken lock are taken over', async () => {
  await writeFile(
    path.join(dir, 'lock'),
    JSON.stringify({ pid: process.pid, startTicks: '1', bootId: 'other' }),
  );
  await (await lockFolder(dir))();
  await writeFile(path.join(dir, 'lock'), 'garbage');
  await (await lockFolder(dir))();
});

test('of many takers of a dead lock exactly one wins', async () => {
  await writeFile(path.join(dir, 'lock'), JSON.stringify({ pid: 999999, startTicks: '1', bootId: 'other' }));
  const results = await Promise.allSettled(Array.from({ length: 8 }, () => lockFolder(dir)));
  expect(results.filter((r) => r.status === 'fulfilled')).toHaveLength(1);
});
