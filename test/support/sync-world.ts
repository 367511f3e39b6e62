/**
 * Where a sync plays: cloud A, from which images come, cloud B, S3 and EC2 (moto), Azure (Azurite, and a server of ours for what has
 * no emulator). Proxies before the targets count what passes, whatever the program says of itself.
 */
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import type { ContainerClient } from '@azure/storage-blob';
import type { SyncReport } from '../../core/sync/types.ts';
import { type Gate, startGate } from '../drivers/aws/moto.ts';
import { startMoto } from '../tools/ebs/moto.ts';
import { type ArmServer, startArm } from './arm-server.ts';
import { type Azurite, startAzurite } from './azurite.ts';
import { type CliResult, ROOT, runCli } from './cli.ts';
import { CLOUD_NAME, type Cloud, startCloud, type TestProject } from './cloud.ts';
import { type FaultProxy, startFaultProxy } from './fault-proxy.ts';
import { serviceProgram } from './services.ts';

/** Programs the world consists of; undefined when all are here. */
export async function noSyncWorld(): Promise<string | undefined> {
  const missing: string[] = [];
  for (const name of ['moto', 'azurite'] as const)
    if ((await serviceProgram(name)) === undefined) missing.push(name);
  return missing.length === 0 ? undefined : `not here: ${missing.join(', ')}`;
}

/** One OpenStack of the world. */
export interface SyncCloud {
  cloud: Cloud;
  project: TestProject;
}

/** A target's services, counted. */
export interface Counted {
  /** Requests of the program so far. */
  calls(): number;
  /** Body bytes of its requests. */
  sentBytes(): number;
  reset(): void;
}

/** Names of the targets in `targets`. */
export const TARGETS = ['b', 'aws', 'azure'] as const;
/** One of them. */
export type TargetName = (typeof TARGETS)[number];

/** All of it, running. */
export interface SyncWorld {
  dir: string;
  a: SyncCloud;
  b: SyncCloud;
  /** Address of moto itself. */
  moto: string;
  gate: Gate;
  azurite: Azurite;
  /** Where VHDs go. */
  vhds: ContainerClient;
  arm: ArmServer;
  /** What the program and clients of the clouds are given: both clouds by the names `A` and `B`, and all keys. */
  env: Record<string, string>;
  /** Proxies before B's services. */
  proxies: { identity: FaultProxy; image: FaultProxy; objects: FaultProxy };
  counted: Record<TargetName, Counted>;
  /** Targets as sync.yaml has them. */
  targets: Record<TargetName, Record<string, unknown>>;
  /** Where data sets of A are, and where they go. */
  stores: { a: string } & Record<TargetName, string>;
  /** Writes a sync file, JSON being YAML; its state folder is beside it. */
  write(name: string, config: Record<string, unknown>): string;
  /** Runs `port-image sync …`. */
  cli(args: readonly string[], options?: { signal?: AbortSignal; timeoutMs?: number }): Promise<CliResult>;
  /** One run of a file; throws when there is no report. */
  sync(file: string, ...args: string[]): Promise<SyncReport>;
  /** Runs `port-image sync …` and kills it, and nothing that it started, after so long; says whether it was still at work. */
  kill(args: readonly string[], afterMs: number): Promise<boolean>;
  close(): Promise<void>;
}

/** Bucket of data sets, in moto. */
export const BUCKET = 'nightly-data';

/** Starts it. `names`: clouds of scripts/cloud; those that did not run before are stopped at the end. */
export async function openSyncWorld(names: { a: string; b: string }): Promise<SyncWorld> {
  const closers: (() => Promise<unknown>)[] = [];
  const close = async () => {
    const failed: unknown[] = [];
    for (const closer of closers.splice(0).reverse()) await closer().catch((error) => failed.push(error));
    if (failed.length > 0) throw failed[0];
  };
  try {
    return await open(names, closers, close);
  } catch (error) {
    await close().catch(() => undefined);
    throw error;
  }
}

async function open(
  names: { a: string; b: string },
  closers: (() => Promise<unknown>)[],
  close: () => Promise<void>,
): Promise<SyncWorld> {
  const later = <T extends { close(): Promise<unknown> }>(one: T): T => {
    closers.push(() => one.close());
    return one;
  };
  const dir = mkdtempSync(path.join(os.tmpdir(), 'port-image-sync-'));
  closers.push(async () => rmSync(dir, { recursive: true, force: true }));
  const openstack = async (name: string): Promise<SyncCloud> => {
    const cloud = await startCloud({ name });
    if (cloud.before !== 'running') closers.push(() => cloud.down({ forget: cloud.before === 'none' }));
    const project = await cloud.project('sync');
    closers.push(() => project.cleanup());
    return { cloud, project };
  };
  const a = await openstack(names.a);
  const b = await openstack(names.b);
  const proxies = {
    identity: later(await startFaultProxy(b.cloud.identityUrl)),
    image: later(await startFaultProxy(b.cloud.imageUrl)),
    objects: later(await startFaultProxy(b.cloud.objectStoreUrl)),
  };
  const motoProgram = await serviceProgram('moto');
  if (motoProgram === undefined) throw new Error('no moto here');
  const moto = await startMoto(motoProgram);
  closers.push(() => moto.stop());
  const gate = later(await startGate(moto.url));
  const ec2 = later(await startFaultProxy(gate.url));
  const azurite = later(await startAzurite());
  const blobs = later(await startFaultProxy(azurite.origin));
  const arm = later(await startArm());
  const vhds = await azurite.container('vhds');
  arm.container = vhds;
  const clouds = mergedClouds({
    A: a.project.cloudsYaml,
    B: b.project.writeClouds('proxied.yaml', {
      identity: proxies.identity.url,
      image: proxies.image.url,
      objectStore: proxies.objects.url,
    }),
  });
  const cloudsYaml = path.join(dir, 'clouds.yaml');
  writeFileSync(cloudsYaml, clouds, { mode: 0o600 });
  const env = {
    OS_CLIENT_CONFIG_FILE: cloudsYaml,
    ...{ AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test', AWS_REGION: 'eu-central-1' },
    ...arm.env,
    ...azurite.env,
  };
  await makeBucket(moto.url);
  const blobUrl = `${blobs.url}/${azurite.account}`;
  const armCalls = { before: 0 };
  const stores = {
    ...{ a: 'swift:data', b: 'swift:data' },
    aws: `s3:${BUCKET}/sets?region=us-east-1&endpoint=${moto.url}`,
    azure: `azure:${azurite.account}/sets?endpoint=${azurite.url}`,
  };
  const cli: SyncWorld['cli'] = (args, options = {}) =>
    runCli(['sync', ...args], { env: { ...env }, cwd: dir, ...options });
  return {
    dir,
    a,
    b,
    moto: moto.url,
    gate,
    azurite,
    vhds,
    arm,
    env,
    proxies,
    counted: {
      b: countedBy([proxies.identity, proxies.image, proxies.objects]),
      aws: countedBy([ec2]),
      azure: {
        calls: () => blobs.count() + arm.requests.length - armCalls.before,
        sentBytes: () => blobs.sentBytes(),
        reset: () => {
          blobs.reset();
          armCalls.before = arm.requests.length;
        },
      },
    },
    targets: {
      b: { platform: 'openstack', options: { cloud: 'B' }, store: stores.b },
      aws: {
        platform: 'aws',
        options: { region: 'eu-central-1', endpoints: { ebs: ec2.url, ec2: ec2.url } },
        store: stores.aws,
      },
      azure: {
        platform: 'azure',
        options: {
          subscription: arm.subscription,
          ...{ resourceGroup: 'rg', location: 'westeurope' },
          ...{ storageAccount: azurite.account, container: 'vhds' },
          endpoints: { management: arm.url, authority: arm.url, blob: blobUrl },
          caFile: arm.caFile,
        },
        store: stores.azure,
      },
    },
    stores,
    write(name, config) {
      const folder = path.join(dir, name);
      mkdirSync(folder, { recursive: true, mode: 0o700 });
      const file = path.join(folder, 'sync.yaml');
      writeFileSync(file, `${JSON.stringify({ sync: name, state: 'state', ...config }, null, 2)}\n`);
      return file;
    },
    cli,
    async sync(file, ...args) {
      const result = await cli([file, '--json', ...args]);
      const report = result.json() as SyncReport;
      if (report.exitStatus !== result.exitCode)
        throw new Error(
          `exit status ${result.exitCode}, in the report ${report.exitStatus}\n${result.stderr}`,
        );
      return report;
    },
    async kill(args, afterMs) {
      const child = spawn(path.join(ROOT, 'scripts/port-image'), ['sync', ...args], {
        env: { ...process.env, ...env },
        cwd: dir,
        stdio: 'ignore',
      });
      const ended = new Promise<boolean>((resolve, reject) =>
        child.once('error', reject).once('exit', (_, signal) => resolve(signal === 'SIGKILL')),
      );
      const timer = setTimeout(() => child.kill('SIGKILL'), afterMs);
      return ended.finally(() => clearTimeout(timer));
    },
    close,
  };
}

/** Entries by the names of the world; each file has one, `test`. */
function mergedClouds(files: Record<string, string>): string {
  const clouds = Object.fromEntries(
    Object.entries(files).map(([name, file]) => {
      const known = JSON.parse(readFileSync(file, 'utf8')) as { clouds: Record<string, unknown> };
      return [name, known.clouds[CLOUD_NAME]];
    }),
  );
  return JSON.stringify({ clouds }, null, 2);
}

function countedBy(proxies: readonly FaultProxy[]): Counted {
  const sum = (of: (proxy: FaultProxy) => number) => proxies.reduce((all, proxy) => all + of(proxy), 0);
  // What Glance itself reads from Swift, by a signed URL, does not travel.
  const isOwn = ({ path: asked, method }: FaultProxy['requests'][number]) =>
    !(method === 'GET' && asked.includes('temp_url_sig='));
  return {
    calls: () => sum((proxy) => proxy.requests.filter(isOwn).length),
    sentBytes: () => sum((proxy) => proxy.sentBytes()),
    reset: () => {
      for (const proxy of proxies) proxy.reset();
    },
  };
}

async function makeBucket(endpoint: string): Promise<void> {
  const client = new S3Client({
    ...{ endpoint, region: 'us-east-1', forcePathStyle: true },
    credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
  });
  await client.send(new CreateBucketCommand({ Bucket: BUCKET }));
  client.destroy();
}
