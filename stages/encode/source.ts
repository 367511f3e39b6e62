/** The disk as a platform wants it: padded to its alignment, with the GPT made to fit. Nothing is copied. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { PortError } from '../../core/errors.ts';
import { MIB, roundUp } from '../../core/sizes.ts';
import { printable } from '../../core/text.ts';
import type { WorkDisk } from '../../core/work-disks.ts';
import { GPT_HEAD_BYTES, type GptPatch, growGpt } from '../../tools/gpt.ts';
import * as qemuImg from '../../tools/qemu-img.ts';
import { writeAt } from '../../tools/qemu-io.ts';
import type { EncodeJob } from './job.ts';

/** What is encoded, and compared with the result. */
export interface PaddedDisk extends qemuImg.ImageRef {
  virtualBytes: number;
}

/** Most bytes an overlay may hold: both ends of the disk, a cluster or two each. */
const MAX_CHANGED_BYTES = 4 * MIB;

/** Makes each padded disk once, however many outputs want it. */
export class PaddedDisks {
  readonly #made = new Map<string, Promise<PaddedDisk>>();
  readonly #job: EncodeJob;

  constructor(job: EncodeJob) {
    this.#job = job;
  }

  /**
   * The disk with a size that is a multiple of `alignBytes`: itself when it has one, otherwise a throw-away overlay on it.
   * Throws OUTPUT_DIFFERS when the overlay changed anything but the partition table's own sectors.
   */
  async of(disk: WorkDisk, alignBytes: number): Promise<PaddedDisk> {
    const { signal, log } = this.#job;
    const work = { path: disk.path, format: 'qcow2' };
    const { virtualBytes } = await qemuImg.info(work, { signal, log });
    const aligned = roundUp(virtualBytes, alignBytes);
    if (aligned === virtualBytes) return { ...work, virtualBytes };
    const key = `${disk.index}-${aligned}`;
    const made =
      this.#made.get(key) ?? pad(this.#job, disk, { ...work, virtualBytes }, aligned, `padded-${key}`);
    this.#made.set(key, made);
    return made;
  }
}

async function pad(
  job: EncodeJob,
  disk: WorkDisk,
  work: PaddedDisk,
  aligned: number,
  name: string,
): Promise<PaddedDisk> {
  const { signal, log, scratch } = job;
  const options = { signal, log };
  const padded = { path: path.join(scratch, `${name}.qcow2`), format: 'qcow2' };
  await qemuImg.createOverlay(work, padded.path, options);
  await qemuImg.grow(padded, aligned, options);
  const head = await readBytes(
    job,
    padded,
    { startBytes: 0, lengthBytes: Math.min(GPT_HEAD_BYTES, aligned) },
    name,
  );
  const growth = growGpt(head, aligned);
  if (growth.kind === 'unknown') {
    job.warn(
      `${printable(disk.id)}: the backup of its partition table stays where it was, because ${growth.why}; the first start on a larger disk may report that`,
    );
  }
  const patches = growth.kind === 'patches' ? growth.patches : [];
  for (const patch of patches) {
    const file = `${name}.patch`;
    await fs.writeFile(path.join(scratch, file), patch.data, { mode: 0o600 });
    await writeAt(padded, patch.offsetBytes, file, patch.data.length, options);
  }
  await proveOnly(job, work, { ...padded, virtualBytes: aligned }, patches, name);
  return { ...padded, virtualBytes: aligned };
}

/** Nothing but the patches may differ: everything the overlay stores is read and compared, byte by byte. */
async function proveOnly(
  job: EncodeJob,
  work: PaddedDisk,
  padded: PaddedDisk,
  patches: readonly GptPatch[],
  name: string,
): Promise<void> {
  const own = await qemuImg.ownData(padded, { signal: job.signal, log: job.log });
  const differs = (why: string) =>
    new PortError('OUTPUT_DIFFERS', `the padded disk is not the work disk and its partition table: ${why}`, {
      hint: 'check the disk and memory of this machine, then run again',
    });
  if (own.reduce((sum, e) => sum + e.lengthBytes, 0) > MAX_CHANGED_BYTES)
    throw differs('too much was written');
  for (const { offsetBytes, data } of patches) {
    const held = own.some(
      (e) => e.startBytes <= offsetBytes && offsetBytes + data.length <= e.startBytes + e.lengthBytes,
    );
    if (!held) throw differs(`nothing was written at ${offsetBytes}`);
  }
  for (const extent of own) {
    const found = await readBytes(job, padded, extent, name);
    const wanted = Buffer.alloc(extent.lengthBytes);
    const lengthBytes = Math.min(extent.lengthBytes, work.virtualBytes - extent.startBytes);
    if (lengthBytes > 0) (await readBytes(job, work, { ...extent, lengthBytes }, name)).copy(wanted);
    for (const { offsetBytes, data } of patches) {
      const at = offsetBytes - extent.startBytes;
      if (at >= 0 && at + data.length <= wanted.length) data.copy(wanted, at);
    }
    if (!found.equals(wanted)) throw differs(`at ${extent.startBytes}`);
  }
}

async function readBytes(
  job: EncodeJob,
  image: qemuImg.ImageRef,
  range: { startBytes: number; lengthBytes: number },
  name: string,
): Promise<Buffer> {
  const file = path.join(job.scratch, `${name}.part`);
  await qemuImg.readRange(image, range, file, { signal: job.signal, log: job.log });
  return fs.readFile(file);
}
