/**
 * Timed claims, as ratios of programs run one after the other on the same guest. Prints a table; decides nothing.
 *
 *   npm run bench [-- DISK] [--only convert,tar,sparse,capture,cloud,platforms,aws,azure,blocks]
 *
 * A  port-image convert --strip auto --no-verify
 * B  virt-v2v → virt-customize (the same packages) → virt-sysprep (comparable operations) → virt-sparsify --compress
 */
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { execa } from 'execa';
import { formatBytes, formatSeconds } from '../core/sizes.ts';
import { libguestfsEnvironment, probeKvm } from '../tools/kvm.ts';
import { awsRows } from './bench-aws.ts';
import { azureRows } from './bench-azure.ts';
import { blockRows } from './bench-blocks.ts';
import { captureRows } from './bench-capture.ts';
import { cloudRows, type Row } from './bench-cloud.ts';
import { platformRows } from './bench-platforms.ts';

const ROOT = path.resolve(import.meta.dirname, '..');
const rows: Row[] = [];
const args = process.argv.slice(2);
const only = args.includes('--only')
  ? (args[args.indexOf('--only') + 1] ?? '').split(',')
  : ['convert', 'tar', 'sparse', 'capture', 'cloud', 'platforms', 'aws', 'azure', 'blocks'];
/** Rows that need a guest. */
const GUEST_ROWS = ['convert', 'tar', 'sparse', 'platforms'];
/** A finished job, so that the platforms need no conversion first. */
const finishedJob = process.env.PORT_IMAGE_BENCH_JOB;
const guestRows = only.filter((o) => GUEST_ROWS.includes(o) && !(o === 'platforms' && finishedJob));
const named = args.find((a, i) => !a.startsWith('--') && args[i - 1] !== '--only');
const disk = named ?? (guestRows.length > 0 ? await sample() : '');
const dir = await fs.mkdtemp(path.join(process.env.TMPDIR ?? '/var/tmp', 'port-image-bench-'));
const env = libguestfsEnvironment(await probeKvm());

interface Converted {
  stages: { name: string; seconds: number }[];
  outputs: { path: string; bytes: number }[];
  dataSets: { path: string; bytes: number }[];
  applianceLaunches: number;
  peakRssBytes: number;
}

async function sample(): Promise<string> {
  const { stdout } = await execa(path.join(ROOT, 'fixtures/servers/build'), ['bios-lvm'], {
    stderr: 'inherit',
  });
  return stdout.trim();
}

async function timed<T>(name: string, work: () => Promise<T>): Promise<[T, number]> {
  process.stderr.write(`${name} … `);
  const started = performance.now();
  const result = await work();
  const seconds = (performance.now() - started) / 1000;
  process.stderr.write(`${formatSeconds(seconds)}\n`);
  return [result, seconds];
}

function convert(source: string, job: string, flags: string[]): Promise<Converted> {
  return execa(
    path.join(ROOT, 'scripts/port-image'),
    ['convert', source, '--to', 'openstack', '--job', job, '--no-verify', '--json', ...flags],
    { stderr: 'ignore' },
  ).then((r) => JSON.parse(r.stdout) as Converted);
}

async function peerPackages(): Promise<string[]> {
  // what port-image downloaded for this guest, newest run first: the same files for both
  const cache = path.join(
    process.env.XDG_CACHE_HOME ?? path.join(os.homedir(), '.cache'),
    'port-image/packages',
  );
  const names = await fs.readdir(cache, { recursive: true });
  return names.filter((n) => n.endsWith('.deb')).map((n) => path.join(cache, n));
}

/** The peers' way. Returns the bytes of their image. */
async function peers(source: string): Promise<number> {
  const out = path.join(dir, 'peer');
  await fs.mkdir(out);
  const options = { env, stdout: 'ignore', stderr: 'ignore' } as const;
  await execa(
    'virt-v2v',
    ['-i', 'disk', source, '-o', 'local', '-os', out, '-of', 'qcow2', '-on', 'peer'],
    options,
  );
  const image = path.join(out, 'peer-sda');
  const debs = path.join(dir, 'debs');
  await fs.mkdir(debs);
  for (const deb of await peerPackages()) await fs.copyFile(deb, path.join(debs, path.basename(deb)));
  await execa(
    'virt-customize',
    [
      '--format',
      'qcow2',
      '-a',
      image,
      '--copy-in',
      `${debs}:/var/tmp`,
      '--run-command',
      'DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install /var/tmp/debs/*.deb',
      '--delete',
      '/var/tmp/debs',
    ],
    options,
  );
  await execa(
    'virt-sysprep',
    [
      '--format',
      'qcow2',
      '-a',
      image,
      '--operations',
      'dhcp-client-state,machine-id,net-hwaddr,udev-persistent-net,tmp-files',
    ],
    options,
  );
  const final = path.join(dir, 'peer.qcow2');
  await execa('virt-sparsify', ['--format', 'qcow2', '--compress', '--convert', 'qcow2', image, final], {
    ...options,
    env: { ...env, TMPDIR: dir },
  });
  return (await fs.stat(final)).size;
}

const ratio = (a: number, b: number): string => (a / b).toFixed(2);

try {
  if (only.includes('convert')) {
    await convert(disk, path.join(dir, 'warm'), ['--strip', 'auto', '--dry-run']); // fills the package cache for both
    const [ours, oursSeconds] = await timed('port-image convert', () =>
      convert(disk, path.join(dir, 'ours'), ['--strip', 'auto']),
    );
    const [theirs, theirsSeconds] = await timed('virt-v2v, -customize, -sysprep, -sparsify', () =>
      peers(disk),
    );
    const bytes = ours.outputs[0]?.bytes ?? Number.NaN;
    rows.push(
      {
        what: 'convert, wall',
        ours: formatSeconds(oursSeconds),
        theirs: formatSeconds(theirsSeconds),
        ratio: ratio(oursSeconds, theirsSeconds),
        goal: '≤ 0.35',
      },
      {
        what: 'image',
        ours: formatBytes(bytes),
        theirs: formatBytes(theirs),
        ratio: ratio(bytes, theirs),
        goal: '≤ 0.35',
      },
      { what: 'appliance launches', ours: String(ours.applianceLaunches), theirs: '4', ratio: '', goal: '1' },
      {
        what: "node's peak memory",
        ours: formatBytes(ours.peakRssBytes),
        theirs: '',
        ratio: '',
        goal: '≤ 200 MiB',
      },
    );
    process.stderr.write(`stages: ${ours.stages.map((s) => `${s.name} ${s.seconds}`).join(', ')}\n`);
    await fs.rm(path.join(dir, 'peer'), { recursive: true, force: true });
    if (only.includes('tar')) {
      // the same trees; ours also compresses, stores, reads back, verifies and removes them
      const strip = ours.stages.find((s) => s.name === 'strip')?.seconds ?? Number.NaN;
      const [tarSeconds] = await timed('guestfish tar-out', () => tarOut(ours.dataSets.map((d) => d.path)));
      rows.push({
        what: 'strip against tar-out of the same trees',
        ours: formatSeconds(strip),
        theirs: formatSeconds(tarSeconds),
        ratio: `${ratio(tarSeconds, strip)} x`,
        goal: '≥ 4 x',
      });
    }
  }
  if (only.includes('sparse')) {
    // qemu has no size limit; OpenStack's default image_size_cap would refuse 10 TiB in the plan
    const [small, smallSeconds] = await timed('plain convert', () =>
      convert(disk, path.join(dir, 'small'), ['--no-strip', '--to', 'qemu']),
    );
    const huge = path.join(dir, 'huge.raw');
    await execa('cp', ['--sparse=always', disk, huge]);
    await fs.truncate(huge, 10 * 1024 ** 4);
    const [, hugeSeconds] = await timed('the same, disk of 10 TiB', () =>
      convert(huge, path.join(dir, 'large'), ['--no-strip', '--to', 'qemu']),
    );
    void small;
    rows.push({
      what: '10 TiB sparse disk',
      ours: formatSeconds(hugeSeconds),
      theirs: formatSeconds(smallSeconds),
      ratio: `+${(hugeSeconds - smallSeconds).toFixed(1)} s`,
      goal: '< +5 s',
    });
  }
  if (only.includes('capture')) rows.push(...(await captureRows(ROOT, dir)));
  if (only.includes('cloud')) rows.push(...(await cloudRows(ROOT, dir)));
  if (only.includes('platforms')) {
    const job = finishedJob ?? path.join(dir, 'platforms');
    if (finishedJob === undefined) await convert(disk, job, ['--no-strip']);
    rows.push(...(await platformRows(dir, job)));
  }
  if (only.includes('aws')) rows.push(...(await awsRows(dir)));
  if (only.includes('azure')) rows.push(...(await azureRows(dir)));
  if (only.includes('blocks')) rows.push(...(await blockRows(dir)));
} finally {
  await fs.rm(dir, { recursive: true, force: true });
}

/** Seconds guestfish needs to read trees through the appliance; launching and mounting are not counted. */
async function tarOut(trees: readonly string[]): Promise<number> {
  const target = path.join(dir, 'tar-out.tar');
  const input = trees.map((t) => `time tar-out ${t} ${target}\n`).join('');
  const { stdout } = await execa('guestfish', ['--ro', '--format=raw', '-a', disk, '-i'], { env, input });
  await fs.rm(target);
  return [...stdout.matchAll(/elapsed time: ([\d.]+) seconds/g)].reduce((sum, m) => sum + Number(m[1]), 0);
}

console.log(`\n${'what'.padEnd(44)}${'port-image'.padEnd(16)}${'peer'.padEnd(16)}${'ratio'.padEnd(10)}goal`);
for (const row of rows) {
  console.log(
    `${row.what.padEnd(44)}${row.ours.padEnd(16)}${row.theirs.padEnd(16)}${row.ratio.padEnd(10)}${row.goal}`,
  );
}
