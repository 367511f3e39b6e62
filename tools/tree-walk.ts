/**
 * One look at a whole tree of the guest, in one call of the appliance: every name with its metadata, xattrs and the
 * place of its data. Names are raw bytes, held as latin1 strings (one char per byte) because they are short that way.
 */
import { createReadStream } from 'node:fs';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import type { EntryType } from '../core/data-set.ts';
import { PortError } from '../core/errors.ts';
import type { GuestSession } from '../core/guest.ts';
import { printable } from '../core/text.ts';
import { type FileMap, parseFilefrag } from './extents.ts';

/** A member of a tree as found. */
export interface TreeEntry {
  /** Relative to the tree, raw bytes as latin1; empty for its root. */
  path: string;
  type: EntryType;
  mode: number;
  uid: number;
  gid: number;
  /** Bytes of a regular file, else 0. */
  size: number;
  allocatedBytes: number;
  mtimeNs: bigint;
  ctimeNs: bigint;
  /** Target of a symlink or first name of a hard link, raw bytes as latin1. */
  link?: string;
  /** Name to value. */
  xattrs?: Map<string, Buffer>;
  /** Major and minor of a device node. */
  device?: [number, number];
  /** Where the data lies; absent when filefrag could not tell. */
  map?: FileMap;
}

/** A walked tree, sorted by path so that folders come before their content. */
export interface Tree {
  entries: TreeEntry[];
  /** Sockets, which have no meaning on a disk at rest and are left out. */
  sockets: string[];
  /** Folders on which another file system is mounted; their content is not part of the tree. */
  foreign: string[];
}

// Data that is still on its way to the disk would look unwritten, so sync comes first. Fields end with a blank, names with NUL, which no name can hold. Many files go to each getfattr and filefrag: a
// process costs milliseconds in an emulated appliance. filefrag prints names raw, so names with a newline are left out.
const WALK = `
set -eu
LC_ALL=C; export LC_ALL
nl=$(printf '\\nx'); nl=\${nl%x}
rm -rf "$2"; mkdir -m 700 "$2"
cd "$1"
sync
find . -xdev -printf '%y %m %U %G %s %b %T@ %C@ %D %i %n\\0%P\\0%l\\0' > "$2/entries"
find . -xdev \\( -type b -o -type c \\) -exec stat --printf '%t %T %n\\0' {} + > "$2/devices"
find . -xdev -print0 | xargs -0 -r getfattr -h -P -d -m - -e hex > "$2/xattrs"
find . -xdev -type f -size +0 ! -path "*$nl*" -print0 | xargs -0 -r filefrag -v -b1 > "$2/extents" 2>/dev/null || :
`;

const TYPES: Readonly<Record<string, EntryType>> = {
  f: 'file',
  d: 'dir',
  l: 'symlink',
  p: 'fifo',
  c: 'char',
  b: 'block',
};

/** Nanoseconds out of find's `SECONDS.FRACTION`, where the fraction counts forward even below zero. */
export function findTime(text: string): bigint {
  const match = /^(-?\d+)(?:\.(\d+))?$/.exec(text);
  if (match === null) throw new PortError('APPLIANCE', `find printed no time: ${printable(text)}`);
  return BigInt(match[1] ?? '0') * 1_000_000_000n + BigInt((match[2] ?? '').padEnd(9, '0').slice(0, 9));
}

/** NUL-ended fields of a file as latin1 strings, in pieces of bounded size. */
async function* fields(file: string): AsyncIterable<string> {
  let rest = '';
  for await (const chunk of createReadStream(file, { encoding: 'latin1', highWaterMark: 1 << 18 })) {
    const parts = (rest + (chunk as string)).split('\0');
    rest = parts.pop() ?? '';
    yield* parts;
  }
  if (rest !== '') throw new PortError('APPLIANCE', 'the list of files from the appliance is cut off');
}

/** Lines of a file as latin1 strings. Not readline: it ends lines at a carriage return too, which names may hold. */
async function lines(file: string): Promise<string[]> {
  const all: string[] = [];
  let rest = '';
  for await (const chunk of createReadStream(file, { encoding: 'latin1', highWaterMark: 1 << 18 })) {
    const parts = (rest + (chunk as string)).split('\n');
    rest = parts.pop() ?? '';
    for (const part of parts) all.push(part);
  }
  if (rest !== '') all.push(rest);
  return all;
}

function octalUnescape(name: string): string {
  return name.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

const relative = (name: string) => (name === '.' ? '' : name.replace(/^\.\//, ''));

/** Reads `getfattr -d -m - -e hex` run inside the tree: path → name → value. */
export async function parseXattrs(
  source: AsyncIterable<string> | Iterable<string>,
): Promise<Map<string, Map<string, Buffer>>> {
  const files = new Map<string, Map<string, Buffer>>();
  let current: Map<string, Buffer> | undefined;
  for await (const line of source) {
    if (line.startsWith('# file: ')) {
      current = new Map();
      files.set(relative(octalUnescape(line.slice(8))), current);
    } else if (line !== '' && current !== undefined) {
      // A name cannot hold a raw `=`: getfattr escapes it. No `=` at all means an empty value.
      const at = line.indexOf('=');
      const name = octalUnescape(at === -1 ? line : line.slice(0, at));
      current.set(name, Buffer.from(at === -1 ? '' : line.slice(at + 3), 'hex'));
    }
  }
  return files;
}

/**
 * Walks `root` (an absolute guest path) and returns it sorted by path. Stays on its file system. Throws APPLIANCE when
 * the appliance cannot read it.
 */
export async function walkTree(guest: GuestSession, root: string, tmpDir: string): Promise<Tree> {
  const exchange = `${guest.exchange}/walk`;
  await guest.appliance(WALK, [`/sysroot${root}`, `/sysroot${exchange}`], 3_600_000);
  const dir = await fs.mkdtemp(path.join(tmpDir, 'walk-'));
  try {
    for (const name of ['entries', 'devices', 'xattrs', 'extents']) {
      await guest.download(`${exchange}/${name}`, path.join(dir, name));
    }
    await guest.remove(exchange);
    return await readWalk(dir);
  } finally {
    await fs.rm(dir, { recursive: true, force: true });
  }
}

/** Reads the four files of a walk. */
async function readWalk(dir: string): Promise<Tree> {
  const xattrs = await parseXattrs(await lines(path.join(dir, 'xattrs')));
  const maps = parseFilefrag(await lines(path.join(dir, 'extents')));
  const devices = new Map<string, [number, number]>();
  for await (const field of fields(path.join(dir, 'devices'))) {
    const [, major = '', minor = '', name = ''] = /^([0-9a-f]+) ([0-9a-f]+) ([\s\S]*)$/.exec(field) ?? [];
    devices.set(relative(name), [Number.parseInt(major, 16), Number.parseInt(minor, 16)]);
  }
  const entries: (TreeEntry & { key?: string })[] = [];
  const sockets: string[] = [];
  const foreign: string[] = [];
  let rootDevice: string | undefined;
  let record: string[] = [];
  for await (const field of fields(path.join(dir, 'entries'))) {
    record.push(field);
    if (record.length < 3) continue;
    const [meta = '', name = '', link = ''] = record;
    record = [];
    const [y = '', mode, uid, gid, size, blocks, mtime = '', ctime = '', device = '', inode, nlink] =
      meta.split(' ');
    rootDevice ??= device;
    if (y === 's') {
      sockets.push(name);
      continue;
    }
    if (device !== rootDevice) foreign.push(name);
    const type = TYPES[y];
    if (type === undefined)
      throw new PortError('APPLIANCE', `find printed an unknown type: ${printable(meta)}`);
    const nodes = devices.get(name);
    const attributes = xattrs.get(name);
    const map = maps.get(`./${name}`);
    entries.push({
      path: name,
      type,
      mode: Number.parseInt(mode ?? '', 8),
      uid: Number(uid),
      gid: Number(gid),
      size: type === 'file' ? Number(size) : 0,
      allocatedBytes: Number(blocks) * 512,
      mtimeNs: findTime(mtime),
      ctimeNs: findTime(ctime),
      ...(type === 'symlink' ? { link } : {}),
      ...(attributes === undefined ? {} : { xattrs: attributes }),
      ...(nodes === undefined ? {} : { device: nodes }),
      ...(map === undefined ? {} : { map }),
      ...(type !== 'dir' && Number(nlink) > 1 ? { key: `${device}:${inode}` } : {}),
    });
  }
  entries.sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
  joinHardLinks(entries);
  return { entries, sockets, foreign };
}

/** The first name keeps the data, the others become links to it. */
function joinHardLinks(entries: (TreeEntry & { key?: string })[]): void {
  const first = new Map<string, string>();
  for (const entry of entries) {
    if (entry.key === undefined) continue;
    const seen = first.get(entry.key);
    if (seen === undefined) first.set(entry.key, entry.path);
    else {
      entry.type = 'link';
      entry.link = seen;
      entry.size = 0;
      entry.allocatedBytes = 0;
      delete entry.map;
      delete entry.xattrs;
      delete entry.device;
    }
    delete entry.key;
  }
}
