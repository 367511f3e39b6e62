/** Which files have to be written: platforms that want the same bytes share one. */
import type { Facts } from '../../core/facts.ts';
import type { ImageFormat, Platform } from '../../core/platform.ts';
import type { Request } from '../../core/request.ts';
import { fileId } from '../../core/work-disks.ts';

/** One file to write. */
export interface Output {
  /** File name in `out/`. */
  file: string;
  /** Id of the disk it shows; absent for the one the firmware starts from. */
  disk?: string;
  format: ImageFormat['format'];
  compress: boolean;
  /** `-o` options of qemu-img. */
  formatOptions: Record<string, string>;
  alignBytes: number;
  platforms: string[];
}

/** What `run` will do. */
export interface EncodePlan {
  outputs: Output[];
  neededBytes: number;
}

type Encoding = Pick<Output, 'format' | 'compress' | 'formatOptions'> & { extension: string };

function encodingFor(image: ImageFormat, encoding: Request['encoding']): Encoding {
  // the request's encoding only says which flavour of qcow2; a platform that takes VHD takes nothing else
  if (image.format !== 'qcow2') {
    const formatOptions: Record<string, string> =
      image.format === 'vpc'
        ? { subformat: 'fixed', force_size: 'on' }
        : image.format === 'vmdk'
          ? { subformat: 'streamOptimized' }
          : {};
    return { format: image.format, compress: false, formatOptions, extension: image.extension };
  }
  if (encoding === 'raw') return { format: 'raw', compress: false, formatOptions: {}, extension: 'raw' };
  // compat=1.1 with zlib is read by every QEMU since 1.7 (2013); zstd needs 5.1 (2020)
  const formatOptions = { compat: '1.1', compression_type: encoding === 'compat' ? 'zlib' : 'zstd' };
  return { format: 'qcow2', compress: true, formatOptions, extension: image.extension };
}

function sameBytes(a: Output, b: Output): boolean {
  return (
    a.format === b.format &&
    a.alignBytes === b.alignBytes &&
    JSON.stringify(a.formatOptions) === JSON.stringify(b.formatOptions)
  );
}

/**
 * Files to write of one disk, in the order of `--to`. A disk beside the one the firmware starts from has its id in the
 * name; two different files of one extension carry their platform too.
 */
export function planOutputs(
  request: Pick<Request, 'name' | 'encoding'>,
  platforms: readonly Platform[],
  disk?: string,
): Output[] {
  const outputs: Output[] = [];
  const name = disk === undefined ? request.name : `${request.name}-${fileId(disk)}`;
  for (const platform of platforms) {
    const { extension, ...encoding } = encodingFor(platform.image, request.encoding);
    const output: Output = {
      ...encoding,
      file: `${name}.${extension}`,
      ...(disk === undefined ? {} : { disk }),
      alignBytes: platform.image.alignBytes,
      platforms: [platform.name],
    };
    const twin = outputs.find((other) => sameBytes(other, output));
    if (twin) twin.platforms.push(platform.name);
    else outputs.push(output);
  }
  for (const output of outputs) {
    const rivals = outputs.filter((other) => other.file === output.file);
    if (rivals.length < 2) continue;
    for (const rival of rivals) {
      rival.file = `${name}-${rival.platforms[0]}.${rival.file.slice(name.length + 1)}`;
    }
  }
  return outputs;
}

/** zstd at qemu's level leaves 15 to 60 % of a system disk; three quarters is safe for a mix with packed data. */
const COMPRESSED_SHARE = 0.75;
/** Partition tables, boot areas and metadata of the image itself. */
const OVERHEAD_BYTES = 64 * 1024 * 1024;

/** Bytes the outputs will take at most, from what inspect found: used space minus what strip takes away. */
export function neededBytes(outputs: readonly Output[], facts: Facts, strip: Request['strip']): number {
  const usedOn = (disk: number): number =>
    facts.filesystems
      .filter((f) => f.type !== 'swap' && (f.disks ?? [disk]).includes(disk))
      .reduce((sum, f) => sum + (f.usedBytes ?? f.sizeBytes), 0);
  const stripped = facts.candidates
    .filter(
      (c) => strip === 'auto' || (Array.isArray(strip) && (strip.includes('auto') || strip.includes(c.path))),
    )
    .reduce((sum, c) => sum + c.bytes, 0);
  return outputs.reduce((sum, o) => {
    const index = facts.disks.findIndex((d) => d.id === o.disk);
    // what is stripped lies on the system's disk, or so it is counted
    const slim = index === -1 ? Math.max(0, usedOn(facts.bootDisk) - stripped) : usedOn(index);
    return sum + Math.ceil(slim * (o.compress ? COMPRESSED_SHARE : 1)) + OVERHEAD_BYTES;
  }, 0);
}
