/**
 * What EBS has acknowledged of a snapshot: one line per block, written when the answer is there. A line that is lost costs
 * one block sent again, so nothing is flushed; a torn last line is left out.
 */
import * as fs from 'node:fs/promises';
import { FILE_MODE, writeFileAtomic } from '../../core/files.ts';

/** What the journal is about. */
export interface SnapshotHead {
  snapshot: string;
  /** sha256 of the image file, hex: another image needs another snapshot. */
  sha256: string;
  volumeGib: number;
  /** Snapshot this one is a change of. */
  parent?: string;
  /** Key that was named for it, or for the first of its parents; absent when none was. */
  kmsKeyArn?: string;
}

/** A journal as it was found. */
export interface SnapshotRecord extends SnapshotHead {
  /** base64 sha256 by block number. */
  blocks: Map<number, string>;
  /** The same of the blocks its parents hold. */
  inherited: Map<number, string>;
  completed: boolean;
}

/** All that a snapshot shows: its own blocks, else those of its parents. */
export function shownBlocks({ inherited, blocks }: SnapshotRecord): Map<number, string> {
  return new Map([...inherited, ...blocks]);
}

const DIGEST = /^[A-Za-z0-9+/]{43}=$/;
const SNAPSHOT = /^snap-[0-9a-f]{8,32}$/;

/** Reads a journal; undefined when there is none, or none that can be used. */
export async function readBlockJournal(file: string): Promise<SnapshotRecord | undefined> {
  let text: string;
  try {
    text = await fs.readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  const [first = '', ...lines] = text.split('\n');
  const head = parse(first);
  if (head === undefined || typeof head.snapshot !== 'string' || !SNAPSHOT.test(head.snapshot))
    return undefined;
  if (typeof head.sha256 !== 'string' || typeof head.volumeGib !== 'number') return undefined;
  const record: SnapshotRecord = {
    snapshot: head.snapshot,
    sha256: head.sha256,
    volumeGib: head.volumeGib,
    ...(typeof head.parent === 'string' ? { parent: head.parent } : {}),
    ...(typeof head.kmsKeyArn === 'string' ? { kmsKeyArn: head.kmsKeyArn } : {}),
    blocks: new Map(),
    inherited: new Map(),
    completed: false,
  };
  const { inheritedBlocks } = head;
  for (const line of lines) {
    const [end, count] = /^\{"completed":true(?:,"blocks":(\d+))?\}$/.exec(line) ?? [];
    // Lines are not flushed: after a loss of power one in the middle may be gone.
    if (end !== undefined) record.completed = count === undefined || Number(count) === record.blocks.size;
    const [, own, index = '', digest = ''] = /^(p?)(\d{1,9}) (\S+)$/.exec(line) ?? [];
    if (!DIGEST.test(digest)) continue;
    (own === 'p' ? record.inherited : record.blocks).set(Number(index), digest);
  }
  // Read while it was begun, or cut off: blocks of the parent nobody knows of would show through.
  if (typeof inheritedBlocks === 'number' && record.inherited.size !== inheritedBlocks) return undefined;
  return record;
}

/** Writes a whole record, in place of an older one. */
export async function writeBlockRecord(file: string, record: SnapshotRecord): Promise<void> {
  const { blocks, inherited, completed, ...head } = record;
  const lines = [headLine(head, inherited)];
  for (const [index, digest] of inherited) lines.push(`p${index} ${digest}`);
  for (const [index, digest] of blocks) lines.push(`${index} ${digest}`);
  if (completed) lines.push(endLine(blocks.size));
  await writeFileAtomic(file, `${lines.join('\n')}\n`);
}

const endLine = (blocks: number): string => JSON.stringify({ completed: true, blocks });

function headLine(head: SnapshotHead, inherited: ReadonlyMap<number, string>): string {
  return JSON.stringify({ ...head, inheritedBlocks: inherited.size });
}

function parse(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

/** A journal that is being written. */
export class BlockJournal {
  readonly #handle: fs.FileHandle;
  #tail: Promise<unknown> = Promise.resolve();

  private constructor(handle: fs.FileHandle) {
    this.#handle = handle;
  }

  /** Begins one, in place of an older one. */
  static async begin(
    file: string,
    head: SnapshotHead,
    inherited: ReadonlyMap<number, string>,
  ): Promise<BlockJournal> {
    const journal = new BlockJournal(await fs.open(file, 'w', FILE_MODE));
    const lines = [...inherited].map(([index, digest]) => `p${index} ${digest}\n`);
    await journal.#handle.appendFile(`${headLine(head, inherited)}\n${lines.join('')}`);
    // The only line that must not be lost: without it nobody knows whose snapshot it is.
    await journal.#handle.sync();
    return journal;
  }

  /** Goes on with one. */
  static async goOn(file: string): Promise<BlockJournal> {
    const journal = new BlockJournal(await fs.open(file, 'a', FILE_MODE));
    // Behind a torn line a new one begins.
    await journal.#handle.write('\n');
    return journal;
  }

  /** Records an acknowledged block. */
  put(index: number, digest: string): Promise<void> {
    return this.#append(`${index} ${digest}\n`);
  }

  /** Records that the snapshot is complete, with so many blocks of its own. */
  complete(blocks: number): Promise<void> {
    return this.#append(`${endLine(blocks)}\n`);
  }

  async close(): Promise<void> {
    await this.#tail.catch(() => {});
    await this.#handle.close();
  }

  /** One write after the other: two at a time could mix their lines. */
  #append(line: string): Promise<void> {
    const next = this.#tail.then(() => this.#handle.appendFile(line));
    this.#tail = next;
    return next;
  }
}
