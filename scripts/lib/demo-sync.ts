/**
 * Three nights of `port-image sync` for scripts/demo: from cloud A to cloud B, EC2 and Azure. Every place is on this machine; what
 * passes is counted by proxies, what arrived is compared by other clients. Status 7 when a promise is broken.
 *
 *   node scripts/lib/demo-sync.ts FOLDER [--json]
 */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { stringify } from 'yaml';
import type { SyncReport } from '../../core/sync/types.ts';
import { openStore } from '../../drivers/stores/index.ts';
import { changedBlocks, type Nights, nights } from '../../test/support/nightly.ts';
import { putSmallSet } from '../../test/support/small-set.ts';
import {
  amis,
  glanceImages,
  sameDisk,
  sameInGlance,
  saveSnapshot,
  saveVhd,
  uploadImage,
} from '../../test/support/sync-checks.ts';
import { openSyncWorld, type SyncWorld, TARGETS, type TargetName } from '../../test/support/sync-world.ts';

const MIB = 2 ** 20;
const SERVER = 'web01';
const DATA_SET = 'web01-srv-0123456789';
/** Bytes of a night's requests that are questions, not data: logins and the like. */
const QUESTION_BYTES = 32 * 1024;
/** Requests of an unchanged night for one image in one target. */
const MOST_CALLS = 3;
/** Bytes sent for each changed byte. */
const MOST_RATIO = 1.1;

const [folder = '', ...flags] = process.argv.slice(2);
const isJson = flags.includes('--json');
const say = (text: string) => process.stderr.write(`demo: ${text}\n`);
const print = (text: string) => (isJson ? process.stderr : process.stdout).write(`${text}\n`);

/** What one target did in one night. */
interface Row {
  night: string;
  target: TargetName;
  result: string;
  method: string;
  sentBytes: number;
  /** By the proxy before the target, questions and answers' headers apart. */
  passedBytes: number;
  changedBytes: number;
  dataSetBytes: number;
  calls: number;
  seconds: number;
}

const broken: string[] = [];
function promise(holds: boolean, text: string): void {
  if (!holds) broken.push(text);
}

async function night(
  world: SyncWorld,
  file: string,
  name: string,
): Promise<{ report: SyncReport; rows: Row[] }> {
  for (const target of TARGETS) world.counted[target].reset();
  say(`night: ${name}`);
  const report = await world.sync(file);
  promise(report.exitStatus === 0, `${name}: the run ended with ${report.exitStatus}`);
  for (const { name: place, message } of report.unreachable) promise(false, `${name}: ${place}: ${message}`);
  const rows = TARGETS.map((target): Row => {
    const outcome = report.outcomes.find(
      ({ action }) => action.target === target && action.verb !== 'hide' && action.verb !== 'delete',
    );
    promise(outcome?.result !== 'failed', `${name}, ${target}: ${outcome?.message ?? 'failed'}`);
    const sets = report.dataSets.filter((set) => set.target === target);
    return {
      night: name,
      target,
      result: outcome === undefined ? 'nothing' : `${outcome.action.verb} ${outcome.result}`,
      method: outcome?.method ?? '',
      sentBytes: outcome?.sentBytes ?? 0,
      passedBytes: world.counted[target].sentBytes(),
      changedBytes: outcome?.changedBytes ?? 0,
      dataSetBytes: sets.reduce((sum, set) => sum + set.sentBytes, 0),
      calls: report.calls[target] ?? 0,
      seconds: outcome?.seconds ?? 0,
    };
  });
  return { report, rows };
}

/** Every target shows the disk of the night, says a client that is not ours. */
async function compare(world: SyncWorld, both: Nights, at: 0 | 1, report: SyncReport): Promise<void> {
  const raw = both.raw[at];
  const refOf = (target: TargetName) =>
    report.outcomes.find(({ action, result }) => action.target === target && result === 'done')?.ref ?? '';
  const image = (await glanceImages(world.b)).find(({ id }) => id === refOf('b'));
  if (image === undefined) throw new Error('B shows no image of this night');
  await sameInGlance(world.b, image, raw, folder);
  say(`B: the OpenStack client downloaded ${image.name} (${image.disk_format}); qemu-img finds it identical`);
  const ami = (await amis(world)).find(({ ImageId }) => ImageId === refOf('aws'));
  const snapshot = ami?.BlockDeviceMappings?.[0]?.Ebs?.SnapshotId;
  if (snapshot === undefined) throw new Error('EC2 shows no image of this night');
  const file = path.join(folder, 'compared.raw');
  await saveSnapshot(world, snapshot, both.virtualBytes, file);
  await sameDisk(file, 'raw', raw);
  promise(world.gate.wrong.length === 0, `EBS got wrong checksums: ${world.gate.wrong.join(', ')}`);
  say(`EC2: the AWS client shows ${ami?.ImageId}; the blocks of its snapshot are identical`);
  const { action } = report.outcomes.find(({ ref }) => ref === refOf('azure')) ?? {};
  const vhd = await saveVhd(world, `nightly/${SERVER}/${action?.version}`, file);
  await sameDisk(file, 'raw', raw);
  promise(world.arm.problems.length === 0, `Azure's model refuses: ${world.arm.problems.join(', ')}`);
  say(`Azure: the pages of ${vhd} are identical`);
  await fs.rm(file);
}

const mib = (bytes: number) => (bytes / MIB).toFixed(bytes === 0 ? 0 : 1);

function table(rows: readonly Row[]): void {
  const head = [
    'night',
    'target',
    'image',
    'sent MiB',
    'changed MiB',
    'ratio',
    'data MiB',
    'calls',
    'seconds',
  ];
  const lines = rows.map((row) => [
    row.night,
    row.target,
    `${row.result}${row.method === '' ? '' : ` (${row.method})`}`,
    mib(row.sentBytes),
    mib(row.changedBytes),
    row.changedBytes === 0 ? '-' : (row.sentBytes / row.changedBytes).toFixed(2),
    mib(row.dataSetBytes),
    `${row.calls}`,
    row.seconds.toFixed(1),
  ]);
  const widths = head.map((text, at) => Math.max(text.length, ...lines.map((line) => line[at]?.length ?? 0)));
  for (const line of [head, ...lines])
    print(
      line
        .map((text, at) => (at < 3 ? text.padEnd(widths[at] ?? 0) : text.padStart(widths[at] ?? 0)))
        .join('  '),
    );
}

async function play(world: SyncWorld): Promise<void> {
  say('building the two nights of the server (once, then kept)');
  const both = await nights();
  const changed = (await changedBlocks(...both.raw)) * MIB;
  Object.assign(process.env, world.env);
  const store = openStore(world.stores.a, { cloud: 'A' });
  await putSmallSet(store, DATA_SET);
  await store.close?.();
  const put = (at: 0 | 1) =>
    uploadImage(world.a, both.qcow2[at], {
      name: SERVER,
      properties: { hw_firmware_type: 'bios', architecture: 'x86_64', port_image_data: DATA_SET },
    });
  say('the OpenStack client puts the server into A');
  await put(0);
  const file = path.join(folder, 'sync.yaml');
  const config = {
    sync: 'nightly',
    state: path.join(folder, 'state'),
    sources: { a: { glance: { cloud: 'A', names: [SERVER] }, store: world.stores.a } },
    targets: world.targets,
    rules: [{ data: 'carry' }],
    retention: { keep: 2 },
  };
  await fs.writeFile(file, stringify(config), { mode: 0o600 });
  const first = await night(world, file, 'first');
  await compare(world, both, 0, first.report);
  const unchanged = await night(world, file, 'unchanged');
  for (const row of unchanged.rows) {
    const where = `${row.night}, ${row.target}`;
    promise(
      row.sentBytes === 0 && row.dataSetBytes === 0,
      `${where}: ${row.sentBytes} bytes of data were sent`,
    );
    promise(row.passedBytes <= QUESTION_BYTES, `${where}: ${row.passedBytes} bytes passed the proxy`);
    promise(row.calls <= MOST_CALLS, `${where}: ${row.calls} calls`);
  }
  say(
    `${both.package} is upgraded from ${both.older} to ${both.newer} in the server: ${mib(changed)} MiB of blocks`,
  );
  await put(1);
  const upgraded = await night(world, file, 'one package');
  for (const row of upgraded.rows)
    promise(
      row.passedBytes - row.dataSetBytes <= MOST_RATIO * changed,
      `${row.night}, ${row.target}: ${mib(row.passedBytes)} MiB passed, ${mib(changed)} MiB changed`,
    );
  await compare(world, both, 1, upgraded.report);
  const rows = [...first.rows, ...unchanged.rows, ...upgraded.rows];
  table(rows);
  for (const text of broken) say(`broken: ${text}`);
  const page = path.join(folder, 'state', 'index.html');
  await fs.access(page);
  print(`report: ${page}`);
  if (isJson)
    process.stdout.write(
      `${JSON.stringify({ schema: 'port-image/demo-sync/1', rows, changedBytes: changed, broken, report: page })}\n`,
    );
}

// Before anything is started: what is started is also stopped.
const stop = new Promise<never>((_, reject) => {
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => reject(new Error(`stopped by ${signal}`)));
});
stop.catch(() => undefined);
let world: SyncWorld | undefined;
try {
  say('starting clouds A and B, moto and Azurite');
  world = await openSyncWorld({ a: 'A', b: 'B' });
  await Promise.race([play(world), stop]);
  if (broken.length > 0) process.exitCode = 7;
} catch (error) {
  say((error as Error).message);
  process.exitCode = 6;
} finally {
  say('stopping what was started');
  await world?.close();
}
