/** Reads a written file back and compares what it shows with what was to be written. */
import { PortError } from '../../core/errors.ts';
import type { Artifact } from '../../core/types.ts';
import { diskOf } from '../../tools/container-disk.ts';
import { GCE_MEMBER, listGceTar } from '../../tools/gce-tar.ts';
import * as qemuImg from '../../tools/qemu-img.ts';
import { vhdFaults } from '../../tools/vhd-footer.ts';
import type { WrittenDisk } from './containers.ts';
import type { EncodeJob } from './job.ts';
import type { Output } from './plan.ts';

const AGAIN = { hint: 'check the disk and memory of this machine, then run again' };

/** Throws OUTPUT_DIFFERS when the file is not well formed, or shows another disk than `disks`. */
export async function prove(
  job: EncodeJob,
  output: Output,
  file: string,
  disks: readonly WrittenDisk[],
): Promise<void> {
  const artifact: Pick<Artifact, 'path' | 'format' | 'container'> = {
    path: file,
    format: output.format,
    ...(output.container === undefined ? {} : { container: output.container }),
  };
  if (output.container === 'gce-tar' && !job.request.compare) await proveListing(job, output, file, disks);
  else for (const disk of disks) await proveDisk(job, output, artifact, disk);
}

/** The archive without unpacking it: cheaper, and enough where no comparison is wanted. */
async function proveListing(
  job: EncodeJob,
  output: Output,
  file: string,
  disks: readonly WrittenDisk[],
): Promise<void> {
  const [member, ...more] = await listGceTar(file, job.signal);
  const right =
    member?.name === GCE_MEMBER && member.kind === '-' && member.sizeBytes === disks[0]?.source.virtualBytes;
  if (!right || more.length > 0) {
    throw new PortError(
      'OUTPUT_DIFFERS',
      `${output.file} does not hold one ${GCE_MEMBER} of the size of the disk`,
      AGAIN,
    );
  }
}

async function proveDisk(
  job: EncodeJob,
  output: Output,
  artifact: Pick<Artifact, 'path' | 'format' | 'container'>,
  { source, member }: WrittenDisk,
): Promise<void> {
  const { signal, log } = job;
  const name = member?.name ?? output.file;
  const disk = await diskOf(artifact, job.scratch, {
    signal,
    ...(member === undefined ? {} : { member: member.name }),
  });
  try {
    const { corruptions } = await qemuImg.check(disk, { signal, log });
    if (corruptions > 0) {
      throw new PortError(
        'OUTPUT_DIFFERS',
        `${name}: qemu-img check found ${corruptions} corruptions`,
        AGAIN,
      );
    }
    const { virtualBytes } = await qemuImg.info(disk, { signal, log });
    const faults = virtualBytes === source.virtualBytes ? [] : [`the disk in it has ${virtualBytes} bytes`];
    if (output.format === 'vpc') {
      const kind = output.formatOptions.subformat === 'fixed' ? 'fixed' : 'dynamic';
      faults.push(...(await vhdFaults(disk.path, { kind, virtualBytes: source.virtualBytes })));
    }
    if (faults.length > 0) throw new PortError('OUTPUT_DIFFERS', `${name}: ${faults.join(', ')}`, AGAIN);
    if (!job.request.compare) return;
    const onProgress = (doneBytes: number, totalBytes: number) =>
      job.progress({ text: `comparing ${name}`, doneBytes, totalBytes });
    if (!(await qemuImg.compare(source, disk, { signal, log, onProgress }))) {
      throw new PortError('OUTPUT_DIFFERS', `${name} is not equal to the work disk`, AGAIN);
    }
  } finally {
    await disk.close();
  }
}
