/** A VMDK in several files: descriptor and pieces in one folder, every piece as long as the descriptor says. */
import * as path from 'node:path';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import type { OpenedSource } from '../image-format/open.ts';
import { damaged, readExact, requireSaneSize, unsafe } from '../image-format/reader.ts';
import { readDescriptor, type VmdkExtent } from '../image-format/vmdk-descriptor.ts';
import { openBeside } from './sibling.ts';
import type { DiskExtent, DiskOrigin } from './types.ts';
import { inspectPiece } from './vmdk-content.ts';

/** Longest descriptor; one of a 64 TiB disk in pieces of 2 GiB would be longer, and is not made by VMware (62 TiB, one flat file). */
export const MAX_DESCRIPTOR_BYTES = 64 * 1024;
/** Types whose pieces lie beside the descriptor; others are devices or snapshots. */
const TYPES = ['monolithicflat', 'twogbmaxextentsparse', 'twogbmaxextentflat', 'vmfs', 'vmfsthin', 'custom'];

/** True for a text descriptor. */
export function looksLikeDescriptor(head: Buffer): boolean {
  return /^\s*# Disk DescriptorFile/i.test(head.toString('latin1', 0, 256));
}

/** Names are in the encoding the descriptor states; all that is left of the others today is Latin-1. */
function nameOf(latin1: string): string {
  const utf8 = Buffer.from(latin1, 'latin1').toString('utf8');
  return utf8.includes('\ufffd') ? latin1 : utf8;
}

async function openPiece(source: OpenedSource, extent: VmdkExtent): Promise<OpenedSource> {
  const name = nameOf(extent.file);
  const piece = await openBeside(path.dirname(source.path), name, source.name);
  if (piece === undefined) throw damaged(source, `a file of it is missing: ${printable(name)}`);
  return piece;
}

async function planExtent(source: OpenedSource, extent: VmdkExtent): Promise<DiskExtent> {
  const sizeBytes = extent.sectors * 512;
  if (extent.access === 'NOACCESS') throw damaged(source, 'an extent of it may not be read');
  if (extent.sectors === 0) throw damaged(source, 'an extent of it has no sectors');
  if (extent.kind === 'ZERO') return { kind: 'zero', sizeBytes };
  const flat = extent.kind === 'FLAT' || extent.kind === 'VMFS';
  if (!flat && extent.kind !== 'SPARSE') {
    throw new PortError(
      'UNSUPPORTED_FORMAT',
      `${source.name} has an extent of type ${printable(extent.kind)}`,
      {
        hint: 'remove the snapshots, or clone the disk with vmkfstools -i -d thin',
      },
    );
  }
  if (extent.rest !== '' && extent.rest !== '0') throw unsafe(source, 'an extent begins inside its file');
  const piece = await openPiece(source, extent);
  try {
    if (!flat) await inspectPiece(piece, extent.sectors);
    else if (piece.sizeBytes !== sizeBytes) {
      throw damaged(source, `${piece.name} has ${piece.sizeBytes} bytes, its descriptor says ${sizeBytes}`);
    }
    return {
      kind: flat ? 'flat' : 'sparse',
      path: piece.path,
      sizeBytes,
      fileBytes: piece.sizeBytes,
      modifiedMs: piece.modifiedMs,
    };
  } finally {
    await piece.close();
  }
}

/**
 * Reads a descriptor and checks all pieces: names, lengths, tables. Throws OUTSIDE_REFERENCE (parents, devices, paths),
 * UNSAFE_PATH, UNSAFE_IMAGE, DAMAGED, UNSUPPORTED_FORMAT.
 */
export async function planExtents(source: OpenedSource): Promise<Extract<DiskOrigin, { kind: 'extents' }>> {
  if (source.sizeBytes > MAX_DESCRIPTOR_BYTES)
    throw unsafe(source, 'its VMDK descriptor is longer than 64 KiB');
  const text = await readExact(source, 0, source.sizeBytes, 'the VMDK descriptor');
  const { type, extents } = readDescriptor(source, text.toString('latin1'));
  if (!TYPES.includes(type)) {
    throw new PortError(
      'OUTSIDE_REFERENCE',
      `${source.name} refers to something else by its type: ${printable(type)}`,
      {
        hint: 'remove the snapshots, or clone the disk with vmkfstools -i -d thin',
      },
    );
  }
  requireSaneSize(
    source,
    extents.reduce((sum, e) => sum + e.sectors * 512, 0),
  );
  const files = extents.filter((e) => e.kind !== 'ZERO').map((e) => e.file);
  if (new Set(files).size !== files.length) throw unsafe(source, 'a file stands in it twice');
  const planned: DiskExtent[] = [];
  for (const extent of extents) planned.push(await planExtent(source, extent));
  return { kind: 'extents', extents: planned, sizeBytes: planned.reduce((sum, e) => sum + e.sizeBytes, 0) };
}
