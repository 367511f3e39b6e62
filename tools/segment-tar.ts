/**
 * One segment of a data set as a complete tar archive, made so that GNU tar restores every property: raw names, owners,
 * times to the nanosecond, xattrs, ACLs, holes. tar-stream frames the members; the extended headers are ours (bytes).
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import type { Writable } from 'node:stream';
import { type Pack, pack } from 'tar-stream';
import { PortError } from '../core/errors.ts';
import type { DataRange } from './extents.ts';
import { type PaxRecord, paxHeader, paxTime, xattrKeyword } from './pax.ts';
import { aclText } from './posix-acl.ts';
import type { TreeContent } from './tree-content.ts';
import type { TreeEntry } from './tree-walk.ts';

const BLOCK = 512;
const MAX_OCTAL_ID = 0o7777777;
const ZEROS = Buffer.alloc(1 << 20);
const ASCII = /^[\x21-\x7e][\x20-\x7e]*$/;

/** A member of a segment. Folders come twice: bare where their content starts, and complete at the very end. */
export interface Member {
  entry: TreeEntry;
  /** A folder without its properties, private until the last segment completes it. */
  bare: boolean;
}

/** True when the data does not cover the whole file. */
export function isSparse(ranges: readonly DataRange[], size: number): boolean {
  return ranges.reduce((sum, [, length]) => sum + length, 0) < size;
}

/** The map at the start of a GNU sparse 1.0 member, padded to whole blocks. */
export function sparseMap(ranges: readonly DataRange[], size: number): Buffer {
  const last = ranges.at(-1);
  // GNU tar ends with an empty range at the end of the file when that is a hole.
  const all = last !== undefined && last[0] + last[1] === size ? ranges : [...ranges, [size, 0] as DataRange];
  const text = `${all.length}\n${all.map(([offset, length]) => `${offset}\n${length}\n`).join('')}`;
  const body = Buffer.from(text, 'latin1');
  return Buffer.concat([body, Buffer.alloc((BLOCK - (body.length % BLOCK)) % BLOCK)]);
}

function records(member: Member, archivePath: string, sparse: boolean): PaxRecord[] {
  const { entry } = member;
  const list: PaxRecord[] = [];
  const raw = (text: string) => Buffer.from(text, 'latin1');
  if (sparse) {
    list.push(['GNU.sparse.major', '1'], ['GNU.sparse.minor', '0']);
    list.push(['GNU.sparse.name', raw(archivePath)], ['GNU.sparse.realsize', String(entry.size)]);
  } else if (archivePath.length > 100 || !ASCII.test(archivePath)) list.push(['path', raw(archivePath)]);
  if (entry.link !== undefined && (entry.link.length > 100 || !ASCII.test(entry.link))) {
    list.push(['linkpath', raw(entry.link)]);
  }
  if (member.bare) return list;
  if (entry.uid > MAX_OCTAL_ID) list.push(['uid', String(entry.uid)]);
  if (entry.gid > MAX_OCTAL_ID) list.push(['gid', String(entry.gid)]);
  const seconds = entry.mtimeNs / 1_000_000_000n;
  if (entry.mtimeNs < 0n || entry.mtimeNs % 1_000_000_000n !== 0n || seconds > 0x7fffffffn) {
    list.push(['mtime', paxTime(entry.mtimeNs)]);
  }
  for (const [name, value] of entry.xattrs ?? []) {
    // GNU tar writes ACLs in both forms; readers take the one they know.
    if (name === 'system.posix_acl_access') list.push(['SCHILY.acl.access', aclText(value)]);
    if (name === 'system.posix_acl_default') list.push(['SCHILY.acl.default', aclText(value)]);
    list.push([xattrKeyword(name), value]);
  }
  return list;
}

/** Type flags of tar-stream for the kinds of entries. */
export const TAR_TYPES = {
  file: 'file',
  dir: 'directory',
  symlink: 'symlink',
  link: 'link',
  fifo: 'fifo',
  char: 'character-device',
  block: 'block-device',
} as const;

/** Result of a written segment. */
export interface WrittenSegment {
  /** sha256 of the content (holes as zeros) by path, of regular files. */
  digests: Map<string, string>;
}

/** Bytes a member takes in the archive, about. */
export function memberBytes(member: Member, content: Pick<TreeContent, 'ranges'>): number {
  const data =
    member.entry.type === 'file' && !member.bare
      ? content.ranges(member.entry).reduce((sum, [, length]) => sum + length, 0)
      : 0;
  return 3 * BLOCK + data;
}

/**
 * Writes members as a tar archive; `out` yields it. `done` settles when the last byte was taken, and must be awaited
 * with the consumption of `out`.
 */
export function writeSegment(
  members: readonly Member[],
  content: TreeContent,
  signal: AbortSignal,
): { out: AsyncIterable<Uint8Array>; done: Promise<WrittenSegment> } {
  const tar = pack();
  const digests = new Map<string, string>();
  const produce = async (): Promise<WrittenSegment> => {
    try {
      await content.prefetch(members.filter((m) => m.entry.type === 'file').map((m) => m.entry));
      for (const [index, member] of members.entries()) {
        signal.throwIfAborted();
        const digest = await writeMember(tar, member, index, content);
        if (digest !== undefined) digests.set(member.entry.path, digest);
      }
      tar.finalize();
      return { digests };
    } catch (error) {
      tar.destroy(error as Error);
      throw error;
    }
  };
  return { out: tar as unknown as AsyncIterable<Uint8Array>, done: produce() };
}

async function writeMember(
  tar: Pack,
  member: Member,
  index: number,
  content: TreeContent,
): Promise<string | undefined> {
  const { entry, bare } = member;
  const ranges = entry.type === 'file' ? content.ranges(entry) : [];
  const sparse = entry.type === 'file' && isSparse(ranges, entry.size);
  const map = sparse ? sparseMap(ranges, entry.size) : undefined;
  const archivePath = entry.type === 'dir' ? (entry.path === '' ? './' : `${entry.path}/`) : entry.path;
  const list = records(member, archivePath, sparse);
  if (list.length > 0) tar.push(paxHeader(list));
  // What does not fit the old header has a record above; the header then holds a stand-in.
  const plain = !list.some(([k]) => k === 'path' || k === 'GNU.sparse.name');
  const plainLink = !list.some(([k]) => k === 'linkpath');
  const seconds = Number(entry.mtimeNs / 1_000_000_000n);
  const size =
    entry.type === 'file' ? (map?.length ?? 0) + ranges.reduce((sum, [, length]) => sum + length, 0) : 0;
  const header = {
    name: plain ? archivePath : sparse ? `GNUSparseFile.0/${index}` : `entry/${index}`,
    type: TAR_TYPES[entry.type],
    // tar-stream takes mode 0 for "not given"; the bits above are masked off when it writes.
    mode: 0o100000 | (bare ? 0o700 : entry.mode),
    uid: bare ? 0 : entry.uid,
    gid: bare ? 0 : entry.gid,
    size,
    mtime: new Date(bare || seconds < 0 || seconds > 0x7fffffff ? 0 : seconds * 1000),
    ...(entry.link === undefined ? {} : { linkname: plainLink ? entry.link : `link/${index}` }),
    ...(entry.device === undefined ? {} : { devmajor: entry.device[0], devminor: entry.device[1] }),
  };
  const closed = Promise.withResolvers<void>();
  // The types describe a streamx stream, which has the interface of Node's own.
  const sink = tar.entry(header, (error) =>
    error ? closed.reject(error) : closed.resolve(),
  ) as unknown as Writable;
  sink.on('error', closed.reject);
  // It may fail while nobody waits for it (content is being read); the next write tells.
  closed.promise.catch(() => {});
  if (entry.type !== 'file') {
    sink.end();
    await closed.promise;
    return undefined;
  }
  const write = async (chunk: Uint8Array) => {
    if (!sink.write(chunk)) await Promise.race([once(sink, 'drain'), closed.promise]);
  };
  const hash = createHash('sha256');
  if (map !== undefined) await write(map);
  let at = 0;
  for (const [offset, length] of ranges) {
    zeros(hash, offset - at);
    let got = 0;
    for await (const chunk of content.read(entry, offset, length)) {
      hash.update(chunk);
      got += chunk.byteLength;
      await write(chunk);
    }
    if (got !== length) throw new PortError('SOURCE_CHANGED', `${got} bytes came instead of ${length}`);
    at = offset + length;
  }
  zeros(hash, entry.size - at);
  sink.end();
  await closed.promise;
  return hash.digest('hex');
}

function zeros(hash: { update(data: Uint8Array): unknown }, bytes: number): void {
  for (let left = bytes; left > 0; left -= ZEROS.length)
    hash.update(ZEROS.subarray(0, Math.min(left, ZEROS.length)));
}
