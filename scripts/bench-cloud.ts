/**
 * The cloud rows of `npm run bench`: the same bytes sent by us and by a peer, in turns, to the services of
 * scripts/cloud. Each row is the ratio of the medians.
 */
import * as path from 'node:path';
import { execa } from 'execa';
import { fileDigests } from '../core/files.ts';
import { silentLog } from '../core/log.ts';
import { formatBytes, formatSeconds, MIB } from '../core/sizes.ts';
import { GlanceRequest } from '../drivers/openstack/options.ts';
import { uploadImage } from '../drivers/openstack/upload/index.ts';
import { loadCloud } from '../tools/openstack/config.ts';
import { CloudSession } from '../tools/openstack/session.ts';
import { SwiftApi } from '../tools/openstack/swift.ts';

/** One line of the table. */
export interface Row {
  what: string;
  ours: string;
  theirs: string;
  ratio: string;
  goal: string;
}

const ROUNDS = 3;
const FILE_BYTES = 768 * MIB;
const SEGMENT_BYTES = 32 * MIB;
const LANES = 4;
const MARK = 'bench';
const CLOUD = 'port-image-test';

const median = (values: number[]): number => values.sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;

async function seconds(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await work();
  return (performance.now() - started) / 1000;
}

/** Runs both in turns after one round nobody counts. */
async function paired(ours: (n: number) => Promise<number>, theirs: (n: number) => Promise<number>) {
  const a: number[] = [];
  const b: number[] = [];
  for (let n = 0; n <= ROUNDS; n += 1) {
    const [x, y] = [await ours(n), await theirs(n)];
    if (n > 0) {
      a.push(x);
      b.push(y);
    }
  }
  return { ours: median(a), theirs: median(b) };
}

function row(what: string, { ours, theirs }: { ours: number; theirs: number }, goal: string): Row {
  const speed = (s: number) => `${formatSeconds(s)} (${Math.round(FILE_BYTES / MIB / s)} MiB/s)`;
  return { what, ours: speed(ours), theirs: speed(theirs), ratio: (theirs / ours).toFixed(2), goal };
}

/** Uploads to Glance and Swift against curl and python-swiftclient. Needs scripts/cloud; starts it. */
export async function cloudRows(root: string, dir: string): Promise<Row[]> {
  await execa(path.join(root, 'scripts/cloud'), ['up'], { stdio: ['ignore', 'ignore', 'inherit'] });
  const { stdout } = await execa(path.join(root, 'scripts/cloud'), ['env']);
  const env = Object.fromEntries(
    [...stdout.matchAll(/^export (\w+)='([^']*)'$/gm)].map(([, name = '', value = '']) => [name, value]),
  );
  const session = await CloudSession.open(await loadCloud(CLOUD, { ...process.env, ...env }));
  const file = path.join(dir, 'payload');
  await execa('dd', ['if=/dev/urandom', `of=${file}`, 'bs=1M', `count=${FILE_BYTES / MIB}`, 'status=none']);
  try {
    const rows = [await glanceRow(session, file), await swiftRow(session, file, env, dir)];
    rows.push({
      what: "node's peak memory while uploading",
      ours: formatBytes(process.resourceUsage().maxRSS * 1024),
      theirs: '',
      ratio: '',
      goal: '≤ 200 MiB',
    });
    return rows;
  } finally {
    await session.close();
  }
}

async function glanceRow(session: CloudSession, file: string): Promise<Row> {
  const images = new URL('v2/images', session.endpoint('image'));
  const drop = async (id: string) => {
    const url = new URL(`${images.href}/${id}`);
    await (await session.request(url, { method: 'DELETE', what: 'removal' })).drain();
  };
  const [sha256 = '', sha512] = await fileDigests(file, ['sha256', 'sha512']);
  const times = await paired(
    async (n) => {
      let id = '';
      const taken = await seconds(async () => {
        const result = await uploadImage(session, {
          file,
          bytes: FILE_BYTES,
          sha256,
          sha512,
          format: 'raw',
          name: 'bench',
          properties: { properties: {}, minDisk: 1, minRam: 0 },
          request: GlanceRequest.parse({ cloud: 'bench', method: 'put' }),
          jobId: `bench-${process.pid}-${n}`,
          rawSha256: async () => '0'.repeat(64),
          signal: new AbortController().signal,
          onProgress: () => {},
          warn: () => {},
          log: silentLog,
        });
        id = result.imageId;
      });
      await drop(id);
      return taken;
    },
    async () => {
      const answer = await session.request(images, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ name: 'bench', disk_format: 'raw', container_format: 'bare' }),
        what: 'new image',
      });
      const { id } = (await answer.json()) as { id: string };
      const token = await session.token();
      const config = `header = "X-Auth-Token: ${token}"\nheader = "Content-Type: application/octet-stream"\n`;
      const url = `${images.href}/${id}/file`;
      const taken = await seconds(() =>
        execa('curl', ['-sS', '-f', '-K', '-', '-X', 'PUT', '-T', file, url], { input: config }),
      );
      await drop(id);
      return taken;
    },
  );
  return row('image into Glance, against curl -T', times, '≥ 0.95');
}

async function swiftRow(
  session: CloudSession,
  file: string,
  env: Record<string, string>,
  dir: string,
): Promise<Row> {
  const api = new SwiftApi(session);
  await api.ensureContainer('port-image.bench', MARK);
  const clients = { ...process.env, ...env };
  const swift = (...args: string[]) => execa('/usr/bin/swift', args, { env: clients, cwd: dir });
  const times = await paired(
    async (n) => {
      const taken = await seconds(() =>
        api.putFile('port-image.bench', `payload-${n}`, file, { partBytes: SEGMENT_BYTES, lanes: LANES }),
      );
      await api.removeObject('port-image.bench', `payload-${n}`);
      return taken;
    },
    async (n) => {
      const name = `payload-${n}`;
      const taken = await seconds(() =>
        swift(
          ...['upload', '--use-slo', '--segment-size', String(SEGMENT_BYTES)],
          ...['--segment-threads', String(LANES), '--object-name', name, 'bench-peer', path.basename(file)],
        ),
      );
      await swift('delete', 'bench-peer', name);
      return taken;
    },
  );
  await api.removeContainer('port-image.bench');
  return row('file into Swift, against swift upload --use-slo', times, '≥ 1.00');
}
