/** `NAME.bad.json`: which parts of which blocks of a disk copy could not be read. */
import * as fs from 'node:fs/promises';
import * as z from 'zod';
import { BLOCK_BYTES, type ByteRange } from '../../core/disk-source.ts';
import { writeJson } from '../../core/files.ts';
import { parsedJson } from '../../core/text.ts';

/** Number of the block, offset from its start, length: one for each unreadable run. */
const BadList = z.array(
  z.tuple([
    z.number().int().nonnegative(),
    z.number().int().nonnegative().max(BLOCK_BYTES),
    z.number().int().positive().max(BLOCK_BYTES),
  ]),
);

/** Unreadable parts by number of the block; offsets from the start of the block. */
export type BadParts = Map<number, readonly ByteRange[]>;

/** Reads the list; a file that is not there or makes no sense is an empty list: its blocks then count as missing. */
export async function readBadList(file: string): Promise<BadParts> {
  const found: Map<number, ByteRange[]> = new Map();
  const text = await fs.readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return '[]';
    throw error;
  });
  const parsed = BadList.safeParse(parsedJson(text));
  for (const [block, startBytes, lengthBytes] of parsed.data ?? []) {
    found.set(block, [...(found.get(block) ?? []), { startBytes, lengthBytes }]);
  }
  return found;
}

/** Writes the list, whole or not at all. */
export async function writeBadList(file: string, parts: BadParts): Promise<void> {
  const list = [...parts.entries()].flatMap(([block, ranges]) =>
    ranges.map((r): [number, number, number] => [block, r.startBytes, r.lengthBytes]),
  );
  await writeJson(file, list);
}

/** The list as runs of the disk, ascending, touching ones joined. */
export function badRangesOf(parts: BadParts): ByteRange[] {
  const joined: ByteRange[] = [];
  for (const block of [...parts.keys()].sort((a, b) => a - b)) {
    for (const { startBytes, lengthBytes } of parts.get(block) ?? []) {
      const at = block * BLOCK_BYTES + startBytes;
      const last = joined.at(-1);
      if (last !== undefined && last.startBytes + last.lengthBytes === at) last.lengthBytes += lengthBytes;
      else joined.push({ startBytes: at, lengthBytes });
    }
  }
  return joined;
}
