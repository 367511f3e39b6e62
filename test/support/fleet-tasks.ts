/** Sync files and tasks for tests of the fleet. */
import { silentLog } from '../../core/log.ts';
import { type CarrierOptions, PgCarrier } from '../../pipeline/sync/fleet/carrier.ts';
import { Queue, type QueueOptions } from '../../pipeline/sync/fleet/queue.ts';
import type { SyncFile, SyncTask, TaskResult } from '../../pipeline/sync/perform-types.ts';
import { parseFile, QUICK_TIMES } from './fleet-worker.ts';

/** A sync with these targets and lanes. */
export function fileWith(lanes: Readonly<Record<string, number>>, sync = 'nightly'): SyncFile {
  const targets = Object.fromEntries(
    Object.entries(lanes).map(([name, count]) => [name, { platform: 'openstack', lanes: count }]),
  );
  const text = JSON.stringify({
    sync,
    sources: { images: { folder: { path: '/srv/images' } } },
    targets,
    limits: { attempts: 3 },
  });
  return parseFile(text, '/etc/port-image/sync.yaml');
}

/** A task that makes an image. */
export function taskFor(target: string, series: string, version = '1'): SyncTask {
  return {
    action: {
      verb: 'create',
      target,
      source: 'images',
      series,
      version,
      name: series,
      sourceRef: `${series}.qcow2`,
      targetRef: '',
      why: 'the target has no version of it',
      mostBytes: 1,
    },
    wantedDigest: 'wanted',
    carryData: false,
  };
}

/** Opens the queue with short times. */
export function openQueue(url: string, options: Partial<QueueOptions> = {}): Promise<Queue> {
  return Queue.open(url, { log: silentLog, name: 'test', role: 'run', times: QUICK_TIMES, ...options });
}

/** A carrier, and how often each task was told. */
export function carrierOf(queue: Queue, file: SyncFile, options: Partial<CarrierOptions> = {}) {
  const told: { task: SyncTask; result: TaskResult }[] = [];
  const warnings: string[] = [];
  const carrier = new PgCarrier({
    queue,
    file,
    run: '20260821T010000Z-ab12cd',
    signal: new AbortController().signal,
    log: silentLog,
    warn: (text) => warnings.push(text),
    ...options,
  });
  return {
    told,
    warnings,
    run: (tasks: readonly SyncTask[]) => carrier.run(tasks, (task, result) => told.push({ task, result })),
  };
}
