/**
 * Content of guest files. The host reads the source itself wherever the extents tell the place; the rest comes through
 * the appliance in pieces of bounded size, which is slower (14 MB/s were measured without KVM) but always right.
 */
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { PortError } from '../core/errors.ts';
import type { DeviceExtent, Filesystem } from '../core/facts.ts';
import type { GuestSession } from '../core/guest.ts';
import { MIB } from '../core/sizes.ts';
import { printableBytes } from '../core/text.ts';
import { type DataRange, dataRanges, fileRuns } from './extents.ts';
import type { TreeEntry } from './tree-walk.ts';

/** File systems whose FIEMAP offsets are offsets of the device. btrfs gives addresses of its own. */
const PLAIN_OFFSETS = new Set(['ext2', 'ext3', 'ext4', 'xfs']);
// Larger pieces are no faster, and those not yet collected by V8 count as memory of the process.
const READ_BYTES = MIB / 4;
/** A piece through the appliance lies in its tmpfs and once on the host for a moment. */
const PIECE_BYTES = 32 * MIB;
/** Small files travel together up to this many bytes. */
const SMALL_BYTES = 4 * MIB;

/** Reads file content. */
export interface TreeContent {
  /** Offset and length of the data of a file; the rest is zeros. */
  ranges(entry: TreeEntry): DataRange[];
  /** Bytes of a part of one data range. Throws SOURCE_CHANGED when fewer come. */
  read(entry: TreeEntry, offset: number, length: number): AsyncIterable<Uint8Array>;
  /** Tells which files will be read next, so that small ones may travel together. */
  prefetch(entries: readonly TreeEntry[]): Promise<void>;
  /** Closes handles and removes scratch files. */
  close(): Promise<void>;
}

/**
 * The map to the disks when file extents of this file system are device offsets, else undefined. Also undefined for an
 * ext file system with a journal to replay: the journal may hold content of files (data=journal, chattr +j), which the
 * source does not have in its place yet. xfs never has content in its log.
 */
export function plainMap(filesystem: Filesystem | undefined): DeviceExtent[] | undefined {
  if (filesystem?.map === undefined || !PLAIN_OFFSETS.has(filesystem.type)) return undefined;
  if (filesystem.dirty === true && filesystem.type.startsWith('ext')) return undefined;
  return [...filesystem.map].sort((a, b) => a.startBytes - b.startBytes);
}

/** Data ranges of a file; the whole file when nothing better is known. */
export function rangesOf(entry: TreeEntry): DataRange[] {
  if (entry.size === 0) return [];
  // Inline and tail-packed data has no place, but a file that is only partly mapped never has such flags alone.
  if (entry.map === undefined || (!entry.map.direct && entry.map.extents.length < 2))
    return [[0, entry.size]];
  return dataRanges(entry.map.extents, entry.size);
}

const PIECE = `
set -eu
cd "$1"
dd if="./$2" of="$3" bs=1048576 skip="$4" count="$5" iflag=skip_bytes,count_bytes status=none
`;
const SMALL = `
set -eu
cd "$1"
xargs -0 -r cat < "$2" > "$3"
`;

/** Reads through the appliance. */
class ApplianceContent {
  readonly #guest: GuestSession;
  readonly #root: string;
  readonly #dir: string;
  #small = new Map<string, { file: string; offset: number }>();
  #files: string[] = [];

  constructor(guest: GuestSession, root: string, dir: string) {
    this.#guest = guest;
    this.#root = `/sysroot${root}`;
    this.#dir = dir;
  }

  async prefetch(entries: readonly TreeEntry[]): Promise<void> {
    await this.drop();
    const small = entries.filter((e) => e.type === 'file' && e.size > 0 && e.size <= SMALL_BYTES);
    for (let at = 0; at < small.length; ) {
      let bytes = 0;
      const from = at;
      while (at < small.length && (at === from || bytes + (small[at]?.size ?? 0) <= PIECE_BYTES)) {
        bytes += small[at]?.size ?? 0;
        at += 1;
      }
      await this.#fetchSmall(small.slice(from, at), bytes);
    }
  }

  async #fetchSmall(entries: readonly TreeEntry[], bytes: number): Promise<void> {
    const name = `content-${randomBytes(6).toString('hex')}`;
    const list = path.join(this.#dir, `${name}.list`);
    const file = path.join(this.#dir, name);
    const inGuest = `${this.#guest.exchange}/${name}`;
    await fs.writeFile(list, Buffer.from(entries.map((e) => `./${e.path}\0`).join(''), 'latin1'));
    try {
      await this.#guest.upload(list, `${inGuest}.list`);
      await this.#guest.appliance(SMALL, [this.#root, `/sysroot${inGuest}.list`, `/sysroot${inGuest}`]);
      await this.#guest.download(inGuest, file);
      this.#files.push(file);
    } finally {
      await fs.rm(list, { force: true });
      await this.#guest.remove(`${inGuest}.list`);
      await this.#guest.remove(inGuest);
    }
    if ((await fs.stat(file)).size !== bytes) {
      throw new PortError('SOURCE_CHANGED', 'files changed their size while they were read');
    }
    let offset = 0;
    for (const entry of entries) {
      this.#small.set(entry.path, { file, offset });
      offset += entry.size;
    }
  }

  async *read(entry: TreeEntry, offset: number, length: number): AsyncIterable<Uint8Array> {
    const small = this.#small.get(entry.path);
    if (small !== undefined) {
      yield* readHost(small.file, small.offset + offset, length);
      return;
    }
    for (let done = 0; done < length; done += PIECE_BYTES) {
      const take = Math.min(PIECE_BYTES, length - done);
      const name = `content-${randomBytes(6).toString('hex')}`;
      const inGuest = `${this.#guest.exchange}/${name}`;
      const file = path.join(this.#dir, name);
      try {
        await this.#guest.appliance(PIECE, [
          this.#root,
          Buffer.from(entry.path, 'latin1'),
          `/sysroot${inGuest}`,
          String(offset + done),
          String(take),
        ]);
        await this.#guest.download(inGuest, file);
        yield* readHost(file, 0, take);
      } finally {
        await this.#guest.remove(inGuest);
        await fs.rm(file, { force: true });
      }
    }
  }

  async drop(): Promise<void> {
    for (const file of this.#files) await fs.rm(file, { force: true });
    this.#files = [];
    this.#small.clear();
  }
}

async function* readHandle(handle: fs.FileHandle, offset: number, length: number): AsyncIterable<Uint8Array> {
  for (let done = 0; done < length; ) {
    // A fresh buffer each time: the compressor still reads the last one while this one fills.
    const want = Math.min(READ_BYTES, length - done);
    const { bytesRead, buffer } = await handle.read(Buffer.allocUnsafeSlow(want), 0, want, offset + done);
    if (bytesRead === 0) throw new PortError('SOURCE_CHANGED', 'the source ends before the data does');
    done += bytesRead;
    yield buffer.subarray(0, bytesRead);
  }
}

async function* readHost(file: string, offset: number, length: number): AsyncIterable<Uint8Array> {
  const handle = await fs.open(file, 'r');
  try {
    yield* readHandle(handle, offset, length);
  } finally {
    await handle.close();
  }
}

/** How to read a tree. */
export interface ContentOptions {
  guest: GuestSession;
  /** Absolute guest path of the tree. */
  root: string;
  /** From `plainMap`; undefined reads everything through the appliance. */
  map: DeviceExtent[] | undefined;
  /** Scratch folder of the job. */
  tmpDir: string;
}

/** Opens the content of a walked tree. One of these per lane: prefetched files belong to it. */
export async function openContent(options: ContentOptions): Promise<TreeContent> {
  const dir = await fs.mkdtemp(path.join(options.tmpDir, 'content-'));
  const appliance = new ApplianceContent(options.guest, options.root, dir);
  const handles = new Map<number, fs.FileHandle>();
  const { map } = options;
  const isDirect = (entry: TreeEntry) => map !== undefined && entry.map?.direct === true;

  const handleOf = async (disk: number) => {
    let handle = handles.get(disk);
    if (handle === undefined) {
      handle = await fs.open(await options.guest.sourceFile(disk), 'r');
      handles.set(disk, handle);
    }
    return handle;
  };

  return {
    ranges: rangesOf,
    prefetch: (entries) => appliance.prefetch(entries.filter((e) => !isDirect(e))),
    async *read(entry, offset, length) {
      if (!isDirect(entry) || map === undefined || entry.map === undefined) {
        yield* appliance.read(entry, offset, length);
        return;
      }
      const runs = fileRuns(entry.map.extents, map, offset, length);
      if (runs === undefined) {
        const name = printableBytes(Buffer.from(entry.path, 'latin1'));
        throw new PortError('DAMAGED', `${options.root}/${name}: its data lies outside of the mapped disks`);
      }
      for (const run of runs) yield* readHandle(await handleOf(run.disk), run.offsetBytes, run.lengthBytes);
    },
    async close() {
      await appliance.drop();
      for (const handle of handles.values()) await handle.close();
      await fs.rm(dir, { recursive: true, force: true });
    },
  };
}
