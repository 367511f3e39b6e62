/** A volume group's metadata, as one of its physical volumes sees it: which of its extents are used, and by what. */
import { type ByteSource, damaged } from '../image-format/reader.ts';
import { type LvmSection, type LvmValue, parseLvmText } from './lvm-text.ts';

const SECTOR = 512;

/** A run of extents of this physical volume, in bytes from the volume's start. */
export interface LvmPiece {
  startBytes: number;
  lengthBytes: number;
}

/** A logical volume that has extents here. */
export interface LvmVolume {
  name: string;
  uuid: string;
  /** In the order of the logical volume when `direct`. */
  pieces: LvmPiece[];
  /** The pieces, in order, are its content: linear, all of it here, part of nothing else. */
  direct: boolean;
}

/** What the group says of one physical volume. */
export interface LvmGroup {
  name: string;
  /** Where extents begin, and where they end. */
  extentsStart: number;
  extentsEnd: number;
  volumes: LvmVolume[];
}

function numberOf(part: ByteSource, section: LvmSection, name: string): number {
  const value = section.values.get(name);
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) {
    throw damaged(part, `its LVM metadata has no ${name}`);
  }
  return value;
}

function textOf(section: LvmSection, name: string): string {
  const value = section.values.get(name);
  return typeof value === 'string' ? value : '';
}

function listOf(value: LvmValue | undefined): (string | number)[] {
  return Array.isArray(value) ? value : value === undefined ? [] : [value];
}

/** Flags of a volume that stands for itself. */
const PLAIN_FLAGS = new Set(['READ', 'WRITE', 'VISIBLE', 'FIXED_MINOR']);

function isPlain(volume: LvmSection): boolean {
  const flags = [...listOf(volume.values.get('status')), ...listOf(volume.values.get('flags'))];
  return flags.includes('VISIBLE') && flags.every((flag) => PLAIN_FLAGS.has(String(flag)));
}

interface Context {
  part: ByteSource;
  /** Names of all physical volumes of the group. */
  physical: ReadonlySet<string>;
  /** Name of this one in the group. */
  here: string;
  extentBytes: number;
  extentsStart: number;
  extents: number;
}

/** Segments of a volume by their place in it. */
function segmentsOf(part: ByteSource, volume: LvmSection): LvmSection[] {
  const segments = [...volume.sections].filter(([name]) => /^segment\d+$/.test(name)).map(([, s]) => s);
  if (segments.length !== numberOf(part, volume, 'segment_count')) {
    throw damaged(part, 'its LVM metadata misses a segment');
  }
  const start = (segment: LvmSection): number => numberOf(part, segment, 'start_extent');
  return segments.sort((a, b) => start(a) - start(b));
}

/** Pieces here of a striped (or linear) segment; `direct` when they are all of it, in one row. */
function stripedPieces(context: Context, segment: LvmSection): { pieces: LvmPiece[]; direct: boolean } {
  const { part, here, extentBytes, extentsStart, extents, physical } = context;
  const stripes = numberOf(part, segment, 'stripe_count');
  const places = listOf(segment.values.get('stripes'));
  const count = numberOf(part, segment, 'extent_count') / stripes;
  if (stripes < 1 || places.length !== stripes * 2 || !Number.isInteger(count) || count < 1) {
    throw damaged(part, 'its LVM metadata has a segment that makes no sense');
  }
  const pieces: LvmPiece[] = [];
  for (let i = 0; i < places.length; i += 2) {
    const [name, first] = [places[i], places[i + 1]];
    if (typeof name !== 'string' || !physical.has(name) || typeof first !== 'number') {
      throw damaged(part, 'its LVM metadata has a segment that makes no sense');
    }
    if (name !== here) continue;
    if (!Number.isSafeInteger(first) || first < 0 || first + count > extents) {
      throw damaged(part, 'an LVM segment lies beyond the end of its volume');
    }
    pieces.push({ startBytes: extentsStart + first * extentBytes, lengthBytes: count * extentBytes });
  }
  return { pieces, direct: stripes === 1 && pieces.length === 1 };
}

function volumeOf(
  context: Context,
  name: string,
  volume: LvmSection,
  isComponent: boolean,
): LvmVolume | undefined {
  const { part, physical } = context;
  const pieces: LvmPiece[] = [];
  let direct = isPlain(volume) && !isComponent;
  let next = 0;
  for (const segment of segmentsOf(part, volume)) {
    if (numberOf(part, segment, 'start_extent') !== next) {
      throw damaged(part, 'its LVM metadata leaves out a part of a volume');
    }
    next += numberOf(part, segment, 'extent_count');
    if (textOf(segment, 'type') === 'striped') {
      const found = stripedPieces(context, segment);
      pieces.push(...found.pieces);
      direct &&= found.direct;
      continue;
    }
    direct = false;
    // every other kind lies on logical volumes of its own; old mirrors and moves under way name extents directly
    const named = [...segment.values].flatMap(([, value]) => listOf(value));
    if (named.some((value) => typeof value === 'string' && physical.has(value))) {
      throw damaged(part, 'its LVM metadata has a volume of a kind that is not known here');
    }
  }
  if (pieces.length === 0) return undefined;
  return { name, uuid: textOf(volume, 'id'), pieces, direct };
}

/** Throws when two volumes say they own the same extent. */
function refuseShared(part: ByteSource, volumes: readonly LvmVolume[]): void {
  const pieces = volumes.flatMap((volume) => volume.pieces).sort((a, b) => a.startBytes - b.startBytes);
  let end = 0;
  for (const piece of pieces) {
    if (piece.startBytes < end) throw damaged(part, 'two LVM volumes own the same extents');
    end = piece.startBytes + piece.lengthBytes;
  }
}

/** Reads a group's metadata for the physical volume with this UUID (no dashes). Throws DAMAGED or SyntaxError. */
export function readLvmGroup(part: ByteSource, text: string, uuid: string): LvmGroup {
  const root = parseLvmText(text);
  const [group, ...others] = [...root.sections];
  if (group === undefined || others.length > 0) throw damaged(part, 'its LVM metadata is not of one group');
  const [name, section] = group;
  const physical = section.sections.get('physical_volumes')?.sections ?? new Map<string, LvmSection>();
  const own = [...physical].filter(([, pv]) => textOf(pv, 'id').replaceAll('-', '') === uuid);
  const [here] = own;
  if (here === undefined || own.length > 1) throw damaged(part, 'its LVM metadata does not name it');
  const extentBytes = numberOf(part, section, 'extent_size') * SECTOR;
  const extentsStart = numberOf(part, here[1], 'pe_start') * SECTOR;
  const extents = numberOf(part, here[1], 'pe_count');
  const extentsEnd = extentsStart + extents * extentBytes;
  if (extentBytes < SECTOR || !(extentsEnd <= part.sizeBytes)) {
    throw damaged(part, 'its LVM extents do not fit into it');
  }
  const logical = section.sections.get('logical_volumes')?.sections ?? new Map<string, LvmSection>();
  const context: Context = {
    part,
    physical: new Set(physical.keys()),
    here: here[0],
    extentBytes,
    extentsStart,
    extents,
  };
  const components = new Set<string>();
  for (const volume of logical.values()) {
    for (const segment of volume.sections.values()) {
      for (const value of segment.values.values()) {
        for (const item of listOf(value)) if (typeof item === 'string') components.add(item);
      }
    }
  }
  const volumes: LvmVolume[] = [];
  for (const [volumeName, volume] of logical) {
    const found = volumeOf(context, volumeName, volume, components.has(volumeName));
    if (found) volumes.push(found);
  }
  refuseShared(part, volumes);
  return { name, extentsStart, extentsEnd, volumes };
}
