/** VMDK in one file: monolithicSparse and streamOptimized (the hosted sparse extent of VMware's format 5.0 paper). */
import { PortError } from '../../core/errors.ts';
import type { HeaderFacts } from './facts.ts';
import { type ByteSource, damaged, readExact, requireSaneSize, truncated, u64le, unsafe } from './reader.ts';
import { checkDescriptor } from './vmdk-descriptor.ts';
import { checkGrains, parseSparse, requireSparseHeader } from './vmdk-sparse.ts';

const SECTOR = 512;
const MAX_DESCRIPTOR_BYTES = 64 * 1024;
const MARKER_FOOTER = 3;

/** Checks header, footer, descriptor and grain tables. Throws what the gate refuses. */
export async function inspectVmdk(source: ByteSource): Promise<HeaderFacts> {
  const header = await source.read(0, SECTOR);
  if (header.toString('latin1', 0, 4) !== 'KDMV') {
    const text = (await source.read(0, MAX_DESCRIPTOR_BYTES)).toString('latin1');
    checkDescriptor(source, text, false);
    throw damaged(source, 'its VMDK descriptor has no data');
  }
  requireSparseHeader(source, header);
  await checkEmbedded(source, header);
  const sparse = parseSparse(source, await finalHeader(source, header));
  requireSaneSize(source, sparse.capacity * SECTOR);
  await checkGrains(source, sparse);
  return { virtualBytes: sparse.capacity * SECTOR };
}

async function checkEmbedded(source: ByteSource, header: Buffer): Promise<void> {
  const offset = u64le(header, 28) * SECTOR;
  const length = u64le(header, 36) * SECTOR;
  if (offset === 0 || length === 0) {
    throw new PortError('UNSUPPORTED_FORMAT', `${source.name} is one piece of a split VMDK`, {
      hint: 'make one file first: vmkfstools -i, ovftool, or qemu-img convert of the descriptor',
    });
  }
  if (length > MAX_DESCRIPTOR_BYTES) throw unsafe(source, `its VMDK descriptor claims ${length} bytes`);
  const text = await readExact(source, offset, length, 'the VMDK descriptor');
  checkDescriptor(source, text.toString('latin1'), true);
}

/** A stream has its grain directory at the end, and there a second header that must say the same. */
async function finalHeader(source: ByteSource, header: Buffer): Promise<Buffer> {
  const atEnd = header.readUInt32LE(56) === 0xffff_ffff && header.readUInt32LE(60) === 0xffff_ffff;
  if (!atEnd) return header;
  if (source.sizeBytes < 4 * SECTOR) throw truncated(source, 'the VMDK footer');
  const tail = await readExact(source, source.sizeBytes - 3 * SECTOR, 3 * SECTOR, 'the VMDK footer');
  const footer = tail.subarray(SECTOR, 2 * SECTOR);
  const endMarker = tail.subarray(2 * SECTOR);
  if (
    tail.readUInt32LE(8) !== 0 ||
    tail.readUInt32LE(12) !== MARKER_FOOTER ||
    footer.toString('latin1', 0, 4) !== 'KDMV' ||
    endMarker.readUInt32LE(8) !== 0 ||
    endMarker.readUInt32LE(12) !== 0
  ) {
    throw truncated(source, 'the VMDK footer');
  }
  // all but the two directory offsets
  if (
    !footer.subarray(0, 48).equals(header.subarray(0, 48)) ||
    !footer.subarray(64, 79).equals(header.subarray(64, 79))
  ) {
    throw unsafe(source, 'its VMDK header and footer differ');
  }
  return footer;
}
