/** What bytes of a disk that could not be read hit: files by name, swap, free space, or what the file system is made of. */
import type { ByteRange } from '../../core/disk-source.ts';
import type { BadRange, Facts, Filesystem } from '../../core/facts.ts';
import type { GuestSession } from '../../core/guest.ts';
import type { StageContext } from '../../core/stage.ts';
import { printable } from '../../core/text.ts';
import type { CapturedDisk } from '../../core/types.ts';
import { type AllocationMap, allocationMap } from '../../tools/allocation/index.ts';
import { openFileSource } from '../../tools/disk-sources/file.ts';

/** Ranges that are looked at; a disk with more is lost anyway. */
const MOST_RANGES = 200;
/** File names kept for one range, and told in a warning. */
const MOST_FILES = 20;
const TOLD_FILES = 5;

/** What it needs. */
export interface BadRangeContext {
  guest: GuestSession;
  disks: readonly Pick<CapturedDisk, 'badRanges'>[];
  signal: AbortSignal;
  warn: StageContext['warn'];
  progress: StageContext['progress'];
}

/** File systems whose FIEMAP tells offsets of the device. */
const MAPPED = /^(ext[234]|xfs)$/;

/**
 * Files of the file system at $1 that have bytes in one of the ranges $3 (`FIRST LAST FIRST LAST …`, offsets on the
 * device): `INDEX NAME` lines, at most $2 for a range, then `COUNT INDEX FILES`. Rows of filefrag begin with a number
 * and its names with `./`, so that no name is taken for a row; names with a newline are left out.
 */
const HIT_FILES = `
set -eu
LC_ALL=C; export LC_ALL
nl=$(printf '\\nx'); nl=\${nl%x}
cd "$1"
sync
find . -xdev -type f -size +0 ! -path "*$nl*" -print0 | { xargs -0 -r filefrag -v -b1 2>/dev/null || :; } |
  MOST="$2" RANGES="$3" awk '
BEGIN { n = split(ENVIRON["RANGES"], r, " "); most = ENVIRON["MOST"] + 0 }
/^File size of / {
  name = substr($0, 14); sub(/ is [0-9]+ \\([0-9]+ blocks? of [0-9]+ bytes\\)$/, "", name); split("", seen); next
}
/^ *[0-9]+:/ {
  split($0, field, ":"); split(field[3], place, "[.][.]"); a = place[1] + 0; b = place[2] + 0
  for (i = 1; i < n; i += 2) {
    if (a > r[i + 1] + 0 || b < r[i] + 0 || i in seen) continue
    seen[i] = 1
    if (++count[i] <= most) print (i - 1) / 2 "\\t" name
  }
}
END { for (i in count) print "COUNT\\t" (i - 1) / 2 "\\t" count[i] }
'`;

/** A part of a bad range that lies in one device. */
interface Place {
  disk: number;
  range: ByteRange;
  filesystem: Filesystem | undefined;
  /** Offset on the device. */
  deviceBytes: number;
}

/** Cuts ranges at the borders of file systems. */
export function placesOf(
  disk: number,
  ranges: readonly ByteRange[],
  filesystems: readonly Filesystem[],
): Place[] {
  const extents = filesystems
    .flatMap((filesystem) => (filesystem.map ?? []).map((extent) => ({ filesystem, extent })))
    .filter(({ extent }) => extent.disk === disk)
    .sort((a, b) => a.extent.diskOffsetBytes - b.extent.diskOffsetBytes);
  return ranges.flatMap(({ startBytes, lengthBytes }) => {
    const end = startBytes + lengthBytes;
    const places: Place[] = [];
    let at = startBytes;
    const add = (to: number, filesystem?: Filesystem, deviceBytes = 0): void => {
      if (to <= at) return;
      places.push({ disk, range: { startBytes: at, lengthBytes: to - at }, filesystem, deviceBytes });
      at = to;
    };
    for (const { filesystem, extent } of extents) {
      const from = extent.diskOffsetBytes;
      const to = from + extent.lengthBytes;
      if (to <= at || from >= end) continue;
      add(from);
      add(Math.min(to, end), filesystem, extent.startBytes + (at - from));
    }
    add(end);
    return places;
  });
}

/** Names of files by place, and how many there are. */
async function filesAt(
  guest: GuestSession,
  mount: string,
  places: readonly Place[],
): Promise<{ names: string[]; count: number }[]> {
  const words = places.flatMap((p) => [p.deviceBytes, p.deviceBytes + p.range.lengthBytes - 1]);
  const args = [`/sysroot${mount}`, String(MOST_FILES), words.join(' ')];
  const found = places.map(() => ({ names: [] as string[], count: 0 }));
  for (const line of (await guest.appliance(HIT_FILES, args, 3_600_000)).split('\n')) {
    const [a = '', b = '', c = ''] = line.split('\t');
    if (a === 'COUNT') {
      const entry = found[Number(b)];
      if (entry !== undefined) entry.count = Number(c);
    } else if (b.startsWith('./')) {
      found[Number(a)]?.names.push(
        printable(`${mount === '/' ? '' : mount}${line.slice(line.indexOf('\t') + 2)}`),
      );
    }
  }
  return found;
}

const touches = (a: ByteRange, b: ByteRange): boolean =>
  a.startBytes < b.startBytes + b.lengthBytes && b.startBytes < a.startBytes + a.lengthBytes;

/** What is in use of a disk; undefined when it cannot be told. */
async function usedOf(ctx: BadRangeContext, disk: number): Promise<AllocationMap | undefined> {
  try {
    const source = await openFileSource(await ctx.guest.sourceFile(disk));
    try {
      return await allocationMap(source, { signal: ctx.signal });
    } finally {
      await source.close();
    }
  } catch (error) {
    if (ctx.signal.aborted) throw error;
    return undefined;
  }
}

function restHit(place: Place, used: AllocationMap | undefined): BadRange['hit'] {
  const { filesystem, range } = place;
  if (filesystem?.type === 'swap') return 'swap';
  if (used === undefined) return 'unknown';
  if (!used.ranges.some((u) => touches(u, range))) return 'free';
  // where the map had to take a whole part for used, free space and metadata cannot be told apart
  const parts = used.parts.filter((p) =>
    touches({ startBytes: p.startBytes, lengthBytes: p.sizeBytes }, range),
  );
  const isKnown = filesystem !== undefined && MAPPED.test(filesystem.type) && filesystem.dirty !== true;
  return isKnown && parts.every((p) => p.how !== 'whole') ? 'metadata' : 'unknown';
}

/** The guest must be mounted. Warns of what is lost. */
export async function badRangeFacts(
  ctx: BadRangeContext,
  filesystems: readonly Filesystem[],
  mounts: Facts['mounts'],
): Promise<BadRange[]> {
  const facts: BadRange[] = [];
  for (const [disk, { badRanges }] of ctx.disks.entries()) {
    if (badRanges.length === 0) continue;
    ctx.progress({ text: 'looking for what unreadable places hit' });
    const places = placesOf(disk, badRanges.slice(0, MOST_RANGES), filesystems);
    const used = await usedOf(ctx, disk);
    const hits = new Map<Place, { names: string[]; count: number }>();
    for (const { path, device } of mounts) {
      const here = places.filter((p) => p.filesystem?.device === device);
      if (here.length === 0 || !MAPPED.test(here[0]?.filesystem?.type ?? '')) continue;
      if (here.some((p) => hits.has(p))) continue; // the same file system mounted once more
      for (const [i, hit] of (await filesAt(ctx.guest, path, here)).entries()) {
        if (here[i] !== undefined) hits.set(here[i], hit);
      }
    }
    for (const place of places) {
      const { names, count } = hits.get(place) ?? { names: [], count: 0 };
      facts.push({
        disk,
        ...place.range,
        ...(place.filesystem === undefined ? {} : { device: place.filesystem.device }),
        hit: names.length > 0 ? 'files' : restHit(place, used),
        files: names,
        moreFiles: count - names.length,
      });
    }
  }
  if (facts.length > 0) ctx.warn(badRangeText(facts));
  return facts;
}

/** `3 unreadable places: 2 hit /var/log/x, /srv/app/y; 1 hit free space`. */
export function badRangeText(facts: readonly BadRange[]): string {
  const words: Record<Exclude<BadRange['hit'], 'files'>, string> = {
    metadata: 'folders or other metadata of a file system',
    free: 'free space',
    swap: 'swap',
    unknown: 'no file that is known (free space or metadata)',
  };
  const parts: string[] = [];
  const inFiles = facts.filter((f) => f.hit === 'files');
  if (inFiles.length > 0) {
    const names = [...new Set(inFiles.flatMap((f) => f.files))];
    const more = names.length - TOLD_FILES + inFiles.reduce((sum, f) => sum + f.moreFiles, 0);
    parts.push(
      `${inFiles.length} hit ${names.slice(0, TOLD_FILES).join(', ')}${more > 0 ? ` and ${more} more files` : ''}`,
    );
  }
  for (const [hit, text] of Object.entries(words)) {
    const count = facts.filter((f) => f.hit === hit).length;
    if (count > 0) parts.push(`${count} hit ${text}`);
  }
  return `${facts.length} places that could not be read, now zeros: ${parts.join('; ')}`;
}
