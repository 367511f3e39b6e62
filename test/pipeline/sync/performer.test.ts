import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { expect, test } from 'vitest';
import { InTurn } from '../../../pipeline/sync/in-turn.ts';
import { Performer } from '../../../pipeline/sync/performer.ts';
import { fileWith, taskFor } from '../../support/fleet-tasks.ts';
import { syncContext } from '../../support/sync-context.ts';

async function performing(work: (performer: Performer, dir: string) => Promise<void>): Promise<void> {
  const dir = await fs.mkdtemp(path.join(os.tmpdir(), 'port-image-performer-'));
  const performer = await Performer.open(dir, new AbortController().signal);
  try {
    await work(performer, dir);
  } finally {
    await performer.close();
    await fs.rm(dir, { recursive: true, force: true });
  }
}

const ctx = () => ({ ...syncContext(), run: '20260821T010000Z-ab12cd' });

test('a sync whose file changed takes nothing away from tasks of the file before', () =>
  performing(async (performer, dir) => {
    await performer.perform(taskFor('b', 'web'), fileWith({ b: 1 }), ctx());
    const tmp = path.join(dir, 'syncs', 'nightly', 'images', 'golden-1', 'tmp');
    await fs.mkdir(tmp, { recursive: true });
    await performer.perform(taskFor('b', 'web'), fileWith({ b: 2 }), ctx());
    expect(await fs.readdir(path.dirname(tmp))).toEqual(['tmp']);
  }));

test('what kept a sync from being opened once does not keep it for ever', () =>
  performing(async (performer, dir) => {
    await fs.writeFile(path.join(dir, 'syncs'), 'a file in the way');
    await expect(performer.perform(taskFor('b', 'web'), fileWith({ b: 1 }), ctx())).rejects.toThrow();
    await fs.rm(path.join(dir, 'syncs'));
    const { outcome } = await performer.perform(taskFor('b', 'web'), fileWith({ b: 1 }), ctx());
    expect(outcome).toMatchObject({ result: 'failed', code: 'CONFIG' });
  }));

test('work of one name is done one after the other, whatever becomes of it', async () => {
  const turns = new InTurn();
  const seen: string[] = [];
  const work =
    (name: string, fails = false) =>
    async () => {
      seen.push(`${name} begins`);
      await new Promise((resolve) => setTimeout(resolve, 20));
      seen.push(`${name} ends`);
      if (fails) throw new Error(name);
    };
  const never = new AbortController();
  never.abort();
  const { signal } = new AbortController();
  const all = await Promise.allSettled([
    turns.run('a', signal, work('a1', true)),
    turns.run('a', never.signal, work('a2')),
    turns.run('a', signal, work('a3')),
    turns.run('b', signal, work('b1')),
  ]);
  expect(all.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'fulfilled', 'fulfilled']);
  expect(seen.filter((line) => line.startsWith('a'))).toEqual([
    'a1 begins',
    'a1 ends',
    'a3 begins',
    'a3 ends',
  ]);
  expect(seen.indexOf('b1 begins')).toBeLessThan(seen.indexOf('a1 ends'));
});
