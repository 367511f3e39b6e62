/** Which files have to be written: platforms that want the same bytes share one. */
import type { Facts } from '../../core/facts.ts';
import type { ImageFormat, Platform } from '../../core/platform.ts';
import type { Request } from '../../core/request.ts';

/** One file to write. */
export interface Output {
  /** File name in `out/`. */
  file: string;
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

/** Files to write, in the order of `--to`. Two different files of one extension carry their platform in the name. */
export function planOutputs(request: Request, platforms: readonly Platform[]): Output[] {
  const outputs: Output[] = [];
  for (const platform of platforms) {
    const { extension, ...encoding } = encodingFor(platform.image, request.encoding);
    const output: Output = {
      ...encoding,
      file: `${request.name}.${extension}`,
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
      rival.file = `${request.name}-${rival.platforms[0]}.${rival.file.slice(request.name.length + 1)}`;
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
  let used = 0;
  for (const filesystem of facts.filesystems) {
    if (filesystem.type !== 'swap') used += filesystem.usedBytes ?? filesystem.sizeBytes;
  }
  const stripped = facts.candidates
    .filter(
      (c) => strip === 'auto' || (Array.isArray(strip) && (strip.includes('auto') || strip.includes(c.path))),
    )
    .reduce((sum, c) => sum + c.bytes, 0);
  const slim = Math.max(0, used - stripped);
  return outputs.reduce(
    (sum, o) => sum + Math.ceil(slim * (o.compress ? COMPRESSED_SHARE : 1)) + OVERHEAD_BYTES,
    0,
  );
}
