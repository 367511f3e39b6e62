/** LVM2 physical volumes: free extents are skipped, what linear volumes hold is looked into. */
import { printable } from '../../core/text.ts';
import type { ByteSource } from '../image-format/reader.ts';
import { fileSystemContent, singleKind, wholeOnDoubt, wholePart } from './content.ts';
import { FreeSpace } from './free-space.ts';
import { type LvmPiece, type LvmVolume, readLvmGroup } from './lvm-group.ts';
import { readLvmLabel } from './lvm-label.ts';
import { readSignatures } from './signatures.ts';
import type { AllocationPart, DiskState, Found } from './types.ts';

/** Pieces of a physical volume as one source. */
function joined(part: ByteSource, pieces: readonly LvmPiece[]): ByteSource {
  const sizeBytes = pieces.reduce((sum, piece) => sum + piece.lengthBytes, 0);
  return {
    name: part.name,
    sizeBytes,
    async read(offset, length) {
      const buffers: Buffer[] = [];
      for (const run of runsOf(pieces, offset, Math.min(length, sizeBytes - offset))) {
        const data = await part.read(run.startBytes, run.lengthBytes);
        buffers.push(data);
        if (data.length < run.lengthBytes) break;
      }
      return buffers.length === 1 ? (buffers[0] as Buffer) : Buffer.concat(buffers);
    },
  };
}

/** Where a run of the joined pieces lies. */
function runsOf(pieces: readonly LvmPiece[], offset: number, length: number): LvmPiece[] {
  const runs: LvmPiece[] = [];
  let pieceStart = 0;
  for (const piece of pieces) {
    const from = Math.max(offset, pieceStart);
    const to = Math.min(offset + length, pieceStart + piece.lengthBytes);
    if (from < to) runs.push({ startBytes: piece.startBytes + from - pieceStart, lengthBytes: to - from });
    pieceStart += piece.lengthBytes;
    if (pieceStart >= offset + length) break;
  }
  return runs;
}

async function volume(part: ByteSource, group: string, own: LvmVolume, state: DiskState): Promise<Found> {
  const source = joined(part, own.pieces);
  const name = printable(`${group}/${own.name}`);
  const inner = own.direct
    ? await fileSystemContent(source, state)
    : wholePart(source.sizeBytes, 'lvm-volume', 'not linear, not complete here, or part of another volume');
  const free = new FreeSpace();
  // free runs and pieces both ascend in the volume, so one walk maps them all
  let piece = 0;
  let pieceStart = 0;
  inner.free.each((start, end) => {
    for (let at = start; at < end; ) {
      let current = own.pieces[piece];
      while (current !== undefined && pieceStart + current.lengthBytes <= at) {
        pieceStart += current.lengthBytes;
        current = own.pieces[++piece];
      }
      if (current === undefined) return;
      const length = Math.min(end, pieceStart + current.lengthBytes) - at;
      free.add(current.startBytes + at - pieceStart, length);
      at += length;
    }
  });
  const startBytes = own.pieces[0]?.startBytes ?? 0;
  const parts = inner.parts.map((found) => ({
    ...found,
    startBytes,
    note: found.note === undefined ? `logical volume ${name}` : `logical volume ${name}: ${found.note}`,
  }));
  return { free, parts };
}

/** Runs of extents that no volume has. */
function* unused(start: number, end: number, volumes: readonly LvmVolume[]): Generator<LvmPiece> {
  const pieces = volumes.flatMap((own) => own.pieces).sort((a, b) => a.startBytes - b.startBytes);
  let at = start;
  for (const piece of pieces) {
    if (piece.startBytes > at) yield { startBytes: at, lengthBytes: piece.startBytes - at };
    at = piece.startBytes + piece.lengthBytes;
  }
  if (at < end) yield { startBytes: at, lengthBytes: end - at };
}

async function parseLvm(part: ByteSource, state: DiskState): Promise<Found> {
  const label = await readLvmLabel(part);
  if (label.text === undefined) {
    return wholePart(part.sizeBytes, 'lvm', 'it is in no volume group, or keeps no metadata itself');
  }
  const group = readLvmGroup(part, label.text, label.uuid);
  const free = new FreeSpace();
  const parts: AllocationPart[] = [];
  const metadataBytes = part.sizeBytes - (group.extentsEnd - group.extentsStart);
  parts.push({
    startBytes: 0,
    sizeBytes: metadataBytes,
    kind: 'lvm',
    label: printable(group.name),
    uuid: printable(label.uuid),
    allocatedBytes: metadataBytes,
    how: 'extents',
  });
  for (const own of group.volumes) {
    const found = await volume(part, group.name, own, state);
    parts.push(...found.parts);
    free.addAll(found.free, 0);
  }
  for (const run of unused(group.extentsStart, group.extentsEnd, group.volumes)) {
    free.add(run.startBytes, run.lengthBytes);
    parts.push({
      startBytes: run.startBytes,
      sizeBytes: run.lengthBytes,
      kind: 'lvm-free',
      allocatedBytes: 0,
      how: 'extents',
    });
  }
  return { free, parts };
}

/**
 * Content of a partition or a whole disk: a physical volume, or what may also lie in a logical one. Throws
 * SOURCE_REMOTE, INTERRUPTED.
 */
export async function volumeContent(part: ByteSource, state: DiskState): Promise<Found> {
  return await wholeOnDoubt(part.sizeBytes, 'unknown', async () => {
    const { known } = singleKind(await readSignatures(part));
    if (known !== 'lvm') return await fileSystemContent(part, state);
    return await wholeOnDoubt(part.sizeBytes, 'lvm', async () => await parseLvm(part, state));
  });
}
