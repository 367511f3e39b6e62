/** Capturing without a conversion: into a folder that a conversion takes up later, or that one has used before. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import type { PassRecord } from '../core/capture-pass.ts';
import { asPortError, PortError } from '../core/errors.ts';
import { exists, makeDir } from '../core/files.ts';
import type { JobPaths } from '../core/stage.ts';
import { printable } from '../core/text.ts';
import type { CaptureResult } from '../core/types.ts';
import type { CaptureRequest } from '../stages/capture/context.ts';
import { captureSource, readState } from '../stages/capture/index.ts';
import { detachStale } from '../tools/qemu-storage-daemon.ts';
import type { Listener } from './events.ts';
import { jobPaths, openJob, requireJobFolder } from './job.ts';
import { openJobLog } from './job-log.ts';
import { Journal } from './journal.ts';
import { lockFolder } from './lock.ts';

/** How to capture. */
export interface CaptureRunOptions {
  signal: AbortSignal;
  listener: Listener;
  /** Make the copy consistent with a last pass. */
  final: boolean;
  /** Passes before that. */
  passes?: number | undefined;
}

/** What `port-image capture --json` prints. */
export interface CaptureOutcome extends CaptureResult {
  job: string;
  source: string;
  /** Passes of this run; empty when the source was used in place, fetched or unpacked. */
  passes: PassRecord[];
  warnings: string[];
}

/** A folder that holds a job of another source is left alone. Throws JOB_MISMATCH. */
async function requireSameSource(paths: JobPaths, source: string): Promise<void> {
  if (!(await exists(paths.request))) return;
  const { request } = await openJob(paths.dir);
  if (request.source === source) return;
  throw new PortError('JOB_MISMATCH', `${printable(paths.dir)} is a job for ${printable(request.source)}`, {
    hint: 'choose another --job for this source',
  });
}

/** A copy that changes is no longer what a conversion in this folder was made from. */
async function forgetConversion(paths: JobPaths): Promise<void> {
  if (!(await exists(paths.request))) return;
  const journal = await Journal.open(paths.journal);
  try {
    for (const stage of journal.state().done.keys()) {
      await journal.append({ event: 'stage-invalidated', stage, why: 'the source was captured again' });
    }
  } finally {
    await journal.close();
  }
  // they stand on the copy that is about to change
  for (const name of await fs.readdir(paths.dir)) {
    if (/^work(-.*)?\.qcow2$/.test(name)) await fs.rm(path.join(paths.dir, name), { force: true });
  }
}

/** True when nothing of a source and no job is in the folder. */
async function holdsNothing(paths: JobPaths): Promise<boolean> {
  if (await exists(paths.request)) return false;
  return (await fs.readdir(paths.capture).catch(() => [])).length === 0;
}

/** Captures a source into a folder. Throws what the capture stage throws, and USAGE, JOB_LOCKED, JOB_MISMATCH, JOB_TAMPERED. */
export async function captureInto(
  folder: string,
  request: CaptureRequest,
  options: CaptureRunOptions,
): Promise<CaptureOutcome> {
  const paths = jobPaths(path.resolve(folder));
  // a folder of somebody else may have a `tmp` too, which is about to be removed
  await requireJobFolder(paths);
  const isNew = !(await exists(paths.dir));
  await makeDir(paths.dir);
  const unlock = await lockFolder(paths.dir);
  const warnings: string[] = [];
  let log: ReturnType<typeof openJobLog> | undefined;
  let failed: PortError | undefined;
  try {
    await detachStale(paths.tmp).catch(() => {});
    await fs.rm(paths.tmp, { recursive: true, force: true });
    for (const sub of [paths.capture, paths.logs, paths.tmp]) await makeDir(sub);
    log = openJobLog(paths.logs, { job: path.basename(paths.dir) });
    const before = (await readState(paths.capture, request.source))?.passes.length ?? 0;
    await requireSameSource(paths, request.source);
    const result = await captureSource(
      {
        request,
        paths,
        signal: options.signal,
        log,
        progress: (progress) => options.listener({ event: 'progress', stage: 'capture', progress }),
        warn: (text) => {
          if (warnings.includes(text)) return;
          warnings.push(text);
          options.listener({ event: 'warning', stage: 'capture', text });
        },
      },
      { final: options.final, passes: options.passes, beforeWriting: () => forgetConversion(paths) },
    );
    return {
      job: paths.dir,
      source: request.source,
      ...result,
      passes: result.passes?.slice(before) ?? [],
      warnings,
    };
  } catch (error) {
    const known = asPortError(
      options.signal.aborted ? new PortError('INTERRUPTED', 'interrupted', { cause: error }) : error,
    );
    log?.warn('capture failed', { code: known.code, message: known.message, stack: known.stack ?? '' });
    failed = known;
    throw known;
  } finally {
    await fs.rm(paths.tmp, { recursive: true, force: true }).catch(() => {});
    log?.close();
    // a refusal leaves nothing; the log of a bug is wanted
    const leavesNothing = failed !== undefined && failed.group !== 'bug' && (await holdsNothing(paths));
    if (leavesNothing) for (const sub of [paths.capture, paths.logs]) await fs.rm(sub, { recursive: true });
    await unlock();
    if (leavesNothing && isNew) await fs.rmdir(paths.dir).catch(() => {});
  }
}
