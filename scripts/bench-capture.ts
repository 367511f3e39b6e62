/** Rows of `npm run bench` for live capture: over ssh on the loopback, against `ssh dd` of the same disk. Needs root. */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { execa } from 'execa';
import { formatBytes, formatSeconds, MIB } from '../core/sizes.ts';
import type { CaptureOutcome } from '../pipeline/capture.ts';
import { startSshd } from '../test/support/sshd.ts';
import type { Row } from './bench-cloud.ts';

const DISK_BYTES = 2048 * MIB;
const FILES = 32;
const FILE_BYTES = 32 * MIB;
const BLOCK_BYTES = 4 * MIB;
const ROUNDS = 3;
const LARGE_BYTES = 10 * 1024 ** 4;

const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

async function seconds(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await work();
  return (performance.now() - started) / 1000;
}

/**
 * A disk half full of data that cannot be compressed, as an old server's: what was deleted is not zeros. And one of 10 TiB
 * with the same files.
 */
async function makeDisks(dir: string): Promise<[small: string, large: string]> {
  const file = path.join(dir, 'disk.raw');
  const handle = await fs.open(file, 'w');
  for (let at = 0; at < DISK_BYTES; at += FILE_BYTES) {
    await handle.write(randomBytes(FILE_BYTES), 0, FILE_BYTES, at);
  }
  await handle.close();
  const tree = path.join(dir, 'tree');
  await fs.mkdir(tree);
  for (let i = 0; i < FILES; i++) await fs.writeFile(path.join(tree, `f${i}`), randomBytes(FILE_BYTES));
  const makeFs = (target: string) => {
    const options = 'nodiscard,lazy_itable_init=1,lazy_journal_init=1';
    execFileSync('mke2fs', ['-q', '-F', '-t', 'ext4', '-E', options, '-d', tree, target]);
  };
  makeFs(file);
  const large = path.join(dir, 'large.raw');
  await fs.writeFile(large, '');
  await fs.truncate(large, LARGE_BYTES);
  makeFs(large);
  await fs.rm(tree, { recursive: true });
  return [file, large];
}

function loop(file: string): string {
  return execFileSync('losetup', ['-f', '--show', file], { encoding: 'utf8' }).trim();
}

/** Measures. `root` is the checkout, `dir` a scratch folder. */
export async function captureRows(root: string, dir: string): Promise<Row[]> {
  const sshd = await startSshd();
  const devices: string[] = [];
  try {
    const [file, largeFile] = await makeDisks(dir);
    const device = loop(file);
    devices.push(device);
    const capture = async (job: string, from: string): Promise<CaptureOutcome> => {
      const source = `ssh://root@127.0.0.1:${sshd.port}${from}`;
      const args = ['capture', source, '--job', job, '--ssh-config', sshd.config, '--passes', '1', '--json'];
      const { stdout } = await execa(path.join(root, 'scripts/port-image'), args, { stderr: 'ignore' });
      return JSON.parse(stdout) as CaptureOutcome;
    };
    const dd = () =>
      execa('sh', [
        '-c',
        `ssh -F ${sshd.config} -p ${sshd.port} root@127.0.0.1 dd if=${device} bs=4M iflag=direct status=none | dd of=${dir}/dd.raw bs=4M iflag=fullblock conv=fsync status=none`,
      ]);
    const [ours, theirs]: [number[], number[]] = [[], []];
    let first: CaptureOutcome | undefined;
    for (let round = 0; round < ROUNDS; round++) {
      const job = path.join(dir, `job${round}`);
      ours.push(
        await seconds(async () => {
          first = await capture(job, device);
        }),
      );
      theirs.push(await seconds(dd));
      await fs.rm(path.join(dir, 'dd.raw'), { force: true });
    }
    const [pass] = first?.passes ?? [];
    // 1 % of the blocks in use change
    const changed = Math.max(1, Math.round((FILES * FILE_BYTES) / BLOCK_BYTES / 100));
    const handle = await fs.open(device, 'r+');
    for (let i = 0; i < changed; i++) {
      await handle.write(randomBytes(4096), 0, 4096, 400 * MIB + i * 5 * BLOCK_BYTES);
    }
    await handle.sync();
    await handle.close();
    const second = (await capture(path.join(dir, `job${ROUNDS - 1}`), device)).passes[0];

    const large = loop(largeFile);
    devices.push(large);
    const largeSeconds = await seconds(() => capture(path.join(dir, 'large'), large));

    const row = (what: string, a: string, b: string, ratio: number, goal: string): Row => ({
      what,
      ours: a,
      theirs: b,
      ratio: ratio.toFixed(2),
      goal,
    });
    const [a, b] = [median(ours), median(theirs)];
    const { allocatedBytes = 1, sentBytes = 0 } = pass ?? {};
    return [
      row('first pass over ssh against ssh dd', formatSeconds(a), formatSeconds(b), b / a, '≥ 2'),
      row(
        'sent of what is allocated',
        formatBytes(sentBytes),
        formatBytes(allocatedBytes),
        sentBytes / allocatedBytes,
        '≤ 1.05',
      ),
      row(
        'second pass, sent of what changed',
        formatBytes(second?.sentBytes ?? 0),
        formatBytes(changed * BLOCK_BYTES),
        (second?.sentBytes ?? 0) / (changed * BLOCK_BYTES),
        '≤ 1.1',
      ),
      row(
        'the same files on a disk of 10 TiB',
        formatSeconds(largeSeconds),
        formatSeconds(a),
        largeSeconds / a,
        '≈ 1',
      ),
    ];
  } finally {
    for (const device of devices) execFileSync('losetup', ['-d', device]);
    await sshd.stop();
  }
}
