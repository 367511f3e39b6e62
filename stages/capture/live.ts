/** Copies disks that are somewhere else or in use into the job, in passes; the last one while the source holds still. */
import type { PassRecord } from '../../core/capture-pass.ts';
import type { ByteRange, DiskSource } from '../../core/disk-source.ts';
import { PortError } from '../../core/errors.ts';
import type { Inventory } from '../../core/inventory.ts';
import { formatBytes, formatSeconds } from '../../core/sizes.ts';
import { printable } from '../../core/text.ts';
import type { Consistency } from '../../core/types.ts';
import { allocationMap, type DiskState } from '../../tools/allocation/index.ts';
import { type DiskCopy, openDiskCopy } from '../../tools/disk-copy/index.ts';
import type { CaptureContext } from './context.ts';
import { requireSameDisks } from './identity.ts';
import { type PassResult, requireFewBad, runPass } from './pass.ts';
import { type CaptureState, lastPass, writeState } from './state.ts';

/** A disk of a live source. */
export interface LiveDisk {
  /** What `--disk` names: `sda`. */
  id: string;
  /** Where it is, for people and for the index of the copy. */
  device: string;
  sizeBytes: number;
  /** Opens it; again after the connection broke. */
  open(): Promise<DiskSource>;
}

/** The source holds still. */
export interface Hold {
  consistency: Consistency;
  /** UUIDs of the file systems that are frozen; absent when they are not all known. */
  frozen?: ReadonlySet<string> | undefined;
  /** Opens one of its disks, once, for the pass over it. */
  open(id: string): Promise<DiskSource>;
  /**
   * Lets it go on. Throws LIVE_SOURCE when it did not hold still until now. Returns for how many milliseconds its file
   * systems stood still; undefined when they did not have to.
   */
  release(): Promise<number | undefined>;
}

/** A source that is read through a connection. */
export interface LiveSource {
  /** `shop01`, for messages. */
  name: string;
  disks: readonly LiveDisk[];
  inventory: Inventory | undefined;
  /** What one pass over a source that nobody holds gives now; asked before and after a pass. */
  consistency(): Promise<Consistency>;
  /** True when its content cannot change: then it does not matter how often the connection broke. */
  immutable?: boolean;
  /** Makes the source hold still; absent when this kind of source cannot. */
  hold?(): Promise<Hold>;
  close(): Promise<void>;
}

/** How many passes, and whether the last one shall make the copy consistent. */
export interface LiveOptions {
  final: boolean;
  /** Passes before the final one; by default as many as make it short, at most three, and one when there is none. */
  passes?: number | undefined;
  /** Called when the source answered and fits, before the first byte of a copy changes. */
  beforeWriting?: (() => Promise<void>) | undefined;
}

/** Consistencies that need nothing more. */
const ENOUGH: readonly Consistency[] = ['offline', 'frozen', 'snapshot', 'crash-consistent'];
/** A pass that began longer ago than this is followed by another one before the source is held still. */
const FRESH_MS = 10 * 60_000;
const MOST_PASSES = 3;

interface Lane {
  disk: LiveDisk;
  copy: DiskCopy;
}

/** Whether a copy needs nothing more to be converted. */
export function isEnough(consistency: Consistency): boolean {
  return ENOUGH.includes(consistency);
}

/**
 * Copies disks of a source. What earlier runs brought is not brought again.
 * Throws SOURCE_REMOTE, BAD_SECTORS, LIVE_SOURCE, DISK_SPACE, JOB_MISMATCH, INTERRUPTED.
 */
export async function captureLive(
  ctx: CaptureContext,
  source: LiveSource,
  disks: readonly LiveDisk[],
  before: CaptureState | undefined,
  options: LiveOptions,
): Promise<CaptureState> {
  const state: CaptureState = {
    schema: 'port-image/capture/1',
    source: ctx.request.source,
    disks: disks.map(({ id, device, sizeBytes }) => ({ id, device, sizeBytes })),
    skipped: source.disks.filter((d) => !disks.includes(d)).map((d) => d.id),
    inventory: source.inventory ?? before?.inventory,
    passes: before?.passes ?? [],
    underWay: before?.underWay ?? false,
  };
  requireSameDisks(source.name, disks, before, source.inventory);
  await options.beforeWriting?.();
  const lanes: Lane[] = [];
  try {
    for (const disk of disks) {
      const identity = { sizeBytes: disk.sizeBytes, sourceId: `${ctx.request.source}\n${disk.device}` };
      lanes.push({ disk, copy: await openDiskCopy(ctx.paths.capture, disk.id, identity) });
    }
    await allPasses(ctx, source, lanes, state, options);
    return state;
  } finally {
    for (const { copy } of lanes) await copy.close();
  }
}

async function allPasses(
  ctx: CaptureContext,
  source: LiveSource,
  lanes: readonly Lane[],
  state: CaptureState,
  options: LiveOptions,
): Promise<void> {
  const found = await source.consistency();
  const limit = options.passes ?? (options.final ? MOST_PASSES : 1);
  for (let made = 0; made < limit; made++) {
    if (options.final && found === 'live' && !worthAnother(lanes, state, options)) break;
    const unbroken = await onePass(ctx, source, lanes, state, {
      final: false,
      state: found === 'live' ? 'live' : 'offline',
    });
    if (!isEnough(found) || (!unbroken && source.immutable !== true)) continue;
    // what was in use meanwhile, or read before and after a break, may be a mix of two moments
    const now = await source.consistency();
    if (now !== found) continue;
    markFinal(state, lanes, found);
    await writeState(ctx.paths.capture, state);
    return;
  }
  if (!options.final) return;
  await finalPass(ctx, source, lanes, state, found);
}

/** Whether a pass without holding still would leave the one that does less to send. */
function worthAnother(lanes: readonly Lane[], state: CaptureState, options: LiveOptions): boolean {
  const last = lanes.map(({ disk }) => lastPass(state, disk.id));
  if (options.passes !== undefined || last.some((p) => p === undefined)) return true;
  // what was written since the last pass read it
  const sinceMs = Date.now() - Math.min(...last.map((p) => Date.parse(p?.startedAt ?? '')));
  return sinceMs > FRESH_MS;
}

function markFinal(state: CaptureState, lanes: readonly Lane[], consistency: Consistency): void {
  for (const { disk } of lanes) {
    const pass = lastPass(state, disk.id);
    if (pass !== undefined) Object.assign(pass, { final: true, consistency });
  }
}

async function finalPass(
  ctx: CaptureContext,
  source: LiveSource,
  lanes: readonly Lane[],
  state: CaptureState,
  found: Consistency,
): Promise<void> {
  const { freeze, quiesce } = ctx.request.capture;
  if (freeze === 'none') {
    ctx.warn(
      `${source.name} was in use while it was read and its file systems were not frozen: the copy may be torn`,
    );
  }
  if (source.hold === undefined || (freeze === 'none' && quiesce === undefined)) {
    // no pass follows this one: file systems that were not closed cleanly are read whole
    const kind = { final: true, state: isEnough(found) ? 'offline' : 'unheld' } as const;
    const unbroken = await onePass(ctx, source, lanes, state, kind);
    const isOne = unbroken && isEnough(found) && (await source.consistency()) === found;
    if (!isOne && freeze !== 'none') {
      ctx.warn(
        `${source.name}: the connection broke in every pass: the copy may be a mix of several moments`,
      );
    }
    markFinal(state, lanes, isOne ? found : 'live');
    await writeState(ctx.paths.capture, state);
    return;
  }
  if (freeze !== 'none') refuseLongFreeze(ctx, lanes, state);
  ctx.progress({ text: `${source.name}: holding still` });
  const hold = await source.hold();
  let released: Promise<number | undefined> | undefined;
  try {
    // what nobody mounted was not frozen: its log may wait to be played back
    const frozen: DiskState = hold.frozen === undefined ? 'frozen' : { frozen: hold.frozen };
    const still = hold.consistency === 'frozen' ? frozen : 'unheld';
    await onePass(ctx, source, lanes, state, { final: true, state: still }, hold);
    released = hold.release();
    const frozenMs = await released;
    markFinal(state, lanes, hold.consistency);
    if (frozenMs !== undefined) {
      for (const { disk } of lanes) Object.assign(lastPass(state, disk.id) ?? {}, { frozenMs });
    }
    await writeState(ctx.paths.capture, state);
  } finally {
    // whatever went wrong, the server must go on
    if (released === undefined) await hold.release().catch(() => {});
  }
}

/** Reading takes at least as long as the last pass did for what is allocated now. */
function refuseLongFreeze(ctx: CaptureContext, lanes: readonly Lane[], state: CaptureState): void {
  const seconds = Math.max(0, ...lanes.map(({ disk }) => readSeconds(lastPass(state, disk.id))));
  const most = ctx.request.capture.maxFreezeSeconds;
  if (seconds <= most) return;
  throw new PortError(
    'LIVE_SOURCE',
    `the last pass would hold the source still for about ${formatSeconds(seconds)}, more than the ${formatSeconds(most)} that are allowed`,
    { hint: 'allow more with --max-freeze, or shut the services down and take it with --freeze none' },
  );
}

/** A pass that sends little is bound by reading: its own time is the best guess for the next. */
function readSeconds(pass: PassRecord | undefined): number {
  if (pass === undefined) return 0;
  const share = pass.allocatedBytes === 0 ? 1 : pass.sentBytes / pass.allocatedBytes;
  // sending costs about as much as reading; a first pass says too much
  return pass.seconds / (1 + share);
}

/** One pass over every disk at once. True when none of them was broken off or resumed. */
async function onePass(
  ctx: CaptureContext,
  source: LiveSource,
  lanes: readonly Lane[],
  state: CaptureState,
  kind: { final: boolean; state: DiskState },
  hold?: Hold,
): Promise<boolean> {
  // from here on the copy is none of what the last finished pass left
  state.underWay = true;
  await writeState(ctx.paths.capture, state);
  const done = new Map<string, { doneBytes: number; totalBytes: number }>();
  const number = Math.max(0, ...lanes.map(({ disk }) => lastPass(state, disk.id)?.number ?? 0)) + 1;
  const text = kind.final ? `last pass over ${source.name}` : `pass ${number} over ${source.name}`;
  // one that fails stops the others: their blocks are kept, and the next run goes on from there
  const stop = new AbortController();
  const signal = AbortSignal.any([ctx.signal, stop.signal]);
  const settled = await Promise.allSettled(
    lanes.map(async ({ disk, copy }): Promise<PassResult & { resumed: boolean }> => {
      const first = lastPass(state, disk.id) === undefined;
      const resumed = first && copy.presentBlocks > 0;
      try {
        const result = await runPass({
          open: () => hold?.open(disk.id) ?? disk.open(),
          copy,
          allocation: (opened) => rangesOf(ctx, opened, kind.state),
          pass: number,
          mode: first ? 'resume' : 'full',
          signal,
          limitBytesPerSecond: ctx.request.capture.limitBytesPerSecond,
          onProgress: (doneBytes, totalBytes) => {
            done.set(disk.id, { doneBytes, totalBytes });
            ctx.progress({ text, ...total(done.values()) });
          },
        });
        return { ...result, resumed };
      } catch (error) {
        stop.abort();
        throw error;
      }
    }),
  );
  const failures = settled.flatMap((s) => (s.status === 'rejected' ? [s.reason as unknown] : []));
  const cause = failures.find((f) => !(f instanceof PortError && f.code === 'INTERRUPTED')) ?? failures[0];
  if (cause !== undefined) throw cause;
  let unbroken = true;
  for (const [i, entry] of settled.entries()) {
    const lane = lanes[i];
    if (entry.status !== 'fulfilled' || lane === undefined) continue;
    const { resumed, ...result } = entry.value;
    unbroken &&= !resumed && result.reconnects === 0;
    // whether it is the last one is known when the source held still until its end, and enough of it could be read
    state.passes.push({ ...recordOf(result), disk: lane.disk.id, final: false, consistency: 'live' });
    reportBad(ctx, lane, result.badRanges);
  }
  state.underWay = false;
  await writeState(ctx.paths.capture, state);
  for (const { disk } of lanes) {
    requireFewBad(disk.device, lastPass(state, disk.id)?.badRanges ?? [], ctx.request.capture.allowBad);
  }
  return unbroken;
}

function recordOf(result: PassResult): Omit<PassRecord, 'disk' | 'final' | 'consistency'> {
  const { pass, readBlocks: _read, ...rest } = result;
  return { number: pass, ...rest };
}

function total(values: Iterable<{ doneBytes: number; totalBytes: number }>): {
  doneBytes: number;
  totalBytes: number;
} {
  const sum = { doneBytes: 0, totalBytes: 0 };
  for (const { doneBytes, totalBytes } of values) {
    sum.doneBytes += doneBytes;
    sum.totalBytes += totalBytes;
  }
  return sum;
}

function reportBad(ctx: CaptureContext, lane: Lane, bad: readonly ByteRange[]): void {
  if (bad.length === 0) return;
  const bytes = bad.reduce((sum, r) => sum + r.lengthBytes, 0);
  const places = bad.slice(0, 3).map((r) => `${r.startBytes}+${r.lengthBytes}`);
  ctx.warn(
    `${printable(lane.disk.device)}: ${formatBytes(bytes)} in ${bad.length} places cannot be read (${places.join(', ')}${bad.length > 3 ? ', …' : ''})`,
  );
}

async function rangesOf(
  ctx: CaptureContext,
  disk: DiskSource,
  state: DiskState,
): Promise<{ ranges: ByteRange[] }> {
  const map = await allocationMap(disk, { signal: ctx.signal, state });
  for (const part of map.parts) if (part.note !== undefined) ctx.log.info('allocation', { ...part });
  return map;
}
