/** Writers by what the disk travels in. Each fills a file that exists, is empty and private. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { PortError } from '../../core/errors.ts';
import { GIB, MIB } from '../../core/sizes.ts';
import type { ArtifactMember } from '../../core/types.ts';
import { writeGceTar } from '../../tools/gce-tar.ts';
import { guestOsOf } from '../../tools/ova/guest-os.ts';
import { type OvaSource, ovaBase, writeOva } from '../../tools/ova/write.ts';
import * as qemuImg from '../../tools/qemu-img.ts';
import { exportDisk } from '../../tools/qemu-storage-daemon.ts';
import type { EncodeJob } from './job.ts';
import type { Output } from './plan.ts';
import type { PaddedDisk, PaddedDisks } from './source.ts';

/** A disk inside the written file. */
export interface WrittenDisk {
  source: PaddedDisk;
  /** Its name in a container that holds several. */
  member?: ArtifactMember;
}

/** Writes one file and tells which disks are in it, that of the system first. */
export type Writer = (
  job: EncodeJob,
  output: Output,
  padded: PaddedDisks,
  target: string,
) => Promise<WrittenDisk[]>;

/** vSphere 6.5's limits (hardware version 13), and what a machine gets that nobody described. */
const CPUS = { most: 128, usual: 2 } as const;
const MEMORY_BYTES = { least: 256 * MIB, most: 6128 * GIB, usual: 2 * GIB } as const;

async function sourceOf(job: EncodeJob, output: Output, padded: PaddedDisks): Promise<PaddedDisk> {
  const disk = job.disks.find((d) => (d.boots ? undefined : d.id) === output.disk);
  if (disk === undefined) throw new PortError('BUG', `no work disk for ${output.file}`);
  return padded.of(disk, output.alignBytes);
}

async function convert(
  job: EncodeJob,
  output: Output,
  source: PaddedDisk,
  target: string,
  text: string,
): Promise<void> {
  await qemuImg.convert(
    source,
    { path: target, format: output.format },
    {
      signal: job.signal,
      log: job.log,
      compress: output.compress,
      formatOptions: output.formatOptions,
      onProgress: (doneBytes, totalBytes) => job.progress({ text, doneBytes, totalBytes }),
    },
  );
}

const plain: Writer = async (job, output, padded, target) => {
  const source = await sourceOf(job, output, padded);
  await convert(job, output, source, target, `writing ${output.file}`);
  return [{ source }];
};

const gceTar: Writer = async (job, output, padded, target) => {
  const { signal, log, scratch } = job;
  const source = await sourceOf(job, output, padded);
  const totalBytes = await populated(job, source);
  // tar reads the disk through FUSE: a raw copy would cost its size once more
  const disk = await exportDisk(source, scratch, { signal, log });
  try {
    await writeGceTar(path.dirname(disk.path), target, {
      signal,
      tmp: scratch,
      onBytes: (doneBytes) => job.progress({ text: `writing ${output.file}`, doneBytes, totalBytes }),
    });
  } finally {
    await disk.stop();
  }
  return [{ source }];
};

const ova: Writer = async (job, output, padded, target) => {
  const { facts, signal, request } = job;
  const folder = await fs.mkdtemp(path.join(job.scratch, 'ova-'));
  try {
    const written: WrittenDisk[] = [];
    const disks: OvaSource[] = [];
    for (const [n, disk] of job.disks.entries()) {
      const source = await padded.of(disk, output.alignBytes);
      // the VMDK names itself inside: its file has its final name from the start
      const name = `${ovaBase(request.name)}-disk${n + 1}.vmdk`;
      const file = path.join(folder, name);
      await (await fs.open(file, 'wx', 0o600)).close();
      await convert(job, output, source, file, `writing ${output.file}, disk ${n + 1}`);
      const { virtualBytes } = source;
      disks.push({ path: file, virtualBytes, populatedBytes: await populated(job, source) });
      written.push({
        source,
        member: { name, virtualBytes, ...(disk.boots ? {} : { disk: disk.id }) },
      });
    }
    const { hardware, inventory, os } = facts;
    const cpus = hardware?.cpus ?? inventory?.cpus ?? CPUS.usual;
    const memoryBytes = hardware?.memoryBytes ?? inventory?.memoryBytes ?? MEMORY_BYTES.usual;
    await writeOva(
      target,
      {
        name: request.name,
        os: { ...guestOsOf(os), title: os.productName },
        firmware: facts.firmware,
        cpus: Math.max(1, Math.min(CPUS.most, cpus)),
        memoryBytes: Math.max(MEMORY_BYTES.least, Math.min(MEMORY_BYTES.most, memoryBytes)),
      },
      disks,
      {
        signal,
        onBytes: (doneBytes, totalBytes) =>
          job.progress({ text: `putting ${output.file} together`, doneBytes, totalBytes }),
      },
    );
    return written;
  } finally {
    await fs.rm(folder, { recursive: true, force: true });
  }
};

/** Bytes of the disk that hold data. */
async function populated(job: EncodeJob, source: PaddedDisk): Promise<number> {
  const extents = await qemuImg.map(source, { signal: job.signal, log: job.log });
  return extents.reduce((sum, e) => sum + (e.data ? e.lengthBytes : 0), 0);
}

/** Writers by container; a plain file has none. */
export const writers: Readonly<Record<NonNullable<Output['container']> | 'none', Writer>> = {
  none: plain,
  'gce-tar': gceTar,
  ova,
};
