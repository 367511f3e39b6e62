/** What one stretch of a disk holds: one known thing that is fully understood, or everything counts. */
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import type { ByteSource } from '../image-format/reader.ts';
import { parseBtrfs } from './btrfs.ts';
import { parseExt4 } from './ext4.ts';
import { FreeSpace } from './free-space.ts';
import { type ParsedKind, readSignatures, type Signatures } from './signatures.ts';
import { parseSwap } from './swap.ts';
import type { DiskState, Found, Parser } from './types.ts';
import { parseXfs } from './xfs.ts';

const PARSERS: Readonly<Partial<Record<ParsedKind, Parser>>> = {
  ext4: parseExt4,
  xfs: parseXfs,
  btrfs: parseBtrfs,
  swap: parseSwap,
};

/** A stretch all of which counts. */
export function wholePart(sizeBytes: number, kind: string, note?: string): Found {
  return {
    free: new FreeSpace(),
    parts: [
      {
        startBytes: 0,
        sizeBytes,
        kind,
        allocatedBytes: sizeBytes,
        how: 'whole',
        ...(note === undefined ? {} : { note }),
      },
    ],
  };
}

/**
 * Runs a parser; whatever it finds wrong makes the stretch count whole. Rethrows what is no fault of the content: SOURCE_REMOTE, INTERRUPTED.
 */
export async function wholeOnDoubt(
  sizeBytes: number,
  kind: string,
  parse: () => Promise<Found>,
): Promise<Found> {
  try {
    return await parse();
  } catch (error) {
    if (error instanceof PortError && ['SOURCE_REMOTE', 'INTERRUPTED'].includes(error.code)) throw error;
    return wholePart(sizeBytes, kind, printable(error instanceof Error ? error.message : String(error)));
  }
}

/** Parsers for what was recognised: only when it is one thing and nothing else claims the place. */
export function singleKind({ parsed, foreign }: Signatures): {
  kind: string;
  note?: string;
  known?: ParsedKind;
} {
  const [first] = parsed;
  const all = [...parsed, ...foreign];
  if (all.length > 1) return { kind: 'unknown', note: `it looks like several things: ${all.join(', ')}` };
  if (first !== undefined) return { kind: first, known: first };
  return { kind: foreign[0] ?? 'unknown' };
}

/** Works out what is in use in a file system or swap space. Throws SOURCE_REMOTE, INTERRUPTED. */
export async function fileSystemContent(part: ByteSource, state: DiskState): Promise<Found> {
  return await wholeOnDoubt(part.sizeBytes, 'unknown', async () => {
    const { kind, note, known } = singleKind(await readSignatures(part));
    const parser = known === undefined ? undefined : PARSERS[known];
    if (parser === undefined) return wholePart(part.sizeBytes, kind, note);
    return await wholeOnDoubt(part.sizeBytes, kind, async () => await parser(part, state));
  });
}
