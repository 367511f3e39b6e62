/** The queue of a fleet: pg-boss on PostgreSQL (https://pgboss.io). */
import { type Instance, PgBoss } from 'pg-boss';
import { PortError } from '../../../core/errors.ts';
import type { Log } from '../../../core/log.ts';
import { printable } from '../../../core/text.ts';
import { type QueueAddress, queueAddress, queueError } from './address.ts';
import { DEAD, HostData, KINDS, PARTS, SCHEMA } from './jobs.ts';

/** How fast things happen. Heartbeat and retries are settings of the queue: new jobs get those of whoever opened it last. */
export interface FleetTimes {
  /** A worker without a sign of life for so long is dead, and its job goes to another. pg-boss: at least 10. */
  heartbeatSeconds: number;
  /** How often each host looks for jobs of dead workers. */
  superviseSeconds: number;
  /** How often free lanes ask for work when nothing woke them, and runs for results. */
  pollSeconds: number;
  /** Pause before the second attempt; doubled each time. */
  retrySeconds: number;
  retryMostSeconds: number;
}

/** Times for fleets of up to a hundred workers; images take minutes. */
export const FLEET_TIMES: FleetTimes = {
  heartbeatSeconds: 60,
  superviseSeconds: 20,
  pollSeconds: 2,
  retrySeconds: 30,
  retryMostSeconds: 900,
};

const DAY_SECONDS = 86_400;
/** pg-boss refuses a day, and an image that takes longer would never end anyway. */
const EXPIRE_SECONDS = 23 * 3600;
/** Dead letters, results and files of runs are kept so long. */
const KEEP_DAYS = 30;
/**
 * How often a job comes back from workers that died or were stopped, besides its own attempts. An image that kills each worker
 * must not go on for ever.
 */
export const RETURNS = 4;

/** What is needed to open a queue. */
export interface QueueOptions {
  log: Log;
  /** Name of this host in the queue's list. */
  name: string;
  /** `worker` looks after dead workers' jobs and schedules; `look` changes nothing that is not asked for. */
  role: 'worker' | 'run' | 'look';
  /** Connections; the default is enough for a run. */
  connections?: number;
  times?: Partial<FleetTimes>;
}

/** An open queue. Close it. */
export class Queue {
  readonly boss: PgBoss;
  readonly times: FleetTimes;
  readonly address: QueueAddress;
  readonly name: string;

  private constructor(boss: PgBoss, address: QueueAddress, times: FleetTimes, name: string) {
    this.boss = boss;
    this.address = address;
    this.times = times;
    this.name = name;
  }

  /**
   * Connects, and makes the tables on the first use (role `look`: never). Throws USAGE for a wrong address, QUEUE when the server
   * cannot be reached, refuses, or has no queue yet.
   */
  static async open(text: string, options: QueueOptions): Promise<Queue> {
    const address = await queueAddress(text);
    const times = { ...FLEET_TIMES, ...options.times };
    const { log, role } = options;
    const boss = new PgBoss({
      connectionString: address.url,
      schema: SCHEMA,
      instanceName: options.name,
      max: options.connections ?? 4,
      // The listener wakes free lanes at once; it holds a connection of its own.
      useListenNotify: role === 'worker',
      supervise: role !== 'look',
      schedule: role === 'worker',
      migrate: role !== 'look',
      superviseIntervalSeconds: times.superviseSeconds,
      monitorIntervalSeconds: times.superviseSeconds,
      // A first night has tens of thousands of jobs; that is no reason to warn.
      warningQueueSize: 1_000_000,
      connectionTimeoutMillis: 10_000,
      registerInstance: role !== 'look',
      instanceHeartbeatSeconds: Math.max(10, Math.floor(times.heartbeatSeconds / 2)),
    });
    let lastTold = '';
    boss.on('error', (error) => {
      const told = queueError(error, address).message;
      // an outage would tell the same with each poll of each lane
      if (told !== lastTold) log.warn('queue', { error: told });
      lastTold = told;
    });
    boss.on('warning', ({ message }) => log.debug('queue', { warning: printable(message) }));
    const queue = new Queue(boss, address, times, options.name);
    try {
      await boss.start();
      if (role !== 'look') await queue.#prepare();
      return queue;
    } catch (error) {
      await boss.stop({ graceful: false }).catch(() => {});
      if (/pg-boss is not installed|not installed/i.test((error as Error).message))
        throw new PortError('QUEUE', `the queue ${address.shown}: nothing was submitted to it yet`, {
          hint: 'the first `port-image worker` or `port-image submit` makes it',
        });
      throw queueError(error, address);
    }
  }

  /** Makes the parts, and brings them to today's settings. */
  async #prepare(): Promise<void> {
    const { heartbeatSeconds, retrySeconds, retryMostSeconds } = this.times;
    const keep = { retentionSeconds: KEEP_DAYS * DAY_SECONDS, deleteAfterSeconds: KEEP_DAYS * DAY_SECONDS };
    for (const kind of KINDS) {
      await this.boss.createQueue(DEAD[kind], keep);
      const settings = {
        ...keep,
        retryLimit: RETURNS,
        retryDelay: retrySeconds,
        retryBackoff: true,
        retryDelayMax: retryMostSeconds,
        heartbeatSeconds,
        expireInSeconds: EXPIRE_SECONDS,
        deadLetter: DEAD[kind],
        notify: true,
      };
      // exclusive: one job of a key waits or runs, never two
      await this.boss.createQueue(PARTS[kind], { ...settings, policy: 'exclusive' });
      await this.boss.updateQueue(PARTS[kind], settings);
    }
    // A run's file must outlive the jobs and dead letters that point to it.
    const longer = 2 * KEEP_DAYS * DAY_SECONDS;
    await this.boss.createQueue(PARTS.run, { retentionSeconds: longer, deleteAfterSeconds: longer });
    await this.boss.createQueue(PARTS.host, { retentionSeconds: KEEP_DAYS * DAY_SECONDS });
  }

  /** One line for an error of the queue. */
  error(error: unknown, doing?: string): PortError {
    return queueError(error, this.address, doing);
  }

  /** Whether a worker is alive. */
  async hasWorkers(): Promise<boolean> {
    const [hosts, instances] = await Promise.all([
      this.boss.findJobs(PARTS.host, { queued: true }),
      this.boss.getInstances(),
    ]);
    return hosts.some(({ data }) => {
      const host = HostData.safeParse(data);
      return host.success && instances.some((i) => isHost(i, host.data));
    });
  }

  /** Ends the connections; what still runs in this process is given up. Never throws. */
  async close(): Promise<void> {
    await this.boss.stop({ graceful: false }).catch(() => {});
  }
}

/** Whether a program connected to the queue is this worker, and alive. */
export function isHost({ live, name, pid }: Instance, host: HostData): boolean {
  return live && name === host.name && pid === host.pid;
}
