/** The gate's first half: our own reading of an image's header, before any other program sees the file. */
import { PortError } from '../../core/errors.ts';
import type { SourceFormat } from '../../core/request.ts';
import { roundUp } from '../../core/sizes.ts';
import { inspectContent } from './content.ts';
import type { HeaderFacts } from './facts.ts';
import { type OpenedSource, openSource } from './open.ts';
import { inspectQcow2 } from './qcow2.ts';
import type { ByteSource } from './reader.ts';
import { requireSaneSize } from './reader.ts';
import { foreignHeader, hasDiskEvidence, hasFixedVhdFooter, imageHeaders, START_BYTES } from './signature.ts';
import { inspectVdi } from './vdi.ts';
import { inspectVhd } from './vhd.ts';
import { inspectVhdx } from './vhdx.ts';
import { inspectVmdk } from './vmdk.ts';

export { CONTENT_BYTES, inspectContent } from './content.ts';
export { type ByteSource, bufferSource } from './reader.ts';

/** What is known about a source before any other program opened it. */
export interface ImageFile extends HeaderFacts {
  /** Absolute, links resolved. */
  path: string;
  format: SourceFormat;
  fileBytes: number;
  isDevice: boolean;
  /** Milliseconds; 0 for a device. */
  modifiedMs: number;
}

async function inspectRaw(source: ByteSource): Promise<HeaderFacts> {
  requireSaneSize(source, source.sizeBytes);
  await inspectContent(source);
  return { virtualBytes: roundUp(source.sizeBytes, 512) };
}

const PARSERS: Readonly<Record<SourceFormat, (source: ByteSource) => Promise<HeaderFacts>>> = {
  raw: inspectRaw,
  qcow2: inspectQcow2,
  vmdk: inspectVmdk,
  vpc: inspectVhd,
  vhdx: inspectVhdx,
  vdi: inspectVdi,
};

/** Formats the bytes claim to be; raw is the absence of all. */
async function claims(source: ByteSource, start: Buffer): Promise<SourceFormat[]> {
  const found = imageHeaders(start);
  if (!found.includes('vpc') && (await hasFixedVhdFooter(source))) found.push('vpc');
  return found;
}

function ambiguous(source: ByteSource, what: string, hint: string): PortError {
  return new PortError('FORMAT_AMBIGUOUS', `${source.name} ${what}`, { hint });
}

/**
 * Decides the format, or refuses. What the user named is never overruled by content: it is confirmed or refused.
 * Throws FORMAT_AMBIGUOUS, UNSUPPORTED_FORMAT, UNSAFE_IMAGE.
 */
export async function decideFormat(
  source: ByteSource & { isDevice?: boolean },
  format?: SourceFormat,
): Promise<SourceFormat> {
  const start = await source.read(0, START_BYTES);
  const found = await claims(source, start);
  if (format === 'raw') return 'raw'; // the raw parser refuses a disk that carries an image header
  if (format !== undefined) {
    if (found.includes(format)) return format;
    const seen = found.length === 0 ? 'no header of any image format' : `a ${found.join(' and a ')} header`;
    throw ambiguous(source, `has ${seen}, not one of ${format}`, 'name the right --format or leave it out');
  }
  const [first, second] = found;
  if (first === undefined) return 'raw';
  if (second !== undefined) {
    throw ambiguous(source, `looks like ${first} and like ${second}`, 'say which it is with --format');
  }
  const headerInFront = imageHeaders(start).length > 0;
  if (source.isDevice && headerInFront) {
    throw ambiguous(
      source,
      `is a block device that begins with a ${first} header`,
      `say --format raw if its guest wrote that, --format ${first} if an image was copied onto it`,
    );
  }
  if (headerInFront && hasDiskEvidence(start)) {
    throw ambiguous(
      source,
      `has a ${first} header and a partition table or file system around it`,
      `say --format raw or --format ${first}`,
    );
  }
  return first;
}

/** Header facts of a file of a known format. Throws the refusals of the format's parser. */
export async function inspectHeader(source: ByteSource, format: SourceFormat): Promise<HeaderFacts> {
  const facts = await PARSERS[format](source);
  requireSaneSize(source, facts.virtualBytes);
  return facts;
}

/**
 * Reads the header of an image file or block device and refuses what must not reach any other program. `format` is
 * what the user named. Takes seconds at most and a few MiB of memory, whatever the file says.
 * Throws USAGE (no such file), NOT_A_DISK, EMPTY_DISK, DAMAGED, ENCRYPTED, UNSUPPORTED_FORMAT, UNSAFE_IMAGE,
 * OUTSIDE_REFERENCE, FORMAT_AMBIGUOUS, HOST_IO.
 */
export async function inspectImageFile(file: string, format?: SourceFormat): Promise<ImageFile> {
  const source: OpenedSource = await openSource(file);
  try {
    const foreign = format === undefined ? foreignHeader(await source.read(0, START_BYTES)) : undefined;
    if (foreign)
      throw new PortError(foreign.code, `${source.name} is ${foreign.what}`, { hint: foreign.hint });
    const decided = await decideFormat(source, format);
    const { virtualBytes } = await inspectHeader(source, decided);
    return {
      path: source.path,
      format: decided,
      virtualBytes,
      fileBytes: source.sizeBytes,
      isDevice: source.isDevice,
      modifiedMs: source.modifiedMs,
    };
  } finally {
    await source.close();
  }
}
