/** Sources that are files: used in place, or unpacked or fetched into the job first. Every one passes the gate. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';

import { asPortError, PortError } from '../../core/errors.ts';
import type { PackedMachine } from '../../core/packed-machine.ts';
import type { SourceFormat } from '../../core/request.ts';
import { formatBytes } from '../../core/sizes.ts';
import type { Change } from '../../core/stage.ts';
import { printable } from '../../core/text.ts';
import type { CapturedDisk } from '../../core/types.ts';
import { type FetchPlan, type FetchSource, fetchImage, planFetch } from '../../tools/fetch-image/index.ts';
import { inspectImageFile } from '../../tools/image-format/index.ts';
import { type PackedPlan, packedKind, planPacked, unpack } from '../../tools/packed/index.ts';
import type { CaptureContext } from './context.ts';
import { gate } from './gate.ts';

/** A source that is a file, looked at. */
export type FilePlan =
  | { kind: 'image'; disk: CapturedDisk }
  | { kind: 'packed'; plan: PackedPlan }
  | { kind: 'fetch'; id: string; plan: FetchPlan };

/** What taking the file will write into the job. */
export function changesOf(planned: FilePlan): Omit<Change, 'stage'>[] {
  if (planned.kind === 'image') return [];
  if (planned.kind === 'fetch') {
    const { name, facts } = planned.plan;
    const size = facts.sizeBytes === undefined ? '' : `, ${formatBytes(facts.sizeBytes)}`;
    return [{ path: `capture/${planned.id}.fetched`, action: 'create', why: `fetched from ${name}${size}` }];
  }
  return planned.plan.disks.map(({ id, name, declaredBytes }) => ({
    path: `capture/${id}`,
    action: 'create',
    why: `unpacked from ${printable(name)}${declaredBytes === undefined ? '' : `, ${formatBytes(declaredBytes)}`}`,
  }));
}

/** Lets an image file or device pass the gate, or refuses it. */
export async function gatedDisk(
  ctx: CaptureContext,
  file: string,
  disk: Pick<CapturedDisk, 'id' | 'copied'> & { format?: SourceFormat | undefined },
): Promise<CapturedDisk> {
  const image = await gate(file, {
    format: disk.format,
    tmp: ctx.paths.tmp,
    signal: ctx.signal,
    log: ctx.log,
    warn: (text) => ctx.warn(text),
  });
  const { path, format, fileBytes, virtualBytes, modifiedMs, isDevice } = image;
  const { id, copied } = disk;
  const use = ctx.request.disks[id];
  return {
    ...{ id, path, format, fileBytes, virtualBytes, modifiedMs, isDevice, copied },
    use: use === undefined || use === 'skip' ? 'system' : use,
    badRanges: [],
  };
}

/** Virtual hardware a package tells of; of one that is still to be fetched nothing is known. */
export function hardwareOf(planned: FilePlan): PackedMachine | undefined {
  return planned.kind === 'packed' ? planned.plan.machine : undefined;
}

/** Asks for an image that is elsewhere; fetches nothing. Throws SOURCE_REMOTE, CONFIG, USAGE. */
export async function planFetched(ctx: CaptureContext, source: FetchSource, id: string): Promise<FilePlan> {
  const plan = await planFetch(source, { checksum: ctx.request.capture.checksum, signal: ctx.signal });
  for (const text of plan.warnings) ctx.warn(text);
  return { kind: 'fetch', id, plan };
}

/** Ends the connections of plans. */
export async function closePlans(plans: readonly FilePlan[]): Promise<void> {
  for (const planned of plans) if (planned.kind === 'fetch') await planned.plan.origin.close();
}

/** Fetches an image; what arrived may be a package. */
async function fetched(ctx: CaptureContext, id: string, plan: FetchPlan, target: string): Promise<FilePlan> {
  await fetchImage(plan, target, {
    signal: ctx.signal,
    limitBytesPerSecond: ctx.request.capture.limitBytesPerSecond,
    onRetry: (error) => ctx.log.warn('fetching again', { message: error.message }),
    onProgress: (doneBytes, totalBytes) =>
      ctx.progress({
        text: `fetching ${plan.name}`,
        doneBytes,
        ...(totalBytes === undefined ? {} : { totalBytes }),
      }),
  });
  const planned = await planFile(ctx, target, id);
  const named = plan.diskFormat === 'vhd' ? 'vpc' : plan.diskFormat;
  if (planned.kind === 'image' && named !== undefined && planned.disk.format !== named) {
    throw new PortError(
      'FORMAT_AMBIGUOUS',
      `${plan.name} is called ${printable(named)} by its cloud and looks like ${planned.disk.format}`,
      { hint: 'say which it is with --format' },
    );
  }
  return planned;
}

/** Looks at a file; unpacks nothing. Throws what the gate and the readers of packages throw. */
export async function planFile(ctx: CaptureContext, file: string, id: string): Promise<FilePlan> {
  const { format } = ctx.request;
  // a format that was named is never overruled by content
  const packed = format === undefined ? await packedKind(file) : undefined;
  if (packed === undefined) {
    return { kind: 'image', disk: await gatedDisk(ctx, file, { id, copied: false, format }) };
  }
  const plan = await planPacked(file, packed, format);
  for (const text of plan.warnings) ctx.warn(text);
  return { kind: 'packed', plan };
}

/** Makes the disks of a file available; what is unpacked lies in the capture folder. */
export async function takeFile(ctx: CaptureContext, planned: FilePlan): Promise<CapturedDisk[]> {
  if (planned.kind === 'image') {
    await requireUnchanged(planned.disk);
    return [planned.disk];
  }
  if (planned.kind === 'fetch') {
    const target = path.join(ctx.paths.capture, `${planned.id}.fetched`);
    try {
      const arrived = await fetched(ctx, planned.id, planned.plan, target);
      const disks = await takeFile(ctx, arrived);
      return disks.map((disk) => ({ ...disk, copied: true }));
    } catch (error) {
      // what is refused is not kept; with another --format it might pass, and is not fetched again
      const known = asPortError(error);
      const isRefused = known.group === 'unsafe' || known.group === 'source';
      if (isRefused && known.code !== 'FORMAT_AMBIGUOUS') await fs.rm(target, { force: true });
      throw known;
    }
  }
  const { plan } = planned;
  const done = new Map<string, { doneBytes: number; totalBytes: number }>();
  const unpacked = await unpack(plan, ctx.paths.capture, {
    signal: ctx.signal,
    limits: { maxBytes: ctx.request.capture.maxBytes },
    onProgress: ({ id, doneBytes, totalBytes }) => {
      done.set(id, { doneBytes, totalBytes });
      ctx.progress({ text: `unpacking ${id}`, doneBytes, totalBytes });
    },
  });
  const disks: CapturedDisk[] = [];
  for (const { id, path, format } of unpacked)
    disks.push(await gatedDisk(ctx, path, { id, copied: true, format }));
  return disks;
}

/** Reads the header once more, so that what later stages stand on is what the plan saw. Throws SOURCE_CHANGED. */
async function requireUnchanged(disk: CapturedDisk): Promise<void> {
  const now = await inspectImageFile(disk.path, disk.format as SourceFormat);
  if (now.fileBytes === disk.fileBytes && now.modifiedMs === disk.modifiedMs) return;
  throw new PortError('SOURCE_CHANGED', `${printable(disk.path)} changed after it was checked`, {
    hint: 'shut the virtual machine down, or give a snapshot of the disk',
  });
}
