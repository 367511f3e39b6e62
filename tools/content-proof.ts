/** Proof that what the host reads from the source is what the appliance reads through the file system. */
import { createHash, type Hash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import type { GuestSession } from '../core/guest.ts';
import type { TreeContent } from './tree-content.ts';
import type { TreeEntry } from './tree-walk.ts';

/** A part of a file that is read both ways. */
export interface Sample {
  entry: TreeEntry;
  offset: number;
  length: number;
}

const WINDOW_BYTES = 256 * 1024;
const FILES = 16;

// Everything as one stream, so that a handful of processes does it. $1 is the tree, $2 whole files, $3 parts of files.
// No shell line ever contains a name.
const HASH = `
set -eu
LC_ALL=C; export LC_ALL
cd "$1"
{
  xargs -0 -r cat < "$2"
  xargs -0 -r sh -c 'while [ $# -ge 3 ]; do dd if="$3" bs=262144 skip="$1" count="$2" iflag=skip_bytes,count_bytes status=none; shift 3; done' sh < "$3"
} | sha256sum
`;

/** First, last, largest and some other files whole; of large files the start, the middle and the end. */
export function chooseSamples(entries: readonly TreeEntry[], count = FILES): Sample[] {
  const files = entries.filter((e) => e.type === 'file' && e.size > 0 && e.map?.direct === true);
  const chosen = new Set<TreeEntry>([...files.slice(0, 1), ...files.slice(-1)]);
  const bySize = [...files].sort((a, b) => b.size - a.size);
  for (const entry of bySize.slice(0, 3)) chosen.add(entry);
  // Spread by a digest of the name: without a pattern, and the same at every run.
  const spread = files
    .map((entry) => ({ entry, key: createHash('sha256').update(entry.path, 'latin1').digest('hex') }))
    .sort((a, b) => (a.key < b.key ? -1 : 1));
  for (const { entry } of spread) if (chosen.size < count) chosen.add(entry);
  return [...chosen].flatMap((entry) => {
    if (entry.size <= WINDOW_BYTES) return [{ entry, offset: 0, length: entry.size }];
    // A part of a sparse file is taken where its data is.
    const [start = 0] = entry.map?.extents.map((e) => e.logicalBytes) ?? [];
    const last = entry.size - WINDOW_BYTES;
    const offsets =
      entry.size > 4 * WINDOW_BYTES ? [Math.min(start, last), Math.floor(last / 2), last] : [last];
    return offsets.map((offset) => ({ entry, offset, length: WINDOW_BYTES }));
  });
}

/** Adds a part of a file as the host sees it, holes as zeros. */
async function addPart(hash: Hash, content: TreeContent, { entry, offset, length }: Sample): Promise<void> {
  let at = offset;
  const end = offset + length;
  for (const [start, size] of content.ranges(entry)) {
    const from = Math.max(start, at);
    const to = Math.min(start + size, end);
    if (to <= from) continue;
    hash.update(Buffer.alloc(from - at));
    for await (const chunk of content.read(entry, from, to - from)) hash.update(chunk);
    at = to;
  }
  hash.update(Buffer.alloc(end - at));
}

/** Reads samples both ways; true when all are equal. `root` is the guest path of the tree. */
export async function proveContent(
  guest: GuestSession,
  root: string,
  samples: readonly Sample[],
  content: TreeContent,
  tmpDir: string,
): Promise<boolean> {
  if (samples.length === 0) return true;
  const isWhole = (s: Sample) => s.offset === 0 && s.length === s.entry.size;
  const whole = samples.filter(isWhole);
  const parts = samples.filter((s) => !isWhole(s));
  const lists = [
    whole.map((s) => `./${s.entry.path}\0`).join(''),
    parts.map((s) => `${s.offset}\0${s.length}\0./${s.entry.path}\0`).join(''),
  ];
  const names = lists.map((_, i) => `samples.${i}`);
  let theirs: string;
  try {
    for (const [i, name] of names.entries()) {
      const list = path.join(tmpDir, name);
      await fs.writeFile(list, Buffer.from(lists[i] ?? '', 'latin1'));
      await guest.upload(list, `${guest.exchange}/${name}`);
    }
    const args = [`/sysroot${root}`, ...names.map((name) => `/sysroot${guest.exchange}/${name}`)];
    theirs = (await guest.appliance(HASH, args)).slice(0, 64);
  } finally {
    for (const name of names) {
      await fs.rm(path.join(tmpDir, name), { force: true });
      await guest.remove(`${guest.exchange}/${name}`);
    }
  }
  const hash = createHash('sha256');
  for (const sample of [...whole, ...parts]) await addPart(hash, content, sample);
  return hash.digest('hex') === theirs;
}
