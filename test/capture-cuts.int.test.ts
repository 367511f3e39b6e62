/** A disk copied over a real ssh whose connection is cut again and again: equal to one that was copied in peace. */
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { CaptureOutcome } from '../pipeline/capture.ts';
import { type CliResult, runCli } from './support/cli.ts';
import { noLoopDevices } from './support/loop-disk.ts';
import { requires } from './support/requires.ts';
import { type Sshd, startSshd } from './support/sshd.ts';

const MIB = 1024 * 1024;
const DISK_BYTES = 256 * MIB;
const CUTS = 10;
const missing = requires('sshd', 'ssh', 'losetup', 'mke2fs', 'sfdisk') ?? noLoopDevices();

describe.skipIf(missing)('a disk behind a connection that breaks', () => {
  let dir: string;
  let device = '';
  let sshd: Sshd;

  beforeAll(async () => {
    dir = await fs.mkdtemp(path.join(tmpdir(), 'port-image-cuts-'));
    const file = path.join(dir, 'disk.raw');
    const tree = path.join(dir, 'tree');
    await fs.mkdir(tree);
    for (let i = 0; i < 12; i++) await fs.writeFile(path.join(tree, `f${i}`), randomBytes(10 * MIB));
    await fs.writeFile(file, '');
    await fs.truncate(file, DISK_BYTES);
    execFileSync('sfdisk', ['-q', file], { input: 'label: dos\n2048,,83,*\n' });
    execFileSync('mke2fs', ['-q', '-t', 'ext4', '-E', 'offset=1048576', '-d', tree, file, '254M']);
    device = execFileSync('losetup', ['-r', '-f', '--show', file], { encoding: 'utf8' }).trim();
    sshd = await startSshd();
  }, 120_000);
  afterAll(async () => {
    await sshd?.stop();
    if (device !== '') execFileSync('losetup', ['-d', device]);
    await fs.rm(dir, { recursive: true, force: true });
  });

  function capture(job: string, ...more: string[]): Promise<CliResult> {
    const source = `ssh://root@127.0.0.1:${sshd.port}${device}`;
    return runCli(
      ['capture', source, '--job', job, '--ssh-config', sshd.config, '--final', '--json', ...more],
      {
        timeoutMs: 300_000,
      },
    );
  }

  async function copyOf(job: string): Promise<string> {
    const name = `${path.basename(device)}.raw`;
    const hash = createHash('sha256').update(await fs.readFile(path.join(job, 'capture', name)));
    return hash.digest('hex');
  }

  test('cut ten times at random, the copy is that of an uncut one', async () => {
    const calm = await capture(path.join(dir, 'calm'));
    expect(calm.exitCode, calm.stderr).toBe(0);
    const whole = calm.json() as CaptureOutcome;
    expect(whole).toMatchObject({ consistency: 'offline', passes: [{ number: 1, final: true }] });

    let ended = false;
    let cuts = 0;
    // slow enough that all cuts come in time
    const cut = capture(path.join(dir, 'cut'), '--limit', '12M').finally(() => {
      ended = true;
    });
    const index = path.join(dir, 'cut/capture', `${path.basename(device)}.index`);
    while (!ended && (await fs.stat(index).catch(() => undefined)) === undefined) await sleep(50);
    while (!ended && cuts < CUTS) {
      await sleep(500 + Math.random() * 2500);
      for (const pid of sshd.connections()) {
        try {
          process.kill(pid, 'SIGKILL');
          cuts += 1;
        } catch {
          // it ended by itself
        }
      }
    }
    const result = await cut;
    expect(result.exitCode, result.stderr).toBe(0);
    const outcome = result.json() as CaptureOutcome;
    expect(cuts).toBeGreaterThanOrEqual(CUTS);
    expect(outcome.passes[0]?.reconnects).toBeGreaterThan(0);
    // the halves were read at different times: another pass proves that nothing was written between
    expect(outcome.passes.map((p) => p.final)).toEqual([...outcome.passes.slice(1).map(() => false), true]);
    expect(outcome.passes.at(-1)).toMatchObject({ consistency: 'offline', sentBytes: 0 });
    expect(outcome.passes.at(-1)?.treeSha256).toBe(whole.passes[0]?.treeSha256);
    expect(await copyOf(path.join(dir, 'cut'))).toBe(await copyOf(path.join(dir, 'calm')));
    // what came before a cut did not come twice, but for what was on its way
    const sent = outcome.passes.reduce((sum, p) => sum + p.sentBytes, 0);
    expect(sent).toBeLessThanOrEqual((whole.passes[0]?.sentBytes ?? 0) * 1.05);
  }, 600_000);

  test('a host key that is not the known one ends it in one line, with nothing left', async () => {
    const job = path.join(dir, 'stranger');
    const config = path.join(dir, 'stranger_config');
    await fs.writeFile(config, `Host *\n  IdentityFile ${sshd.key}\n  UserKnownHostsFile /dev/null\n`);
    const result = await runCli([
      ...['capture', `ssh://root@127.0.0.1:${sshd.port}${device}`, '--job', job, '--ssh-config', config],
    ]);
    expect(result.exitCode).toBe(6);
    expect(result.stderr).toMatch(/host key.*\[SOURCE_REMOTE\]/i);
    expect(result.stderr).not.toMatch(/\n\s+at /);
  });
});
