/** capture: brings the source within reach or refuses it, and records what the work disk stands on. */
import * as z from 'zod';
import { PortError } from '../../core/errors.ts';
import { requireFreeSpace } from '../../core/files.ts';
import { CaptureOptions, Request } from '../../core/request.ts';
import { formatBytes, GIB } from '../../core/sizes.ts';
import { parseSource } from '../../core/source.ts';
import type { Stage, StageContext } from '../../core/stage.ts';
import { printable } from '../../core/text.ts';
import type { CapturedDisk, CaptureResult, Consistency } from '../../core/types.ts';
import type { CaptureContext } from './context.ts';
import {
  changesOf,
  closePlans,
  type FilePlan,
  gatedDisk,
  hardwareOf,
  planFetched,
  planFile,
  takeFile,
} from './files.ts';
import { captureLive, isEnough, type LiveOptions, type LiveSource } from './live.ts';
import { isLive, type LiveKind, openLiveSource } from './live-sources.ts';
import { type CaptureState, lastPass, readState } from './state.ts';

export { gate } from './gate.ts';
export { readState } from './state.ts';

const Options = z.object({
  source: Request.shape.source,
  moreSources: Request.shape.moreSources,
  disks: Request.shape.disks,
  format: Request.shape.format,
  capture: CaptureOptions,
});

/** The overlay holds new packages and initramfs files, and the metadata of what is trimmed. */
const OVERLAY_BYTES = GIB;

/** What is going to happen. */
export interface CapturePlan {
  /** True when the source has to be copied into the job before anything else can be planned. */
  copies: boolean;
  files: FilePlan[];
}

async function planFiles(ctx: CaptureContext): Promise<FilePlan[]> {
  const plans: FilePlan[] = [];
  for (const text of [ctx.request.source, ...ctx.request.moreSources]) {
    const source = parseSource(text);
    if (isLive(source)) {
      throw new PortError('USAGE', `${printable(text)} cannot be combined with other sources`, {
        hint: 'name all devices in one source: ssh://host/dev/sda,/dev/sdb',
      });
    }
    const id = `disk${plans.length}`;
    plans.push(
      await (source.kind === 'path' ? planFile(ctx, source.path, id) : planFetched(ctx, source, id)),
    );
  }
  return plans;
}

/** Shows what a live source is, without copying. */
async function planLive(ctx: StageContext, source: LiveKind): Promise<void> {
  const state = await readState(ctx.paths.capture, ctx.request.source);
  const live = await openLiveSource(ctx, source);
  try {
    for (const { id, device, sizeBytes } of wantedDisks(ctx, live)) {
      const before = lastPass(state, id);
      const known = before === undefined ? '' : `, pass ${before.number} is here`;
      ctx.change({
        path: `capture/${id}.raw`,
        action: before === undefined ? 'create' : 'edit',
        why: `copy of ${device} of ${live.name}, ${formatBytes(sizeBytes)}${known}; is ${await live.consistency()} now`,
      });
    }
  } finally {
    await live.close();
  }
}

async function plan(ctx: StageContext): Promise<CapturePlan> {
  const { request, paths } = ctx;
  ctx.progress({ text: 'checking the source' });
  await requireFreeSpace(paths.dir, OVERLAY_BYTES, 'the work disk');
  const source = parseSource(request.source);
  if (isLive(source) && request.moreSources.length === 0) {
    const isHere = isFinished(ctx, await readState(paths.capture, request.source));
    if (!isHere) await planLive(ctx, source);
    return { copies: !isHere, files: [] };
  }
  const files = await planFiles(ctx);
  const changes = files.flatMap(changesOf);
  for (const change of changes) ctx.change(change);
  return { copies: changes.length > 0, files };
}

/** Disks that are not to be skipped. Throws USAGE when a name is no disk of the source. */
function wantedDisks<D extends { id: string }>(
  ctx: CaptureContext,
  source: { disks: readonly D[] },
  skipped: readonly string[] = [],
): D[] {
  const ids = [...source.disks.map((d) => d.id), ...skipped];
  const unknown = Object.keys(ctx.request.disks).find((id) => !ids.includes(id));
  if (unknown !== undefined) {
    throw new PortError('USAGE', `--disk: the source has no disk ${printable(unknown)}`, {
      hint: `it has ${ids.map(printable).join(', ')}`,
    });
  }
  const wanted = source.disks.filter((d) => ctx.request.disks[d.id] !== 'skip');
  if (wanted.length > 0) return wanted;
  throw new PortError('USAGE', 'all disks of the source are to be skipped', {
    hint: 'leave one out of --disk',
  });
}

async function copiedDisks(ctx: CaptureContext, state: CaptureState): Promise<CapturedDisk[]> {
  return Promise.all(
    state.disks.map(async ({ id }) => {
      const file = `${ctx.paths.capture}/${id}.raw`;
      const badRanges = lastPass(state, id)?.badRanges ?? [];
      return { ...(await gatedDisk(ctx, file, { id, copied: true, format: 'raw' })), badRanges };
    }),
  );
}

/** The least of what its disks are. */
function consistencyOf(state: CaptureState): Consistency {
  const last = state.disks.map(({ id }) => lastPass(state, id));
  const weak = last.find((p) => p === undefined || !isEnough(p.consistency));
  if (weak !== undefined || last.length === 0) return 'live';
  return last[0]?.consistency ?? 'live';
}

async function resultOf(ctx: CaptureContext, state: CaptureState): Promise<CaptureResult> {
  const { passes, inventory } = state;
  return {
    disks: await copiedDisks(ctx, state),
    consistency: consistencyOf(state),
    passes,
    ...(inventory === undefined ? {} : { inventory }),
  };
}

async function takeLive(ctx: CaptureContext, source: LiveKind, options: LiveOptions): Promise<CaptureResult> {
  const before = await readState(ctx.paths.capture, ctx.request.source);
  const live: LiveSource = await openLiveSource(ctx, source);
  try {
    const disks = wantedDisks(ctx, live);
    const state = await captureLive(ctx, live, disks, before, options);
    return await resultOf(ctx, state);
  } finally {
    await live.close();
  }
}

/** Whether a last pass was made over every disk that is wanted now, and nothing was changed after it. */
function isFinished(ctx: CaptureContext, state: CaptureState | undefined): state is CaptureState {
  if (state === undefined || state.underWay === true) return false;
  // a copy that may be torn is for those who said so; for others the source is asked to hold still now
  if (!isEnough(consistencyOf(state)) && ctx.request.capture.freeze !== 'none') return false;
  const skipped = (state.skipped ?? []).map((id) => ({ id }));
  const wanted = wantedDisks(ctx, { disks: [...state.disks, ...skipped] });
  return wanted.every(
    ({ id }) => state.disks.some((d) => d.id === id) && lastPass(state, id)?.final === true,
  );
}

/** What an earlier `port-image capture --final` left is taken as it is: the source need not be there any more. */
async function finishedCopy(ctx: CaptureContext): Promise<CaptureResult | undefined> {
  const state = await readState(ctx.paths.capture, ctx.request.source);
  if (!isFinished(ctx, state)) return undefined;
  const result = await resultOf(ctx, { ...state, disks: wantedDisks(ctx, state, state.skipped) });
  if (!isEnough(result.consistency)) {
    ctx.warn('the source was in use while it was copied and did not stand still: the copy may be torn');
  }
  return result;
}

/**
 * Brings a source within reach. Throws what the gate, the readers of packages, downloads and live captures throw, and
 * LIVE_SOURCE when the copy is torn and nobody asked for that.
 */
export async function captureSource(ctx: CaptureContext, options: LiveOptions): Promise<CaptureResult> {
  const source = parseSource(ctx.request.source);
  if (isLive(source) && ctx.request.moreSources.length === 0) return takeLive(ctx, source, options);
  const files = await planFiles(ctx);
  await options.beforeWriting?.();
  return takeFiles(ctx, files);
}

async function takeFiles(ctx: CaptureContext, files: readonly FilePlan[]): Promise<CaptureResult> {
  const disks: CapturedDisk[] = [];
  try {
    for (const file of files) disks.push(...(await takeFile(ctx, file)));
  } finally {
    await closePlans(files);
  }
  const hardware = files.map(hardwareOf).find((h) => h !== undefined);
  return {
    disks: wantedDisks(ctx, { disks: uniqueIds(disks) }),
    consistency: 'offline',
    ...(hardware === undefined ? {} : { hardware }),
  };
}

/** Two packages may both have a `disk0`. */
function uniqueIds(disks: readonly CapturedDisk[]): CapturedDisk[] {
  const unique = new Set(disks.map((d) => d.id)).size === disks.length;
  return unique ? [...disks] : disks.map((disk, i) => ({ ...disk, id: `disk${i}` }));
}

async function run(ctx: StageContext, planned: CapturePlan): Promise<CaptureResult> {
  const source = parseSource(ctx.request.source);
  const result =
    planned.files.length > 0
      ? await takeFiles(ctx, planned.files)
      : isLive(source)
        ? ((await finishedCopy(ctx)) ?? (await takeLive(ctx, source, { final: true })))
        : undefined;
  if (result === undefined) throw new PortError('BUG', 'nothing was planned');
  for (const { path, format, virtualBytes } of result.disks) {
    ctx.log.info('source captured', { path, format, virtualBytes, consistency: result.consistency });
  }
  return result;
}

/** Brings the source within reach and names it for the overlay. Result: a CaptureResult. */
export const stage: Stage<CapturePlan, CaptureResult> = {
  name: 'capture',
  summary: 'check the source, copy or unpack it when it cannot be used where it is, never write to it',
  needs: [],
  inGuest: false,
  Options,
  plan,
  run,
};
