/** Runs of a sync that do not come to their end, stopped and killed while a block is on its way: what status, history and retry know of them. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { SyncReport } from '../core/sync/types.ts';
import { type Gate, startGate } from './drivers/aws/moto.ts';
import { ROOT, runCli } from './support/cli.ts';
import { type FaultProxy, startFaultProxy } from './support/fault-proxy.ts';
import { serviceProgram } from './support/services.ts';
import { type SmallGuest, smallGuest } from './support/small-guest.ts';
import { startMoto } from './tools/ebs/moto.ts';

const program = await serviceProgram('moto');
const BLOCKS = { method: 'PUT', path: /\/blocks\// };

describe.skipIf(program === undefined)('a run that is cut off', () => {
  let dir: string;
  let file: string;
  let guest: SmallGuest;
  let moto: Awaited<ReturnType<typeof startMoto>>;
  let gate: Gate;
  let proxy: FaultProxy;
  const env = { AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test' };

  beforeAll(async () => {
    dir = await fs.mkdtemp(path.join(os.tmpdir(), 'sync-stopped-'));
    moto = await startMoto(program ?? '');
    gate = await startGate(moto.url);
    proxy = await startFaultProxy(gate.url);
    guest = smallGuest(dir, 'shop', { sizeMib: 64, usedMib: 3 });
    await fs.mkdir(path.join(dir, 'images'));
    file = path.join(dir, 'sync.yaml');
    const options = { region: 'eu-central-1', endpoints: { ebs: proxy.url, ec2: proxy.url } };
    await fs.writeFile(
      file,
      JSON.stringify({
        sync: 'stopped',
        sources: { lab: { folder: { path: 'images' } } },
        targets: { far: { platform: 'aws', options } },
        state: 'state',
      }),
    );
  });
  afterAll(async () => {
    await proxy?.close();
    await gate?.close();
    await moto?.stop();
    await fs.rm(dir, { recursive: true, force: true });
  });

  async function offer(version: string): Promise<void> {
    const image = path.join(dir, 'images', 'shop.raw');
    await fs.copyFile(guest.raw, `${image}.new`);
    await fs.writeFile(`${image}.json`, JSON.stringify({ series: 'shop', version }));
    await fs.rename(`${image}.new`, image);
  }
  const sync = (...args: string[]) => runCli(['sync', ...args], { env });
  const states = async () => {
    const { images } = (await sync('status', file, '--json')).json() as {
      images: { action: { version: string }; result: string }[];
    };
    return images.map(({ action, result }) => `${action.version} ${result}`);
  };
  /** Waits until a block is on its way and stays there. */
  const underWay = () => expect.poll(() => proxy.count(BLOCKS), { timeout: 60_000 }).toBeGreaterThan(0);

  test('stopped, it tells what is left, and retry does that', async () => {
    await offer('1');
    proxy.on(BLOCKS, { stall: true });
    const stop = new AbortController();
    const running = runCli(['sync', file, '--json'], { env, signal: stop.signal });
    await underWay();
    stop.abort();
    const { exitCode, json } = await running;
    expect(exitCode).toBe(143);
    expect(json()).toMatchObject({
      interrupted: true,
      exitStatus: 130,
      outcomes: [{ action: { verb: 'create', version: '1' }, result: 'deferred' }],
    });
    expect(await states()).toEqual(['1 deferred']);

    proxy.reset();
    const again = await sync('retry', file, '--json');
    expect(again.exitCode, again.stderr).toBe(0);
    expect(again.json()).toMatchObject({ partial: true, outcomes: [{ result: 'done' }] });
    expect(await states()).toEqual(['1 done']);
    expect((await sync('retry', file, '--json')).json()).toMatchObject({ outcomes: [] });
  });

  test('killed, it stands in the history and in the status; the next run does what was left', async () => {
    guest.change(1);
    await offer('2');
    proxy.reset();
    proxy.on(BLOCKS, { stall: true });
    const child = spawn(path.join(ROOT, 'scripts/port-image'), ['sync', file], {
      env: { ...process.env, ...env },
      stdio: 'ignore',
    });
    const ended = once(child, 'exit');
    await underWay();
    child.kill('SIGKILL');
    await ended;
    const [last] = (await sync('history', file, '--json')).json() as SyncReport[];
    expect(last).toMatchObject({ interrupted: true, exitStatus: 130 });
    expect(await states()).toEqual(['2 deferred', '1 done']);
    const page = path.join(dir, 'state/runs', last?.run ?? '', 'report.html');
    expect(await fs.readFile(page, 'utf8')).toContain('did not end');

    proxy.reset();
    expect((await sync(file, '--json')).json()).toMatchObject({
      exitStatus: 0,
      outcomes: [{ result: 'done' }],
    });
    expect(await states()).toEqual(['2 done', '1 done']);
  });
});
