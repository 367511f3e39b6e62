/**
 * The AWS rows of `npm run bench`: a sparse raw disk as an EBS snapshot, sent by us and by `coldsnap upload --omit-zero-blocks` in turns
 * to the same moto. Before moto stands the gate of the tests, for both: moto tells blocks of 512 bytes, the gate 512 KiB, and it
 * checks every digest. The gate has a thread of its own, or we would share its processor time and coldsnap would not.
 */
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { execa } from 'execa';
import { sha256File } from '../core/files.ts';
import { silentLog } from '../core/log.ts';
import { formatBytes, formatSeconds, GIB, MIB } from '../core/sizes.ts';
import { startGate } from '../test/drivers/aws/moto.ts';
import { serviceProgram } from '../test/support/services.ts';
import { startMoto } from '../test/tools/ebs/moto.ts';
import { ebsClient } from '../tools/aws/clients.ts';
import { EBS_LANES, putSnapshot } from '../tools/aws/put-snapshot.ts';
import type { Row } from './bench-cloud.ts';

const ROUNDS = 3;
const DISK_BYTES = 8 * GIB;
/** moto keeps what it is sent in memory. */
const DATA_BYTES = 256 * MIB;
/** Data lies in runs of so much, with as much room between as fills the disk. */
const RUN_BYTES = 8 * MIB;
const REGION = 'eu-central-1';

const median = (values: number[]): number => values.sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;

async function seconds(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await work();
  return (performance.now() - started) / 1000;
}

/** What the gate's thread tells: its address, or what it found wrong so far. */
type Told = { url: string } | { wrong: string[] };

function told(worker: Worker): Promise<Told> {
  return new Promise((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
  });
}

async function makeDisk(file: string): Promise<void> {
  const handle = await fs.open(file, 'w', 0o600);
  try {
    await handle.truncate(DISK_BYTES);
    const runs = DATA_BYTES / RUN_BYTES;
    for (let n = 0; n < runs; n += 1)
      await handle.write(randomBytes(RUN_BYTES), 0, RUN_BYTES, n * (DISK_BYTES / runs));
  } finally {
    await handle.close();
  }
}

/** One row. Without moto or coldsnap (on PATH, or named by COLDSNAP) the row says which is missing. */
export async function awsRows(dir: string): Promise<Row[]> {
  const what = 'sparse disk into EBS, against coldsnap';
  const skipped = (name: string): Row[] => [
    { what, ours: '', theirs: `no ${name}`, ratio: 'skipped', goal: '≥ 1.00' },
  ];
  const coldsnap = process.env.COLDSNAP ?? 'coldsnap';
  const { failed } = await execa(coldsnap, ['--help'], { reject: false, stdio: 'ignore' });
  if (failed) return skipped('coldsnap');
  const program = await serviceProgram('moto');
  if (program === undefined) return skipped('moto');
  const file = path.join(dir, 'aws.raw');
  await makeDisk(file);
  const sha256 = await sha256File(file);
  const env = { AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test' };
  Object.assign(process.env, env);
  const moto = await startMoto(program);
  const worker = new Worker(new URL(import.meta.url), { workerData: moto.url });
  try {
    const first = await told(worker);
    const url = 'url' in first ? first.url : '';
    const forget = () => fetch(`${moto.url}/moto-api/reset`, { method: 'POST' });
    const ours = async (n: number) => {
      await forget();
      const client = await ebsClient({ region: REGION, endpoints: { ebs: url } }, EBS_LANES);
      try {
        return await seconds(() =>
          putSnapshot(client, {
            file,
            sha256,
            virtualBytes: DISK_BYTES,
            journal: path.join(dir, `aws-${n}.blocks`),
            clientToken: `bench-${process.pid}-${n}`,
            description: 'bench',
            tags: {},
            signal: new AbortController().signal,
            log: silentLog,
            onBytes: () => {},
          }),
        );
      } finally {
        client.destroy();
      }
    };
    const theirs = async () => {
      await forget();
      return seconds(() =>
        execa(
          coldsnap,
          ['--region', REGION, '--endpoint', url, 'upload', '--no-progress', '--omit-zero-blocks', file],
          { env, stdio: 'ignore' },
        ),
      );
    };
    const a: number[] = [];
    const b: number[] = [];
    // One round nobody counts.
    for (let n = 0; n <= ROUNDS; n += 1) {
      const [x, y] = [await ours(n), await theirs()];
      process.stderr.write(`EBS round ${n}: ${formatSeconds(x)}, coldsnap ${formatSeconds(y)}\n`);
      if (n === 0) continue;
      a.push(x);
      b.push(y);
    }
    worker.postMessage('wrong?');
    const last = await told(worker);
    if ('wrong' in last && last.wrong.length > 0)
      throw new Error(`the gate found ${last.wrong.join(', ')} wrong`);
    const [x, y] = [median(a), median(b)];
    const title = `${formatBytes(DATA_BYTES)} in ${formatBytes(DISK_BYTES)} into EBS, against coldsnap`;
    return [
      {
        what: title,
        ours: formatSeconds(x),
        theirs: formatSeconds(y),
        ratio: (y / x).toFixed(2),
        goal: '≥ 1.00',
      },
    ];
  } finally {
    await worker.terminate();
    await moto.stop();
    await fs.rm(file, { force: true });
  }
}

if (!isMainThread && parentPort !== null && typeof workerData === 'string') {
  const port = parentPort;
  const gate = await startGate(workerData);
  port.on('message', () => port.postMessage({ wrong: gate.wrong }));
  port.postMessage({ url: gate.url });
}
