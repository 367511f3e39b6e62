import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
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

test('of many takers of a dead lock exactly one wins, every time', async () => {
  for (let round = 0; round < 40; round++) {
    await writeFile(
      path.join(dir, 'lock'),
      JSON.stringify({ pid: 999999, startTicks: '1', bootId: 'other', nonce: `${round}` }),
    );
    const results = await Promise.allSettled(Array.from({ length: 8 }, () => lockFolder(dir)));
    const held = results.filter((r) => r.status === 'fulfilled');
    expect(held).toHaveLength(1);
    await held[0]?.value();
    expect(await readdir(dir)).toEqual([]);
  }
});

test('a taker that died while it took over, and a lock that was cut short, are taken over as well', async () => {
  const dead = JSON.stringify({ pid: 999999, startTicks: '1', bootId: 'other', nonce: 'a' });
  const claim = createHash('sha256').update(dead).digest('hex').slice(0, 16);
  await writeFile(path.join(dir, 'lock'), dead);
  await writeFile(path.join(dir, `lock.${claim}`), '{"pid":9');
  const unlock = await lockFolder(dir);
  await expect(lockFolder(dir)).rejects.toMatchObject({ code: 'JOB_LOCKED' });
  await unlock();
  expect(await readdir(dir)).toEqual([]);
});
