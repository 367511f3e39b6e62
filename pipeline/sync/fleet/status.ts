/** What the queue holds, for people, and what they may do about it. */
import { isoDate } from '../../../core/sync/dates.ts';
import { DEAD, HostData, type ImageData, KINDS, type Kind, PARTS, type SyncData } from './jobs.ts';
import { isHost, type Queue } from './queue.ts';
import { type JobState, jobCounts, type ListedJob, openJobs } from './table.ts';

/** Counts of one kind of job. */
export interface KindStatus {
  kind: Kind;
  waiting: number;
  /** Failed in a way that can heal; wait for their next attempt. */
  retrying: number;
  running: number;
  done: number;
  failed: number;
  cancelled: number;
  /** Dead letters. */
  dead: number;
}

/** What a job is about. */
export interface JobSubject {
  id: string;
  kind: Kind;
  sync: string;
  /** Empty for a whole sync, as are series, version and verb. */
  target: string;
  series: string;
  version: string;
  verb: string;
}

/** A running job. */
export interface RunningJob extends JobSubject {
  host: string;
  seconds: number;
  /** Since its worker's last sign of life. */
  silentSeconds: number;
  attempt: number;
}

/** A job that failed for good. */
export interface DeadJob extends JobSubject {
  code: string;
  message: string;
  hint: string;
  attempts: number;
  /** ISO 8601. */
  at: string;
}

/** A worker. */
export interface WorkerStatus {
  name: string;
  pid: number;
  lanes: number;
  running: number;
  alive: boolean;
  startedAt: string;
}

/** All of it. */
export interface QueueStatus {
  schema: 'port-image/queue-status/1';
  queue: string;
  kinds: KindStatus[];
  running: RunningJob[];
  dead: DeadJob[];
  workers: WorkerStatus[];
  schedules: { sync: string; cron: string; timezone: string }[];
}

/** Which jobs are meant; all that are given must fit. */
export interface JobFilter {
  ids?: readonly string[] | undefined;
  sync?: string | undefined;
  target?: string | undefined;
}

const MOST = 100_000;

function subjectOf(id: string, kind: Kind, data: unknown): JobSubject {
  const { sync = '' } = (data ?? {}) as Partial<ImageData & SyncData>;
  const { action } = ((data ?? {}) as Partial<ImageData>).task ?? {};
  return {
    id,
    kind,
    sync,
    target: action?.target ?? '',
    series: action?.series ?? '',
    version: action?.version ?? '',
    verb: action?.verb ?? '',
  };
}

function kindOf(name: string): Kind {
  return name === PARTS.sync ? 'sync' : 'image';
}

function fits(subject: JobSubject, { ids, sync, target }: JobFilter): boolean {
  return (
    (ids === undefined || ids.includes(subject.id)) &&
    (sync === undefined || subject.sync === sync) &&
    (target === undefined || subject.target === target)
  );
}

/** What the queue holds now. Throws QUEUE. */
export async function queueStatus(queue: Queue): Promise<QueueStatus> {
  try {
    const { boss } = queue;
    const [counts, active, hosts, instances, schedules] = await Promise.all([
      jobCounts(boss),
      openJobs(boss, ['active']),
      boss.findJobs(PARTS.host, { queued: true, limit: MOST }),
      boss.getInstances(),
      boss.getSchedules(PARTS.sync),
    ]);
    const workers = hosts.flatMap(({ data }) => {
      const parsed = HostData.safeParse(data);
      return parsed.success ? [parsed.data] : [];
    });
    const hostOf = new Map(workers.flatMap(({ name, jobs }) => jobs.map(({ id }) => [id, name] as const)));
    const activeIds = new Set(active.map(({ id }) => id));
    const count = (name: string, ...states: JobState[]) =>
      counts.reduce((sum, c) => sum + (c.name === name && states.includes(c.state) ? c.count : 0), 0);
    return {
      schema: 'port-image/queue-status/1',
      queue: queue.address.shown,
      kinds: KINDS.map((kind) => ({
        kind,
        waiting: count(PARTS[kind], 'created'),
        retrying: count(PARTS[kind], 'retry'),
        running: count(PARTS[kind], 'active'),
        done: count(PARTS[kind], 'completed'),
        failed: count(PARTS[kind], 'failed'),
        cancelled: count(PARTS[kind], 'cancelled'),
        dead: count(DEAD[kind], 'created', 'failed'),
      })),
      running: active.map((job) => runningJob(job, hostOf.get(job.id) ?? '')),
      dead: (await Promise.all(KINDS.map((kind) => deadJobs(queue, kind)))).flat(),
      workers: workers.map((host) => ({
        name: host.name,
        pid: host.pid,
        lanes: host.lanes,
        // what a dead worker had is another's by now
        running: host.jobs.filter(({ id }) => activeIds.has(id) && hostOf.get(id) === host.name).length,
        alive: instances.some((i) => isHost(i, host)),
        startedAt: host.startedAt,
      })),
      schedules: schedules.map(({ key, cron, timezone }) => ({ sync: key, cron, timezone })),
    };
  } catch (error) {
    throw queue.error(error);
  }
}

function runningJob(job: ListedJob, host: string): RunningJob {
  return {
    ...subjectOf(job.id, kindOf(job.name), job.data),
    host,
    seconds: Math.round(job.seconds),
    silentSeconds: Math.round(job.silentSeconds ?? 0),
    attempt: job.retryCount + 1,
  };
}

async function deadJobs(queue: Queue, kind: Kind): Promise<DeadJob[]> {
  const jobs = await queue.boss.findJobs(DEAD[kind], { limit: MOST });
  return jobs.map(({ id, data, sourceOutput, sourceRetryCount, createdOn }) => {
    const { result, error, message } = (sourceOutput ?? {}) as {
      result?: { outcome?: { code?: string; message?: string; hint?: string } };
      error?: { code?: string; message?: string; hint?: string };
      message?: unknown;
    };
    const cause = result?.outcome ?? error;
    const attempts = (sourceRetryCount ?? 0) + 1;
    return {
      ...subjectOf(id, kind, data),
      code: cause?.code ?? 'QUEUE',
      message: cause?.message ?? (typeof message === 'string' ? message : 'its workers died'),
      hint: cause?.hint ?? '',
      attempts,
      at: isoDate(createdOn),
    };
  });
}

/** Cancels jobs that wait or run; what runs is interrupted with its worker's next sign of life. Returns how many. Throws QUEUE. */
export async function cancelJobs(queue: Queue, filter: JobFilter): Promise<number> {
  try {
    const open = await openJobs(queue.boss, ['created', 'retry', 'active']);
    let count = 0;
    for (const kind of KINDS) {
      const ids = open
        .filter(({ id, name, data }) => name === PARTS[kind] && fits(subjectOf(id, kind, data), filter))
        .map(({ id }) => id);
      if (ids.length > 0) await queue.boss.cancel(PARTS[kind], ids);
      count += ids.length;
    }
    return count;
  } catch (error) {
    throw queue.error(error);
  }
}

/** Puts dead letters back to where they failed. Returns how many. Throws QUEUE. */
export async function retryDead(queue: Queue, filter: JobFilter): Promise<number> {
  try {
    let count = 0;
    for (const kind of KINDS) {
      const ids = (await deadJobs(queue, kind)).filter((job) => fits(job, filter)).map(({ id }) => id);
      if (ids.length > 0) count += await queue.boss.redrive(DEAD[kind], { ids, limit: ids.length });
    }
    return count;
  } catch (error) {
    throw queue.error(error);
  }
}
