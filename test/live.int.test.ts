/**
 * A real server, captured while it works: booted in QEMU, its services up and a program writing without a pause. Passes over ssh
 * while it writes, the last one under a freeze, then converted; its data are those of the moment of the freeze. As the source of a
 * sync it is captured once more, converted, and booted before the image is shown.
 */
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { SyncReport } from '../core/sync/types.ts';
import { openStore } from '../drivers/stores/index.ts';
import { restoreDataSet } from '../drivers/stores/restore.ts';
import type { CaptureOutcome } from '../pipeline/capture.ts';
import type { Summary } from '../pipeline/summary.ts';
import { ROOT, runCli } from './support/cli.ts';
import { CLOUD_NAME, startCloud } from './support/cloud.ts';
import { checkWriterCopy, type LiveServer, startLiveServer, WRITER_DIR } from './support/live-server.ts';
import { requires } from './support/requires.ts';

const missing = requires('guestfish', 'qemu-system-x86_64', 'mmdebstrap', 'perl', 'ssh');
const HOUR_MS = 3_600_000;
const SOURCE = 'ssh://shop01/dev/sda';
const MARK = '/run/port-image-test-quiesced';

describe.skipIf(missing)('a running server', () => {
  let dir: string;
  let job: string;
  let server: LiveServer;
  let flags: string[];
  let summary: Summary;
  /** Number of a record that was written after the freeze. */
  let lastWritten: number;

  beforeAll(async () => {
    dir = await fs.mkdtemp(path.join(process.env.TMPDIR ?? '/var/tmp', 'live-test-'));
    job = path.join(dir, 'job');
    server = await startLiveServer({ dir: path.join(dir, 'server') });
    await server.startWriter();
    const config = path.join(dir, 'ssh_config');
    await fs.writeFile(
      config,
      [
        'Host shop01',
        '  HostName 127.0.0.1',
        `  Port ${server.sshPort}`,
        `  User ${server.user}`,
        `  IdentityFile ${server.keyFile}`,
        '  IdentitiesOnly yes',
        `  UserKnownHostsFile ${server.knownHosts}`,
        '',
      ].join('\n'),
    );
    flags = ['--ssh-config', config, '--job', job, '--json'];
  }, HOUR_MS);
  afterAll(async () => {
    await server?.stop();
    await fs.rm(dir, { recursive: true, force: true });
  });

  const written = async (): Promise<number> => {
    const { stdout } = await server.root(`ls ${WRITER_DIR}/records | grep -v new | sort -n | tail -n 1`);
    return Number(stdout.trim());
  };

  test(
    'the first pass reads what is in use while it works, and says what the machine is',
    async () => {
      const result = await runCli(['capture', SOURCE, ...flags], { timeoutMs: HOUR_MS });
      expect(result.exitCode, result.stderr.slice(-3000)).toBe(0);
      const outcome = result.json() as CaptureOutcome;
      expect(outcome).toMatchObject({
        consistency: 'live',
        passes: [{ number: 1, disk: 'sda', final: false }],
      });
      const [pass] = outcome.passes;
      expect(pass?.sentBytes).toBeLessThanOrEqual(1.05 * (pass?.allocatedBytes ?? 0));
      expect(pass?.allocatedBytes).toBeLessThan(0.5 * (pass?.diskBytes ?? 0));
      expect(outcome.inventory).toMatchObject({
        hostname: 'shop01',
        firmware: 'bios',
        os: { id: 'debian', version: '12' },
        bootDisk: 'sda',
        disks: [{ name: 'sda', writtenThrough: expect.arrayContaining(['/', '/boot']) }],
      });
      expect(outcome.inventory?.ports.map((p) => p.port)).toEqual(expect.arrayContaining([22, 80]));
      const nic = outcome.inventory?.interfaces.find((i) => i.kind === 'physical');
      expect(nic?.mac).toMatch(/^[0-9a-f:]{17}$/);
    },
    HOUR_MS,
  );

  test(
    'a dry run of the conversion shows the copy that would be made, and leaves it alone',
    async () => {
      const before = await fs.readFile(path.join(job, 'capture/capture.json'), 'utf8');
      const args = ['convert', SOURCE, '--to', 'qemu', '--dry-run', ...flags];
      const result = await runCli(args, { timeoutMs: HOUR_MS });
      expect(result.exitCode, result.stderr.slice(-3000)).toBe(0);
      const { changes } = result.json() as { changes: { path: string }[] };
      expect(changes.map((c) => c.path)).toEqual(['capture/sda.raw']);
      expect(await fs.readFile(path.join(job, 'capture/capture.json'), 'utf8')).toBe(before);
      expect(await fs.readdir(job)).not.toContain('job.json');
    },
    HOUR_MS,
  );

  test(
    'the last pass is made under a freeze, the quiesce command before it and the other after it',
    async () => {
      const before = await written();
      const result = await runCli(
        [
          ...['capture', SOURCE, '--final', ...flags],
          ...['--quiesce', `touch ${MARK} && systemctl is-active nginx`],
          ...['--resume-command', `mv ${MARK} ${MARK}.done`],
        ],
        { timeoutMs: HOUR_MS },
      );
      expect(result.exitCode, result.stderr.slice(-3000)).toBe(0);
      const outcome = result.json() as CaptureOutcome;
      expect(outcome.consistency).toBe('frozen');
      const last = outcome.passes.at(-1);
      expect(last).toMatchObject({ final: true, consistency: 'frozen', reconnects: 0 });
      expect(last?.frozenMs).toBeGreaterThan(0);
      expect(last?.sentBytes).toBeLessThan(0.5 * (last?.allocatedBytes ?? 0));
      // the server went on, and the commands ran in their order
      await server.root(`test -e ${MARK}.done && test ! -e ${MARK}`);
      lastWritten = await written();
      expect(lastWritten).toBeGreaterThan(before);
    },
    HOUR_MS,
  );

  test(
    'a night of a sync: captured under a freeze, converted, booted, then shown; the next night it is gone and keeps its image',
    async () => {
      // The passes made so far serve this job too: only what changed since is read.
      const night = path.join(dir, 'night');
      await fs.mkdir(path.join(night, 'shop01'), { recursive: true, mode: 0o700 });
      const passes = path.join(night, 'shop01/capture');
      execFileSync('cp', ['-a', '--sparse=always', path.join(job, 'capture'), passes]);
      const project = await (await startCloud()).project('live');
      const file = path.join(night, 'sync.yaml');
      const options = { to: 'openstack', sshConfig: flags[1], verify: false, compare: false };
      await fs.writeFile(
        file,
        JSON.stringify({
          sync: 'racks',
          sources: { rack: { servers: [{ name: 'shop01', source: SOURCE, job: 'shop01', options }] } },
          targets: { cloud: { platform: 'openstack', options: { cloud: CLOUD_NAME }, verify: 'boot' } },
          limits: { attempts: 1 },
          state: 'state',
        }),
      );
      const env = { OS_CLIENT_CONFIG_FILE: project.cloudsYaml };
      const sync = async () => runCli(['sync', file, '--json'], { timeoutMs: HOUR_MS, env });
      try {
        const result = await sync();
        expect(result.exitCode, `${result.stderr.slice(-3000)}${result.stdout.slice(-2000)}`).toBe(0);
        const report = result.json() as SyncReport;
        expect(report).toMatchObject({ leftOut: [], outcomes: [{ result: 'done', content: 'ok' }] });
        expect(report.outcomes[0]?.proof).toMatch(/; it booted: \d+ checks hold$/);
        const copied = JSON.parse(await fs.readFile(path.join(passes, 'capture.json'), 'utf8')) as {
          passes: CaptureOutcome['passes'];
        };
        expect(copied.passes.at(-1)).toMatchObject({ final: true, consistency: 'frozen' });
        const list = ['image', 'list', '-f', 'json', '--name', 'shop01'];
        const shown = execFileSync('openstack', list, { env: project.env, encoding: 'utf8' });
        expect(JSON.parse(shown)).toMatchObject([{ ID: report.outcomes[0]?.ref, Status: 'active' }]);

        await server.stop();
        const away = await sync();
        expect(away.exitCode).not.toBe(0);
        expect(away.json()).toMatchObject({
          leftOut: [{ source: 'rack', what: 'shop01', code: 'SOURCE_REMOTE' }],
          outcomes: [{ result: 'skipped' }],
        });
      } finally {
        await project.cleanup();
      }
    },
    HOUR_MS,
  );

  test(
    'converted with the server gone: the copy is all it takes',
    async () => {
      await server.stop();
      const args = ['convert', SOURCE, '--to', 'qemu', '--strip', 'auto', '--name', 'shop', '--no-verify'];
      const result = await runCli([...args, ...flags], { timeoutMs: HOUR_MS });
      expect(result.exitCode, result.stderr.slice(-3000)).toBe(0);
      summary = result.json() as Summary;
      expect(summary.outputs[0]).toMatchObject({ platform: 'qemu' });
      expect(summary.capture).toMatchObject({ consistency: 'frozen' });
    },
    HOUR_MS,
  );

  test(
    'its data are those of one moment, and everything nobody wrote to is as it was',
    async () => {
      const root = path.join(dir, 'restored');
      for (const set of summary.dataSets) {
        await fs.mkdir(path.join(root, set.path), { recursive: true });
        const store = openStore(set.store);
        await restoreDataSet(store, set.id, path.join(root, set.path)).finally(() => store.close?.());
      }
      const copy = await checkWriterCopy(path.join(root, WRITER_DIR));
      expect(copy.problems).toEqual([]);
      expect(copy.records).toBeGreaterThan(0);
      expect(copy.records).toBeLessThanOrEqual(lastWritten);
      const tree = path.join(ROOT, 'fixtures/servers/lib/tree.pl');
      const restored = execFileSync('perl', [tree, root, '/srv/app', '/var/lib/shop-dumps'], {
        encoding: 'utf8',
        maxBuffer: 256 * 1024 * 1024,
      });
      const fixture = path.join(path.dirname(server.keyFile), 'app.tree.jsonl');
      expect(filesOf(restored)).toEqual(filesOf(await fs.readFile(fixture, 'utf8')));
    },
    HOUR_MS,
  );

  test('the report tells the passes, the downtime and the machine', async () => {
    const page = await fs.readFile(path.join(job, 'report.html'), 'utf8');
    for (const text of ['Capture', 'frozen', 'stood still', 'nginx']) expect(page).toContain(text);
  });
});

/** Regular files of a description, without the writer's and without what no move can keep. */
function filesOf(description: string): string[] {
  return description
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
    .map(({ pathB64, ...rest }) => ({
      name: Buffer.from(String(pathB64), 'base64').toString('latin1'),
      ...rest,
    }))
    .filter((e: Record<string, unknown> & { name: string }) => {
      return e.type === 'file' && !/^\/srv\/app\/(live\/|bin\/live-writer$)/.test(e.name);
    })
    .map(({ group: _group, extents: _extents, dataBytes: _dataBytes, ...rest }: Record<string, unknown>) =>
      JSON.stringify(rest),
    )
    .sort();
}
