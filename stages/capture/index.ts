/** capture: lets the source through the gate and records what the work disk stands on. Nothing is copied. */
import * as z from 'zod';
import { PortError } from '../../core/errors.ts';
import { requireFreeSpace } from '../../core/files.ts';
import { Request } from '../../core/request.ts';
import { GIB } from '../../core/sizes.ts';
import type { Stage, StageContext } from '../../core/stage.ts';
import { printable } from '../../core/text.ts';
import type { CaptureResult } from '../../core/types.ts';
import { inspectImageFile } from '../../tools/image-format/index.ts';
import { gate } from './gate.ts';

export { gate } from './gate.ts';

const Options = z.object({ source: Request.shape.source, format: Request.shape.format });

/** The overlay holds new packages and initramfs files, and the metadata of what is trimmed. */
const OVERLAY_BYTES = GIB;

async function plan(ctx: StageContext): Promise<CaptureResult> {
  const { request, paths, signal, log } = ctx;
  ctx.progress({ text: 'checking the source' });
  const image = await gate(request.source, {
    format: request.format,
    tmp: paths.tmp,
    signal,
    log,
    warn: (text) => ctx.warn(text),
  });
  await requireFreeSpace(paths.dir, OVERLAY_BYTES, 'the work disk');
  const { path, format, fileBytes, virtualBytes, modifiedMs, isDevice } = image;
  return { path, format, fileBytes, virtualBytes, modifiedMs, isDevice };
}

/** Reads the header once more, so that what later stages stand on is what the plan saw. */
async function run(ctx: StageContext, planned: CaptureResult): Promise<CaptureResult> {
  const now = await inspectImageFile(planned.path, planned.format as Request['format']);
  if (now.fileBytes !== planned.fileBytes || now.modifiedMs !== planned.modifiedMs) {
    throw new PortError('SOURCE_CHANGED', `${printable(planned.path)} changed after it was checked`, {
      hint: 'shut the virtual machine down, or give a snapshot of the disk',
    });
  }
  ctx.log.info('source captured', {
    path: planned.path,
    format: planned.format,
    virtualBytes: planned.virtualBytes,
  });
  return planned;
}

/** Checks the source and names it for the overlay. Result: a CaptureResult. */
export const stage: Stage<CaptureResult, CaptureResult> = {
  name: 'capture',
  summary: 'check the source and fix what the work disk stands on; nothing is copied',
  needs: [],
  inGuest: false,
  Options,
  plan,
  run,
};
