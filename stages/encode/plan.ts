/** Which files have to be written: platforms that want the same bytes share one. */
import type { Facts } from '../../core/facts.ts';
import type { ImageFormat, Platform } from '../../core/platform.ts';
import type { Request } from '../../core/request.ts';
import { fileId, imageDisks } from '../../core/work-disks.ts';

/** One file to write. */
export interface Output {
  /** File name in `out/`. */
  file: string;
  /** Id of the disk it shows; absent for the one the firmware starts from. */
  disk?: string;
  format: ImageFormat['format'];
  compress: boolean;
  /** `-o` options of qemu-img. */
  formatOptions: Readonly<Record<string, string>>;
  /** What the disk travels in. An OVA holds all disks of the machine; `disk` is absent then. */
  container?: NonNullable<ImageFormat['container']>;
  alignBytes: number;
  /** Also sum it with sha512: Glance's digest, for the formats Glance takes. It costs twice as much as sha256. */
  sha512: boolean;
  platforms: string[];
}

/** What `run` will do. */
export interface EncodePlan {
  outputs: Output[];
  neededBytes: number;
}

type Encoding = Pick<Output, 'format' | 'compress' | 'formatOptions' | 'container'> & { extension: string };

/** The row decides; the request's encoding only says which flavour of qcow2, where the platform takes more than one. */
function encodingFor(image: ImageFormat, asked: Request['encoding']): Encoding {
  const { format, extension, container, formatOptions = {} } = image;
  if (format !== 'qcow2') {
    return {
      format,
      compress: false,
      formatOptions,
      extension,
      ...(container === undefined ? {} : { container }),
    };
  }
  const encoding = image.compression === 'zlib' ? 'compat' : asked;
  if (encoding === 'raw') return { format: 'raw', compress: false, formatOptions: {}, extension: 'raw' };
  // compat=1.1 with zlib is read by every QEMU since 1.7 (2013); zstd needs 5.1 (2020)
  const flavour = { compat: '1.1', compression_type: encoding === 'compat' ? 'zlib' : 'zstd' };
  return { format, compress: true, formatOptions: { ...formatOptions, ...flavour }, extension };
}

function sameBytes(a: Output, b: Output): boolean {
  return (
    a.format === b.format &&
    a.container === b.container &&
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
    // all disks of the machine are in the OVA of the system
    if (platform.image.container === 'ova' && disk !== undefined) continue;
    const { extension, ...encoding } = encodingFor(platform.image, request.encoding);
    const output: Output = {
      ...encoding,
      file: `${name}.${extension}`,
      ...(disk === undefined ? {} : { disk }),
      alignBytes: platform.image.alignBytes,
      sha512: platform.image.format === 'qcow2',
      platforms: [platform.name],
    };
    const twin = outputs.find((other) => sameBytes(other, output));
    if (twin) {
      twin.platforms.push(platform.name);
      twin.sha512 ||= output.sha512;
    } else outputs.push(output);
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

/**
 * Bytes the outputs and what is made on the way take at most, from what inspect found: used space minus what strip takes away.
 * Outputs are written beside each other, so all of it counts at once.
 */
export function neededBytes(
  outputs: readonly Output[],
  facts: Facts,
  { strip, compare }: Pick<Request, 'strip' | 'compare'>,
): number {
  const usedOn = (disk: number): number =>
    facts.filesystems
      .filter((f) => f.type !== 'swap' && (f.disks ?? [disk]).includes(disk))
      .reduce((sum, f) => sum + (f.usedBytes ?? f.sizeBytes), 0);
  const stripped = facts.candidates
    .filter(
      (c) => strip === 'auto' || (Array.isArray(strip) && (strip.includes('auto') || strip.includes(c.path))),
    )
    .reduce((sum, c) => sum + c.bytes, 0);
  // what is stripped lies on the system's disk, or so it is counted
  const slimOf = (index: number): number =>
    index === facts.bootDisk ? Math.max(0, usedOn(index) - stripped) : usedOn(index);
  const compressed = (bytes: number) => Math.ceil(bytes * COMPRESSED_SHARE);
  return outputs.reduce((sum, output) => {
    const index = facts.disks.findIndex((d) => d.id === output.disk);
    const slim = slimOf(index === -1 ? facts.bootDisk : index);
    const all = imageDisks(facts).reduce((total, d) => total + slimOf(d.index), 0);
    const bytes =
      output.container === 'ova'
        ? // each disk by itself first, then all in the archive
          2 * compressed(all)
        : output.container === 'gce-tar'
          ? // unpacked again to be compared
            compressed(slim) + (compare ? slim : 0)
          : output.compress
            ? compressed(slim)
            : slim;
    return sum + bytes + OVERHEAD_BYTES;
  }, 0);
}
