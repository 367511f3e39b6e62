/** Tells people how a run ended: a webhook, a program. Whatever goes wrong with it is a warning, never a failed run. */
import * as fs from 'node:fs/promises';
import { run } from '../../core/command.ts';
import { MINUTE_MS } from '../../core/durations.ts';
import { asPortError, PortError } from '../../core/errors.ts';
import type { NotifyConfig, SyncConfig } from '../../core/sync/config.ts';
import type { LeftOut, SyncContext, SyncOutcome, SyncReport } from '../../core/sync/types.ts';
import { printable } from '../../core/text.ts';
import { postJson } from '../../tools/webhook.ts';

/** Longest time a program may take. */
const COMMAND_MS = 5 * MINUTE_MS;
/** A URL is short; a file that is longer is something else. */
const URL_BYTES = 4096;
/** Receivers take little (Slack 40 kB, many less); the whole report is on the host that made it. */
const MOST_OUTCOMES = 50;
/** After a signal the process must be gone within seconds, but who waits for the report should still hear of it. */
const LAST_WORDS_MS = 5_000;

/** What is sent: the report without what takes much room, and with words for people. */
export interface Notification {
  schema: 'port-image/sync-notification/1';
  /** One line for people; the field receivers of chats show. */
  text: string;
  sync: string;
  run: string;
  host: string;
  startedAt: string;
  endedAt: string;
  seconds: number;
  exitStatus: number;
  interrupted: boolean;
  /** How many actions ended how. */
  results: Partial<Record<SyncOutcome['result'], number>>;
  sentBytes: number;
  /** What failed, was deferred or is not as planned; then what was done. At most 50. */
  outcomes: {
    verb: string;
    target: string;
    series: string;
    version: string;
    name: string;
    result: SyncOutcome['result'];
    code?: string | undefined;
    message?: string | undefined;
  }[];
  unreachable: { kind: string; name: string; code: string; message: string }[];
  /** At most 50. */
  leftOut: LeftOut[];
  failedDataSets: number;
  notes: string[];
}

/** Tells everybody whom the configuration names. Never throws. */
export async function notifyAll(
  config: Pick<SyncConfig, 'notify'>,
  report: SyncReport,
  ctx: SyncContext,
  env: NodeJS.ProcessEnv = process.env,
): Promise<void> {
  const wanted = config.notify.filter(({ on }) => isWanted(on, report));
  if (wanted.length === 0) return;
  const text = `${JSON.stringify(notificationOf(report))}\n`;
  // an interrupted run is told as well, though in less time
  const signal = ctx.signal.aborted ? AbortSignal.timeout(LAST_WORDS_MS) : ctx.signal;
  await Promise.all(
    wanted.map(async (one) => {
      try {
        await tell(one, text, signal, env);
        ctx.log.info('told', { by: one.webhook === undefined ? 'command' : 'webhook' });
      } catch (error) {
        const what = one.webhook === undefined ? 'the program of notify' : `the webhook ${one.webhook}`;
        ctx.warn(`${what} was not told: ${asPortError(error).message}`);
      }
    }),
  );
}

function isWanted(on: NotifyConfig['on'], report: SyncReport): boolean {
  const isFailure = report.exitStatus !== 0 || report.interrupted;
  if (on === 'always' || isFailure) return true;
  if (on === 'failure') return false;
  return (
    report.freedBytes > 0 ||
    report.outcomes.some(
      ({ action, result }) =>
        (result === 'done' && action.verb !== 'skip') || result === 'adopted' || result === 'changed',
    ) ||
    report.dataSets.some(({ result }) => result === 'done')
  );
}

const GRAVITY: readonly SyncOutcome['result'][] = ['failed', 'deferred', 'changed', 'done', 'adopted'];

/** The report as it is sent. */
export function notificationOf(report: SyncReport): Notification {
  const results: Notification['results'] = {};
  for (const { result } of report.outcomes) results[result] = (results[result] ?? 0) + 1;
  const told = report.outcomes
    .filter(({ result }) => result !== 'skipped')
    .sort((a, b) => GRAVITY.indexOf(a.result) - GRAVITY.indexOf(b.result));
  const sum = (list: readonly { sentBytes: number }[]) => list.reduce((all, one) => all + one.sentBytes, 0);
  return {
    schema: 'port-image/sync-notification/1',
    text: headline(report, results),
    sync: report.sync,
    run: report.run,
    host: report.host,
    startedAt: report.startedAt,
    endedAt: report.endedAt,
    seconds: report.seconds,
    exitStatus: report.exitStatus,
    interrupted: report.interrupted,
    results,
    sentBytes: sum(report.outcomes) + sum(report.dataSets),
    outcomes: told.slice(0, MOST_OUTCOMES).map(({ action, result, code, message }) => ({
      verb: action.verb,
      target: action.target,
      series: action.series,
      version: action.version,
      name: action.name,
      result,
      ...(code === undefined ? {} : { code }),
      ...(message === undefined ? {} : { message: message.slice(0, 500) }),
    })),
    unreachable: report.unreachable.map(({ kind, name, code, message }) => ({
      kind,
      name,
      code,
      message: message.slice(0, 500),
    })),
    leftOut: report.leftOut.slice(0, MOST_OUTCOMES).map((one) => ({
      ...one,
      message: one.message.slice(0, 500),
    })),
    failedDataSets: report.dataSets.filter(({ result }) => result === 'failed').length,
    notes: report.notes.slice(0, MOST_OUTCOMES),
  };
}

function headline(
  { sync, host, exitStatus, interrupted, unreachable, leftOut }: SyncReport,
  results: Notification['results'],
): string {
  const parts = Object.entries(results).map(([result, count]) => `${count} ${result}`);
  if (unreachable.length > 0) parts.push(`cannot be used: ${unreachable.map(({ name }) => name).join(', ')}`);
  if (leftOut.length > 0) parts.push(`${leftOut.length} left out`);
  const end = interrupted ? 'interrupted' : exitStatus === 0 ? 'in order' : `status ${exitStatus}`;
  return printable(`${sync} on ${host}: ${end}; ${parts.join(', ') || 'nothing to do'}`);
}

async function tell(
  { webhook, command }: NotifyConfig,
  text: string,
  signal: AbortSignal,
  env: NodeJS.ProcessEnv,
): Promise<void> {
  if (webhook !== undefined) await postJson(await referenced(webhook, env), text, { signal });
  const [program, ...args] = command ?? [];
  if (program !== undefined) await run(program, args, { input: text, timeoutMs: COMMAND_MS, signal });
}

/** What a reference refers to. Throws CONFIG, which names the reference and never the value. */
export async function referenced(reference: string, env: NodeJS.ProcessEnv): Promise<string> {
  const name = reference.slice(reference.indexOf(':') + 1);
  if (reference.startsWith('env:')) {
    const value = env[name]?.trim() ?? '';
    if (value === '') throw new PortError('CONFIG', `the variable ${name} is not set`);
    return value;
  }
  let text: string;
  try {
    const handle = await fs.open(name, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
    try {
      const stat = await handle.stat();
      if (!stat.isFile() || stat.size > URL_BYTES)
        throw new PortError('CONFIG', `${name} is not a file with one value`);
      text = (await handle.readFile('utf8')).trim();
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (error instanceof PortError) throw error;
    throw new PortError('CONFIG', `${name} cannot be read`, { cause: error });
  }
  if (text === '') throw new PortError('CONFIG', `${name} is empty`);
  return text;
}
