/**
 * A worker as a process of its own, for tests that kill one: `node fleet-worker.ts` with FLEET_QUEUE, FLEET_NAME and
 * FLEET_STORE set. Its work is real and small: it makes an image's content, puts it into a store and reads it back. It says
 * `begins KEY` and `done KEY` on stdout.
 */
import { createHash } from 'node:crypto';
import { PortError } from '../../core/errors.ts';
import { makeLog } from '../../core/log.ts';
import { pause } from '../../core/pause.ts';
import { SyncConfig } from '../../core/sync/config.ts';
import { openStore } from '../../drivers/stores/index.ts';
import { Queue } from '../../pipeline/sync/fleet/queue.ts';
import { type FleetContext, runWorker } from '../../pipeline/sync/fleet/worker.ts';
import type { SyncFile, SyncTask, TaskResult } from '../../pipeline/sync/perform-types.ts';

/** Short times: pg-boss allows no heartbeat below ten seconds. */
export const QUICK_TIMES = {
  heartbeatSeconds: 10,
  superviseSeconds: 1,
  pollSeconds: 0.5,
  retrySeconds: 1,
  retryMostSeconds: 2,
};

const BLOCK_BYTES = 64 * 1024;
const BLOCKS = 20;

/** Content of an image: the same wherever it is made. */
export function* contentOf(series: string, version: string): Generator<Buffer> {
  for (let block = 0; block < BLOCKS; block++)
    yield Buffer.alloc(BLOCK_BYTES, createHash('sha256').update(`${series} ${version} ${block}`).digest());
}

/** Text of a sync file is JSON here, which is YAML too. */
export function parseFile(text: string, file: string): SyncFile {
  return { path: file, text, config: SyncConfig.parse(JSON.parse(text)) };
}

/** A performer that writes below a store; `slowMs` is the pause after each block. */
export function storePerformer(url: string, slowMs: number, say: (line: string) => void = () => {}) {
  const tried = new Set<string>();
  return async (task: SyncTask, _file: SyncFile, ctx: FleetContext): Promise<TaskResult> => {
    const { action } = task;
    const key = `${action.target}/${action.series}/${action.version}`;
    say(`begins ${key}`);
    if (action.series.startsWith('refused'))
      throw new PortError('CLOUD_REFUSED', 'the quota is used up', { hint: 'ask for more' });
    if (action.series.startsWith('flaky') && !tried.has(key)) {
      tried.add(key);
      throw new PortError('CLOUD', '503 for now', { temporary: true });
    }
    const store = openStore(url, { signal: ctx.signal });
    const put = await store.put(key, async function* () {
      for (const block of contentOf(action.series, action.version)) {
        await pause(slowMs, ctx.signal);
        yield block;
      }
    });
    await store.close?.();
    say(`done ${key}`);
    return {
      outcome: {
        action,
        result: put.kept === true ? 'adopted' : 'done',
        ref: put.sha256,
        method: 'put',
        sentBytes: put.kept === true ? 0 : put.bytes,
        changedBytes: put.bytes,
        dataBytes: put.bytes,
        receivedBytes: 0,
        seconds: 0,
        attempts: 1,
      },
      dataSets: [],
    };
  };
}

const { FLEET_QUEUE, FLEET_NAME, FLEET_STORE, FLEET_LANES, FLEET_SLOW_MS } = process.env;
if (FLEET_QUEUE !== undefined && process.argv[1] === import.meta.filename) {
  const name = FLEET_NAME ?? 'worker';
  const stop = new AbortController();
  process.once('SIGTERM', () => stop.abort());
  const log = makeLog((level, text, fields) => {
    if (level === 'warn') process.stderr.write(`${name}: ${text} ${JSON.stringify(fields)}\n`);
  });
  const lanes = Number(FLEET_LANES ?? 2);
  const queue = await Queue.open(FLEET_QUEUE, { log, name, role: 'worker', times: QUICK_TIMES });
  const say = (line: string) => process.stdout.write(`${line}\n`);
  await runWorker({
    queue,
    lanes,
    name,
    parse: parseFile,
    perform: storePerformer(`file:${FLEET_STORE}`, Number(FLEET_SLOW_MS ?? 50), say),
    signal: stop.signal,
    log,
    warn: (text) => log.warn(text),
    onJob: (line) => say(`# ${line}`),
  });
  await queue.close();
  process.exit(0);
}
