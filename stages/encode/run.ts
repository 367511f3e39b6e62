/** Writes one image: to a temporary name, checked, compared, summed, and only then under its own name. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { PortError } from '../../core/errors.ts';
import { fileDigests, fsyncPath, renameDurable, temporaryName, writeJson } from '../../core/files.ts';
import { roundUp } from '../../core/sizes.ts';
import type { StageContext } from '../../core/stage.ts';
import type { Artifact } from '../../core/types.ts';
import { PROGRAM_VERSION } from '../../core/version.ts';
import { workDisks } from '../../core/work-disks.ts';
import * as qemuImg from '../../tools/qemu-img.ts';
import type { Output } from './plan.ts';

/** Removes what a killed run left: temporary names of this output. */
async function removeLeftovers(dir: string, file: string): Promise<void> {
  const names = await fs.readdir(dir);
  const stale = names.filter((name) => name.startsWith(`.${file}.`) && name.endsWith('.tmp'));
  await Promise.all(stale.map((name) => fs.rm(path.join(dir, name), { force: true })));
}

/** The bytes of the file and, beside it, that it shows what the work disk shows. Throws OUTPUT_DIFFERS. */
async function prove(
  ctx: StageContext,
  work: qemuImg.ImageRef,
  image: qemuImg.ImageRef,
  name: string,
): Promise<void> {
  const options = { signal: ctx.signal, log: ctx.log };
  const checked = await qemuImg.check(image, options);
  if (checked.corruptions > 0) {
    throw new PortError(
      'OUTPUT_DIFFERS',
      `${name}: qemu-img check found ${checked.corruptions} corruptions`,
      {
        hint: 'check the disk and memory of this machine, then run again',
      },
    );
  }
  if (!ctx.request.compare) return;
  const onProgress = (doneBytes: number, totalBytes: number) =>
    ctx.progress({ text: `comparing ${name}`, doneBytes, totalBytes });
  if (!(await qemuImg.compare(work, image, { ...options, onProgress }))) {
    throw new PortError('OUTPUT_DIFFERS', `${name} is not equal to the work disk`, {
      hint: 'check the disk and memory of this machine, then run again',
    });
  }
}

/** The disk to encode: the customised one when the user's commands ran on top of the work disk. */
function workDisk(ctx: StageContext, output: Output): { path: string; format: string } {
  const customized = ctx.result<{ disks: Record<string, string> }>('customize');
  const disk = workDisks(ctx.paths, ctx.facts).find((d) => (d.boots ? undefined : d.id) === output.disk);
  if (disk === undefined) throw new PortError('BUG', `no work disk for ${output.file}`);
  return { path: customized?.disks[disk.id] ?? disk.path, format: 'qcow2' };
}

async function writeImage(ctx: StageContext, output: Output, temporary: string): Promise<number> {
  const options = { signal: ctx.signal, log: ctx.log };
  const work = workDisk(ctx, output);
  const image = { path: temporary, format: output.format };
  // created by us first, so that the mode is private from the first byte on
  await (await fs.open(temporary, 'wx', 0o600)).close();
  await qemuImg.convert(work, image, {
    ...options,
    compress: output.compress,
    formatOptions: output.formatOptions,
    onProgress: (doneBytes, totalBytes) =>
      ctx.progress({ text: `writing ${output.file}`, doneBytes, totalBytes }),
  });
  const { virtualBytes } = await qemuImg.info(work, options);
  const aligned = roundUp(virtualBytes, output.alignBytes);
  if (aligned !== virtualBytes) await qemuImg.grow(image, aligned, options);
  await fsyncPath(temporary);
  return aligned;
}

/** Writes one output and its `.json`, and returns one artifact per platform that uses it. */
export async function encodeOutput(ctx: StageContext, output: Output): Promise<Artifact[]> {
  const target = path.join(ctx.paths.out, output.file);
  const temporary = temporaryName(target);
  await removeLeftovers(ctx.paths.out, output.file);
  try {
    const virtualBytes = await writeImage(ctx, output, temporary);
    const work = workDisk(ctx, output);
    // both read the same pages, one core each
    const [[sha256 = '', sha512 = '']] = await Promise.all([
      fileDigests(temporary, ['sha256', 'sha512'], ctx.signal),
      prove(ctx, work, { path: temporary, format: output.format }, output.file),
    ]);
    const { size: bytes } = await fs.stat(temporary);
    await renameDurable(temporary, target);
    await writeJson(`${target}.json`, {
      schema: 'port-image/artifact/1',
      file: output.file,
      ...(output.disk === undefined ? {} : { disk: output.disk }),
      platforms: output.platforms,
      format: output.format,
      options: output.formatOptions,
      bytes,
      virtualBytes,
      sha256,
      compared: ctx.request.compare,
      tool: `port-image ${PROGRAM_VERSION}`,
    });
    return output.platforms.map((platform) => ({
      platform,
      ...(output.disk === undefined ? {} : { disk: output.disk }),
      path: target,
      format: output.format,
      bytes,
      virtualBytes,
      sha256,
      sha512,
    }));
  } catch (error) {
    await fs.rm(temporary, { force: true });
    throw error;
  }
}
