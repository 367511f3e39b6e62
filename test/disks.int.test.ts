/**
 * A server with two disks: the sample server, and an archive disk its fstab names as /dev/sdb1. Which disk starts the
 * system is found in either order; the archive becomes an image of its own, or a data set.
 */
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Facts } from '../core/facts.ts';
import { Request } from '../core/request.ts';
import type { StageName } from '../core/stage.ts';
import { openstack } from '../drivers/openstack/index.ts';
import { openStore } from '../drivers/stores/index.ts';
import { restoreDataSet } from '../drivers/stores/restore.ts';
import { runJob } from '../pipeline/engine.ts';
import { createJob } from '../pipeline/job.ts';
import { stage as encode } from '../stages/encode/index.ts';
import { probeKvm } from '../tools/kvm.ts';
import { startMachine } from '../tools/qemu-system.ts';
import { ROOT, runCli } from './support/cli.ts';
import { requires } from './support/requires.ts';
import { makeContext, TreeSession } from './support/tree-guest.ts';

const missing = requires('guestfish', 'qemu-system-x86_64', 'mmdebstrap', 'sfdisk', 'mkfs.ext4');
const LIMIT_MS = 20 * 60_000;

/** What must not depend on the order of the disks. */
const told = (facts: Facts) => ({
  boots: facts.disks[facts.bootDisk]?.path,
  uses: Object.fromEntries(facts.disks.map((d) => [d.path, d.use])),
  mounts: facts.mounts.map((m) => {
    const filesystem = facts.filesystems.find((f) => f.device === m.device);
    const disks = filesystem?.disks?.map((d) => facts.disks[d]?.path);
    return [m.path, filesystem?.uuid, disks];
  }),
  firmware: facts.firmware,
  kernels: facts.kernels,
});

describe.skipIf(missing)('a server with two disks', () => {
  let dir: string;
  let system: string;
  let archive: string;
  let one: ReturnType<typeof told>;

  beforeAll(async () => {
    dir = await fs.mkdtemp(path.join(tmpdir() === '/tmp' ? '/var/tmp' : tmpdir(), 'disks-test-'));
    system = execFileSync(path.join(ROOT, 'fixtures/servers/build'), ['bios-lvm'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
    }).trim();
    archive = path.join(dir, 'archive.raw');
    const tree = path.join(dir, 'tree');
    await fs.mkdir(path.join(tree, '2019'), { recursive: true });
    await fs.writeFile(path.join(tree, '2019/orders.csv'), 'order;sum\n'.repeat(50_000));
    await fs.writeFile(path.join(tree, 'read me'), 'the archive\n', { mode: 0o640 });
    await fs.truncate(archive, 0).catch(() => fs.writeFile(archive, ''));
    await fs.truncate(archive, 64 * 2 ** 20);
    const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };
    execFileSync('sfdisk', ['-q', archive], { input: 'label: dos\n2048,,83\n', env });
    const offset = 2048 * 512;
    execFileSync('mkfs.ext4', ['-q', '-d', tree, '-E', `offset=${offset}`, archive, '60M'], {
      env,
      stdio: 'ignore',
    });
  });
  afterAll(() => fs.rm(dir, { recursive: true, force: true }));

  async function inspected(first: string, second: string): Promise<Facts> {
    const result = await runCli(['inspect', first, '--with-disk', second, '--json'], { timeoutMs: LIMIT_MS });
    expect(result.exitCode, result.stderr.slice(-2000)).toBe(0);
    return Facts.parse(result.json());
  }

  /** Runs a job of both disks up to a stage. */
  async function run(name: string, until: StageName, more: Partial<Request>) {
    const job = path.join(dir, name);
    const request = Request.parse({
      schema: 'port-image/request/1',
      source: system,
      moreSources: [archive],
      to: ['openstack'],
      name,
      store: `file:${path.join(dir, 'store')}`,
      strip: 'none',
      network: 'dhcp',
      verify: false,
      ...more,
    });
    const paths = await createJob(job, JSON.parse(JSON.stringify(request)) as Request);
    const { summary } = await runJob(job, {
      signal: new AbortController().signal,
      listener: () => {},
      until,
    });
    const facts = Facts.parse(JSON.parse(await fs.readFile(paths.facts, 'utf8')));
    return { paths, summary, facts };
  }

  test(
    'which disk starts the system, and what is on the other, is found',
    async () => {
      one = told(await inspected(system, archive));
      expect(one.boots).toBe(system);
      expect(one.uses).toEqual({ [system]: 'system', [archive]: 'image' });
      expect(one.mounts.find(([at]) => at === '/mnt/archive')?.[2]).toEqual([archive]);
      expect(one.mounts.find(([at]) => at === '/boot')?.[2]).toEqual([system]);
    },
    LIMIT_MS,
  );

  test(
    'named the other way round nothing changes; both become images, equal to what was edited, and a machine takes both',
    async () => {
      const { paths, summary, facts } = await run('shop', 'strip', {
        moreSources: [system],
        source: archive,
      });
      expect(told(facts)).toEqual(one);
      expect(summary.disks).toMatchObject([
        { id: 'disk0', use: 'image', boots: false },
        { id: 'disk1', use: 'system', boots: true },
      ]);
      const context = makeContext({
        stage: 'encode',
        guest: new TreeSession(dir),
        facts,
        platforms: [openstack],
        request: { name: 'shop' },
        out: paths.dir,
      });
      const artifacts = await encode.run(context, await encode.plan(context));
      expect(artifacts.map((a) => [a.disk, path.basename(a.path)])).toEqual([
        [undefined, 'shop.qcow2'],
        ['disk0', 'shop-disk0.qcow2'],
      ]);
      expect(context.changes.some((c) => c.path === 'out/shop-disk0.qcow2' && /archive/.test(c.why))).toBe(
        true,
      );
      const [first, second] = artifacts;
      if (first === undefined || second === undefined) throw new Error('an image is missing');
      const machine = await startMachine({
        image: first,
        moreImages: [second],
        diskBytes: first.virtualBytes,
        firmware: 'bios',
        boot: openstack.boot,
        accelerator: (await probeKvm()).usable ? 'kvm' : 'tcg',
        consoleLog: path.join(dir, 'console.log'),
        onReportLine: () => {},
      });
      try {
        const nodes = (await machine.qmp.request('query-named-block-nodes')) as {
          'node-name': string;
          image: { 'virtual-size': number };
        }[];
        const size = (name: string) => nodes.find((n) => n['node-name'] === name)?.image['virtual-size'];
        expect([size('disk'), size('disk1')]).toEqual([first.virtualBytes, second.virtualBytes]);
      } finally {
        await machine.stop();
      }
    },
    LIMIT_MS,
  );

  test(
    'as data: its files become a data set, only the system is left to become an image',
    async () => {
      const { paths, summary, facts } = await run('data', 'strip', { disks: { disk1: 'data' } });
      expect(facts.disks.map((d) => d.use)).toEqual(['system', 'data']);
      const [set] = summary.dataSets;
      expect(summary.dataSets.map((d) => d.path)).toEqual(['/mnt/archive']);
      const restored = path.join(dir, 'restored');
      await fs.mkdir(restored);
      await restoreDataSet(openStore(set?.store ?? ''), set?.id ?? '', restored);
      expect(await fs.readFile(path.join(restored, '2019/orders.csv'), 'utf8')).toBe(
        'order;sum\n'.repeat(50_000),
      );
      expect((await fs.stat(path.join(restored, 'read me'))).mode & 0o777).toBe(0o640);
      const left = (await fs.readdir(paths.dir)).filter((n) => n.endsWith('.qcow2'));
      expect(left).toEqual(['work.qcow2']);
    },
    LIMIT_MS,
  );
});
