/** Proof that what the host reads from the source is what the appliance reads through the file system. */
import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import type { GuestSession } from '../core/guest.ts';
import { MIB } from '../core/sizes.ts';
import type { TreeContent } from './tree-content.ts';
import type { TreeEntry } from './tree-walk.ts';

/** A part of a file that is read both ways. */
export interface Sample {
  entry: TreeEntry;
  offset: number;
  length: number;
}

const WINDOW_BYTES = MIB;
const SAMPLES = 24;

// One dd and one sha256sum per sample. Every third field is a name, which no shell line ever contains.
const HASH = `
set -eu
LC_ALL=C; export LC_ALL
cd "$1"
xargs -0 -r -n 3 sh -c 'dd if="$2" bs=1048576 skip="$0" count="$1" iflag=skip_bytes,count_bytes status=none | sha256sum' < "$2"
`;

/** First, last and largest file, and others spread over the tree; of large files the start, the middle and the end. */
export function chooseSamples(entries: readonly TreeEntry[], count = SAMPLES): Sample[] {
  const files = entries.filter((e) => e.type === 'file' && e.size > 0 && e.map?.direct === true);
  const chosen = new Set<TreeEntry>();
  const add = (entry: TreeEntry | undefined) => entry !== undefined && chosen.add(entry);
  add(files[0]);
  add(files.at(-1));
  const bySize = [...files].sort((a, b) => b.size - a.size);
  for (const entry of bySize.slice(0, 3)) add(entry);
  // Spread by a digest of the name: without a pattern, and the same at every run.
  const spread = files
    .map((entry) => ({ entry, key: createHash('sha256').update(entry.path, 'latin1').digest('hex') }))
    .sort((a, b) => (a.key < b.key ? -1 : 1));
  for (const { entry } of spread) if (chosen.size < count) add(entry);
  return [...chosen].flatMap((entry) => {
    if (entry.size <= WINDOW_BYTES) return [{ entry, offset: 0, length: entry.size }];
    const last = entry.size - WINDOW_BYTES;
    const offsets = entry.size > 8 * WINDOW_BYTES ? [0, Math.floor(last / 2), last] : [last];
    return offsets.map((offset) => ({ entry, offset, length: WINDOW_BYTES }));
  });
}

/** sha256 of a part of a file as the host sees it, holes as zeros. */
async function hashPart(content: TreeContent, { entry, offset, length }: Sample): Promise<string> {
  const hash = createHash('sha256');
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
  return hash.digest('hex');
}

/** Reads samples both ways; returns the entries that differ. `root` is the guest path of the tree. */
export async function proveContent(
  guest: GuestSession,
  root: string,
  samples: readonly Sample[],
  content: TreeContent,
  tmpDir: string,
): Promise<TreeEntry[]> {
  if (samples.length === 0) return [];
  const list = path.join(tmpDir, 'samples.list');
  const inGuest = `${guest.exchange}/samples.list`;
  const fields = samples.map((s) => `${s.offset}\0${s.length}\0./${s.entry.path}\0`).join('');
  await fs.writeFile(list, Buffer.from(fields, 'latin1'));
  let theirs: string[];
  try {
    await guest.upload(list, inGuest);
    const output = await guest.appliance(HASH, [`/sysroot${root}`, `/sysroot${inGuest}`]);
    theirs = output
      .trim()
      .split('\n')
      .map((line) => line.slice(0, 64));
  } finally {
    await fs.rm(list, { force: true });
    await guest.remove(inGuest);
  }
  const different: TreeEntry[] = [];
  for (const [i, sample] of samples.entries()) {
    if ((await hashPart(content, sample)) !== theirs[i]) different.push(sample.entry);
  }
  return different;
}
