/** Starts and stops the services by recorded pid and start time, never by name. */
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, existsSync, openSync, readFileSync, rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { ask } from './http.ts';
import { type Cloud, readJson } from './settings.ts';

/** A long-running program of the cloud. */
export interface Service {
  name: string;
  /** Where it answers: no path, for people. */
  url: string;
  /** A GET here answers `healthStatus` when it works. Undefined: the process alone counts. */
  healthUrl?: string;
  /** 200 when absent. */
  healthStatus?: number;
  /** CA of that address. */
  caFile?: string;
  command: string;
  args: string[];
  env?: Record<string, string>;
  /** Files whose change means it must start anew. */
  configs: string[];
}

interface Running {
  pid: number;
  /** Field 22 of /proc/PID/stat: pids are used again, this pair is not. */
  started: string;
  digest: string;
}

/** A service's condition. */
export interface Condition {
  name: string;
  pid: number | null;
  url: string;
  healthy: boolean;
}

/** Nothing of the caller's environment: its OS_* and proxy variables would direct the services elsewhere. */
const ENV = {
  PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
  LANG: 'C.UTF-8',
  PYTHONUNBUFFERED: '1',
  PYTHONDONTWRITEBYTECODE: '1',
};

const SLOW_ANSWER_MS = 60_000;

/** Runs a command of the first start to its end; throws with the last lines of its output. */
export function runStep(
  cloud: Cloud,
  what: string,
  command: string,
  args: string[],
  env = {},
): Promise<void> {
  const log = openLog(cloud, 'setup');
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      stdio: ['ignore', log, log],
      env: { ...ENV, HOME: cloud.dir, ...env },
      cwd: cloud.dir,
    });
    closeSync(log);
    child.on('error', reject);
    child.on('exit', (code) =>
      code === 0 ? resolve() : reject(new Error(`${what} failed\n${tail(cloud, 'setup')}`)),
    );
  });
}

/** Starts what is not running with its present configuration; says whether it had to. */
export async function start(cloud: Cloud, service: Service): Promise<boolean> {
  const digest = digestOf(service);
  const known = running(cloud, service.name);
  if (known?.digest === digest && (await answersInTime(cloud, service))) return false;
  await stop(cloud, service.name);
  if (service.healthUrl !== undefined && (await answers(service.healthUrl)))
    throw new Error(`${service.name}: something else already listens at ${service.url}; use --ports-base`);
  rmSync(logFile(cloud, service.name), { force: true });
  const log = openLog(cloud, service.name);
  const child = spawn(service.command, service.args, {
    detached: true,
    stdio: ['ignore', log, log],
    env: { ...ENV, HOME: cloud.dir, ...service.env },
    cwd: cloud.dir,
  });
  closeSync(log);
  await new Promise((resolve, reject) => child.once('spawn', () => resolve(undefined)).once('error', reject));
  child.unref();
  const pid = child.pid ?? 0;
  cloud.write(`run/${service.name}.json`, JSON.stringify({ pid, started: startTime(pid) ?? '', digest }));
  return true;
}

/** Waits until the service answers; throws with the end of its log when it died or took too long. */
export async function waitHealthy(cloud: Cloud, service: Service, timeoutMs = 90_000): Promise<void> {
  const end = performance.now() + timeoutMs;
  for (;;) {
    if (await isHealthy(service)) return;
    const dead = running(cloud, service.name) === undefined;
    if (dead || performance.now() > end)
      throw new Error(
        `${service.name} ${dead ? 'ended' : 'does not answer'} at ${service.url}\n${tail(cloud, service.name)}`,
      );
    await sleep(100);
  }
}

/** Stops a service if the recorded process is still the same one. */
export async function stop(cloud: Cloud, name: string): Promise<void> {
  const file = cloud.path('run', `${name}.json`);
  const known = running(cloud, name);
  if (known !== undefined) {
    signal(known.pid, 'SIGTERM');
    for (let waited = 0; waited < 5000 && startTime(known.pid) === known.started; waited += 50)
      await sleep(50);
    if (startTime(known.pid) === known.started) signal(known.pid, 'SIGKILL');
    while (startTime(known.pid) === known.started) await sleep(20);
  }
  rmSync(file, { force: true });
}

/** Whether and where each service runs. */
export async function conditions(cloud: Cloud, services: Service[]): Promise<Condition[]> {
  return Promise.all(
    services.map(async (service) => {
      const pid = running(cloud, service.name)?.pid ?? null;
      return {
        name: service.name,
        pid,
        url: service.url,
        healthy: pid !== null && (await isHealthy(service)),
      };
    }),
  );
}

/** The recorded process, if it still lives. */
function running(cloud: Cloud, name: string): Running | undefined {
  const known = readJson<Running>(cloud.path('run', `${name}.json`));
  return known !== undefined && startTime(known.pid) === known.started ? known : undefined;
}

/** Start time in clock ticks since boot; undefined when there is no such process or it only waits to be reaped. */
function startTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

/** The whole group, because the program leads its own session. */
function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(-pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

function digestOf(service: Service): string {
  const hash = createHash('sha256').update(JSON.stringify([service.command, service.args, service.env]));
  for (const file of service.configs) hash.update(readFileSync(file));
  return hash.digest('hex');
}

/** Others may be using it, and a busy machine is slow: one that runs is given time before it is started anew. */
async function answersInTime(cloud: Cloud, service: Service): Promise<boolean> {
  const end = performance.now() + SLOW_ANSWER_MS;
  while (running(cloud, service.name) !== undefined && performance.now() < end) {
    if (await isHealthy(service)) return true;
    await sleep(500);
  }
  return false;
}

async function isHealthy(service: Service): Promise<boolean> {
  if (service.healthUrl === undefined) return true;
  try {
    const answer = await ask('GET', service.healthUrl, { timeoutMs: 10_000, caFile: service.caFile });
    return answer.status === (service.healthStatus ?? 200);
  } catch {
    return false;
  }
}

async function answers(url: string): Promise<boolean> {
  return ask('GET', url, { timeoutMs: 2000 }).then(
    () => true,
    () => false,
  );
}

function logFile(cloud: Cloud, name: string): string {
  return cloud.path('log', `${name}.log`);
}

function openLog(cloud: Cloud, name: string): number {
  cloud.mkdir('log');
  return openSync(logFile(cloud, name), 'a', 0o600);
}

function tail(cloud: Cloud, name: string): string {
  const file = logFile(cloud, name);
  const lines = existsSync(file) ? readFileSync(file, 'utf8').trimEnd().split('\n') : [];
  return `${lines.slice(-15).join('\n')}\n(all of it: ${file})`;
}

/** Whether a program succeeds, silently. */
export const succeeds = (command: string, ...args: string[]): boolean =>
  spawnSync(command, args, { stdio: 'ignore' }).status === 0;
