/** A compressed image: what its first MiB says about it, before the rest is read. */
import { PortError } from '../../core/errors.ts';
import type { SourceFormat } from '../../core/request.ts';
import { MIB } from '../../core/sizes.ts';
import { CONTENT_BYTES } from '../image-format/content.ts';
import { decideFormat, inspectContent } from '../image-format/index.ts';
import type { OpenedSource } from '../image-format/open.ts';
import { bufferSource, requireSaneSize, u64be, u64le } from '../image-format/reader.ts';
import { foreignHeader } from '../image-format/signature.ts';
import { type Compression, compressionOf, declaredBytes, decompress } from './decompress.ts';
import type { PlanParts } from './plan.ts';
import { isTarHeader } from './tar-reader.ts';

/** The largest disk there is; the content of a stream that does not say its length may still be one. */
const UNKNOWN_BYTES = 64 * 1024 ** 4;

/** Virtual size in bytes as the first bytes of an image say; undefined where it is not at the start. */
function virtualBytesOf(start: Buffer, format: SourceFormat): number | undefined {
  if (start.length < 512) return undefined;
  if (format === 'qcow2') return u64be(start, 24);
  if (format === 'vmdk')
    return start.toString('latin1', 0, 4) === 'KDMV' ? u64le(start, 12) * 512 : undefined;
  if (format === 'vdi') return u64le(start, 0x170);
  if (format === 'vpc') return u64be(start, 48);
  return undefined;
}

async function firstBytes(source: OpenedSource, kind: Compression): Promise<Buffer> {
  const pieces: Buffer[] = [];
  let length = 0;
  for await (const piece of decompress(source, kind)) {
    pieces.push(Buffer.from(piece));
    length += piece.length;
    if (length >= CONTENT_BYTES) break;
  }
  return Buffer.concat(pieces);
}

/** Refuses what is packed twice: each layer would have to be written out to be looked at. */
function refuseNested(source: OpenedSource, start: Buffer): void {
  const inner = compressionOf(start);
  if (inner !== undefined) {
    throw new PortError('UNSUPPORTED_FORMAT', `${source.name} is compressed twice (${inner} inside)`, {
      hint: 'decompress it once, then give the result',
    });
  }
  if (isTarHeader(start.subarray(0, 512))) {
    throw new PortError('UNSUPPORTED_FORMAT', `${source.name} is a compressed tar archive`, {
      hint: 'decompress it first, and give the OVA or the disk image inside',
    });
  }
}

/** Plans a compressed image. Throws what its content is refused for, as far as the first MiB tells. */
export async function planCompressed(
  source: OpenedSource,
  kind: Compression,
  named?: SourceFormat,
): Promise<PlanParts> {
  const declared = await declaredBytes(source, kind);
  if (declared !== undefined && declared > 0) requireSaneSize(source, declared);
  const total = kind === 'xz' ? declared : undefined; // zstd says it of its first frame only
  const start = await firstBytes(source, kind);
  if (start.length === 0) {
    throw new PortError('EMPTY_DISK', `${source.name} is empty: nothing was compressed`, {
      hint: 'compress the image again',
    });
  }
  refuseNested(source, start);
  const content = bufferSource(start, source.name, total ?? UNKNOWN_BYTES);
  const foreign = foreignHeader(start);
  if (foreign)
    throw new PortError(foreign.code, `${source.name} holds ${foreign.what}`, { hint: foreign.hint });
  const format = await decideFormat(content, named);
  if (format === 'raw') await inspectContent(content);
  const virtualBytes = virtualBytesOf(start, format);
  if (virtualBytes !== undefined) requireSaneSize(source, virtualBytes);
  // tables and snapshots come on top of the disk's own bytes, but not more than once again
  const bound = virtualBytes === undefined ? undefined : 2 * virtualBytes + 256 * MIB;
  return {
    machine: undefined,
    disks: [
      {
        id: 'disk0',
        name: source.name,
        origin: { kind: 'member', offsetBytes: 0, sizeBytes: source.sizeBytes },
        compression: kind,
        declaredBytes: total ?? bound,
        capacityBytes: virtualBytes,
        format: named,
        bus: 'unknown',
        controller: 0,
        unit: 0,
        bootHint: true,
        digests: [],
      },
    ],
  };
}
