/** Sources that are files: used in place, or unpacked or fetched into the job first. Every one passes the gate. */

import { PortError } from '../../core/errors.ts';
import type { SourceFormat } from '../../core/request.ts';
import { formatBytes } from '../../core/sizes.ts';
import type { Change } from '../../core/stage.ts';
import { printable } from '../../core/text.ts';
import type { CapturedDisk } from '../../core/types.ts';
import { inspectImageFile } from '../../tools/image-format/index.ts';
import { type PackedPlan, packedKind, planPacked, unpack } from '../../tools/packed/index.ts';
import type { CaptureContext } from './context.ts';
import { gate } from './gate.ts';

/** A source that is a file, looked at. */
export type FilePlan = { kind: 'image'; disk: CapturedDisk } | { kind: 'packed'; plan: PackedPlan };

/** What taking the file will write into the job. */
export function changesOf(planned: FilePlan): Omit<Change, 'stage'>[] {
  if (planned.kind === 'image') return [];
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

/** Looks at a file; unpacks nothing. Throws what the gate and the readers of packages throw. */
export async function planFile(ctx: CaptureContext, file: string, id: string): Promise<FilePlan> {
  const { format } = ctx.request;
  // a format that was named is never overruled by content
  const packed = format === undefined ? await packedKind(file) : undefined;
  if (packed === undefined) {
    return { kind: 'image', disk: await gatedDisk(ctx, file, { id, copied: false, format }) };
  }
  const plan = await planPacked(file, packed);
  for (const text of plan.warnings) ctx.warn(text);
  return { kind: 'packed', plan };
}

/** Makes the disks of a file available; what is unpacked lies in the capture folder. */
export async function takeFile(ctx: CaptureContext, planned: FilePlan): Promise<CapturedDisk[]> {
  if (planned.kind === 'image') {
    await requireUnchanged(planned.disk);
    return [planned.disk];
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
