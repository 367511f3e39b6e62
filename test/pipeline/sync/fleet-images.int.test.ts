/** The commands of a fleet with real images: three workers, two projects of a real cloud, a real PostgreSQL; one worker is killed. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { SyncReport } from '../../../core/sync/types.ts';
import type { QueueStatus } from '../../../pipeline/sync/fleet/status.ts';
import { ROOT, runCli } from '../../support/cli.ts';
import { CLOUD_NAME, type Cloud, startCloud, type TestProject } from '../../support/cloud.ts';
import { findPostgres, type Postgres, startPostgres } from '../../support/postgres.ts';
import { requires } from '../../support/requires.ts';
import { smallGuest } from '../../support/small-guest.ts';
import { glanceImages } from '../../support/sync-checks.ts';

const bin = await findPostgres();
const missing = bin === undefined || requires('qemu-img', 'setpriv') !== undefined;
const SERIES = ['web0', 'web1', 'web2', 'web3'];
const TARGETS = ['a', 'b'];

describe.skipIf(missing)('a fleet with real images (postgresql-15, qemu-img)', () => {
  let postgres: Postgres;
  let cloud: Cloud;
  let projects: TestProject[];
  let dir: string;
  let file: string;
  let env: Record<string, string>;
  const digests = new Map<string, string>();
  const workers: { name: string; process: ChildProcess; lines: string[]; ended: Promise<unknown> }[] = [];

  beforeAll(async () => {
    postgres = await startPostgres(bin ?? '');
    cloud = await startCloud();
    projects = [await cloud.project('fleet-a'), await cloud.project('fleet-b')];
    dir = projects[0]?.dir ?? '';
    const clouds: Record<string, unknown> = {};
    for (const [index, { cloudsYaml }] of projects.entries()) {
      const known = JSON.parse(await fs.readFile(cloudsYaml, 'utf8')) as { clouds: Record<string, unknown> };
      clouds[TARGETS[index] ?? ''] = known.clouds[CLOUD_NAME];
    }
    const cloudsFile = path.join(dir, 'both.yaml');
    await fs.writeFile(cloudsFile, JSON.stringify({ clouds }), { mode: 0o600 });
    const images = path.join(dir, 'images');
    const made = path.join(dir, 'made');
    for (const folder of [images, made]) await fs.mkdir(folder);
    for (const series of SERIES) {
      const { raw, qcow2 } = smallGuest(made, series);
      await fs.rename(qcow2, path.join(images, `${series}.qcow2`));
      digests.set(
        series,
        createHash('sha256')
          .update(await fs.readFile(raw))
          .digest('hex'),
      );
      await fs.rm(raw);
    }
    file = path.join(dir, 'sync.yaml');
    const targets = Object.fromEntries(
      TARGETS.map((name) => [name, { platform: 'openstack', options: { cloud: name }, lanes: 4 }]),
    );
    const config = {
      sync: 'fleet',
      sources: { images: { folder: { path: images } } },
      targets,
      // 24 MiB of data take some seconds, in which a worker can be killed
      limits: { uploadBytesPerSecond: 4 * 2 ** 20 },
      staleAfter: '1m',
      state: path.join(dir, 'state'),
    };
    await fs.writeFile(file, JSON.stringify(config));
    env = {
      OS_CLIENT_CONFIG_FILE: cloudsFile,
      FLEET_QUEUE: postgres.url,
      XDG_STATE_HOME: path.join(dir, 'home'),
    };
  });
  afterAll(async () => {
    for (const { process: worker, ended } of workers) {
      worker.kill('SIGTERM');
      await ended;
    }
    await postgres?.stop();
    for (const project of projects ?? []) await project.cleanup();
    if (cloud !== undefined && cloud.before !== 'running') await cloud.down();
  });

  function startWorker(name: string) {
    const args = ['worker', '--queue', 'env:FLEET_QUEUE', '--name', name, '--lanes', '1'];
    const child = spawn(
      path.join(ROOT, 'scripts/port-image'),
      [...args, '--state', path.join(dir, 'workers', name)],
      { env: { ...process.env, ...env }, stdio: ['ignore', 'ignore', 'pipe'] },
    );
    const lines: string[] = [];
    createInterface({ input: child.stderr }).on('line', (line) => lines.push(line));
    const ended = new Promise((resolve) => child.once('exit', (code, signal) => resolve(signal ?? code)));
    workers.push({ name, process: child, lines, ended });
    return { process: child, lines, ended };
  }
  const status = async () =>
    (
      await runCli(['queue', 'status', '--queue', 'env:FLEET_QUEUE', '--json'], { env })
    ).json() as QueueStatus;

  test('before anything was submitted: one line', async () => {
    const { exitCode, stderr } = await runCli(['queue', 'status', '--queue', 'env:FLEET_QUEUE'], { env });
    expect(exitCode).toBe(6);
    expect(stderr).toMatch(/nothing was submitted to it yet \[QUEUE\]/);
    expect(stderr).not.toContain(postgres.password);
  });

  test('one of three workers is killed with an image half sent: all images are in both clouds, once', async () => {
    const first = startWorker('w1');
    startWorker('w2');
    startWorker('w3');
    const running = runCli(['sync', file, '--queue', 'env:FLEET_QUEUE', '--json'], { env });
    while (!first.lines.some((line) => line.endsWith(': begins'))) await setTimeout(50);
    await setTimeout(3000);
    const before = await status();
    expect(before.dead).toEqual([]);
    expect(before.workers.filter(({ alive }) => alive)).toHaveLength(3);
    const lost = before.running.find(({ host }) => host === 'w1');
    expect(lost).toBeDefined();
    first.process.kill('SIGKILL');
    expect(await first.ended).toBe('SIGKILL');
    const ended = await running;
    const report = ended.json() as SyncReport;
    expect(ended.exitCode, ended.stderr).toBe(0);
    expect(report.outcomes).toHaveLength(8);
    for (const { result, content, action } of report.outcomes) {
      expect(result, `${action.series} in ${action.target}`).toMatch(/^(done|adopted)$/);
      expect(content).toBe('ok');
    }
    const again = report.outcomes.find(
      ({ action }) => action.target === lost?.target && action.series === lost?.series,
    );
    expect(again?.attempts).toBeGreaterThan(1);
    // the cloud's own client finds each once, complete, with the content it should have
    for (const [index, project] of projects.entries()) {
      const images = await glanceImages({ cloud, project });
      expect(images.map(({ name }) => name).sort(), TARGETS[index]).toEqual(SERIES);
      for (const image of images) {
        expect(image.status).toBe('active');
        expect(JSON.stringify(image)).toContain(digests.get(String(image.name)));
      }
    }
    const after = await status();
    expect(after.kinds.find(({ kind }) => kind === 'image')).toMatchObject({
      waiting: 0,
      running: 0,
      done: 8,
      dead: 0,
    });
  });

  test('a whole sync as a job: unchanged, nothing is queued', async () => {
    const { exitCode, stdout, stderr } = await runCli(
      ['submit', file, '--queue', 'env:FLEET_QUEUE', '--wait', '--json'],
      { env },
    );
    expect(exitCode, stderr).toBe(0);
    const report = JSON.parse(stdout) as SyncReport;
    expect(report.outcomes.map(({ result }) => result)).toEqual(Array(8).fill('skipped'));
    expect((await status()).kinds.find(({ kind }) => kind === 'image')).toMatchObject({ done: 8 });
  });

  test('schedules, tables, and filters of the commands', async () => {
    const queue = ['--queue', 'env:FLEET_QUEUE'];
    const made = await runCli(
      ['submit', file, ...queue, '--cron', '30 1 * * *', '--timezone', 'Europe/Berlin'],
      {
        env,
      },
    );
    expect(made.stdout).toMatch(/^fleet runs by 30 1 \* \* \* in Europe\/Berlin, next at 20/);
    const told = await runCli(['queue', 'status', ...queue], { env });
    expect(told.stdout).toMatch(/kind +waiting +retrying +running +done/);
    expect(told.stdout).toMatch(/w2 +\d+ +1 +0 +alive/);
    expect(told.stdout).toMatch(/fleet +30 1 \* \* \* +Europe\/Berlin/);
    expect((await runCli(['submit', file, ...queue, '--unschedule'], { env })).stdout).toBe(
      'fleet has no schedule any more',
    );
    expect((await runCli(['queue', 'cancel', ...queue], { env })).stderr).toMatch(/which jobs\? \[USAGE\]/);
    expect((await runCli(['queue', 'retry', ...queue, '--all'], { env })).stdout).toBe('retried: 0');
  });

  test('a password on the command line is warned about, and leaves the process list', async () => {
    const child = spawn(
      path.join(ROOT, 'scripts/port-image'),
      ['worker', '--queue', postgres.url, '--name', 'w4', '--state', path.join(dir, 'workers/w4')],
      {
        env: { ...process.env, ...env },
        stdio: ['ignore', 'ignore', 'pipe'],
      },
    );
    let stderr = '';
    child.stderr.on('data', (text) => {
      stderr += String(text);
    });
    const ended = new Promise((resolve) => child.once('exit', resolve));
    while (!stderr.includes('lanes at')) await setTimeout(50);
    const line = await fs.readFile(`/proc/${child.pid}/cmdline`, 'utf8');
    child.kill('SIGTERM');
    await ended;
    expect(stderr).toMatch(/warning: the password of the queue is on the command line/);
    expect(stderr).not.toContain(postgres.password);
    expect(line).not.toContain(postgres.password);
    for (const log of await fs.readdir(path.join(dir, 'workers/w4/logs')))
      expect(await fs.readFile(path.join(dir, 'workers/w4/logs', log), 'utf8')).not.toContain(
        postgres.password,
      );
  });
});
