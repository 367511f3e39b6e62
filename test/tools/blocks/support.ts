/** Nights of one disk, with a store in memory. */
import { createHash, randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { expect } from 'vitest';
import { BLOCK_BYTES, type BlockIndex } from '../../../core/sync/block-index.ts';
import {
  type Composed,
  type ComposedReader,
  compose,
  composedDigests,
} from '../../../tools/blocks/compose.ts';
import { indexDisk, readBlock } from '../../../tools/blocks/index-disk.ts';
import { packsOf } from '../../../tools/blocks/pack.ts';
import type { BlockTable } from '../../../tools/blocks/table.ts';
import * as qemuImg from '../../../tools/qemu-img.ts';

/** Packs as a store would hold them. */
export const store = new Map<string, Buffer>();

/** Text that compresses like files do. */
export function wordy(bytes: number, seed: number): Buffer {
  const words = ['server', 'error', 'listen', 'daemon', 'kernel', 'package', 'update', `${seed}`];
  let text = '';
  for (let i = seed; text.length < bytes; i = (i * 1103515245 + 12345) % 2147483648)
    text += `${words[i % 8]} ${i}\n`;
  return Buffer.from(text.slice(0, bytes));
}

/** One night: stores what is not in the table, and describes the image over all of it. */
export async function night(
  dir: string,
  disk: Buffer,
  table: BlockTable,
): Promise<{ index: BlockIndex; sent: number; raw: string; composed: Composed }> {
  const raw = path.join(dir, `disk-${randomBytes(4).toString('hex')}.raw`);
  await fs.writeFile(raw, disk);
  const index = await indexDisk(raw, { virtualBytes: disk.length });
  expect(index.rawSha256).toBe(createHash('sha256').update(disk).digest('hex'));
  const missing: { digest: string; number: number }[] = [];
  for (let at = 0; at < index.count; at++) {
    const digest = index.digestAt(at);
    if (table.find(digest) === undefined) missing.push({ digest, number: index.numbers[at] ?? 0 });
  }
  const handle = await fs.open(raw, 'r');
  const buffer = Buffer.alloc(BLOCK_BYTES);
  let sent = 0;
  try {
    for await (const pack of packsOf(missing, (number) => readBlock(handle, number, buffer, disk.length))) {
      store.set(pack.id, pack.bytes);
      table.addPack(pack);
      sent += pack.bytes.length;
    }
  } finally {
    await handle.close();
  }
  return { index, sent, raw, composed: compose(index, table) };
}

/** Writes the image as a cloud would see it. */
export async function written(dir: string, composed: Composed): Promise<string> {
  const file = path.join(dir, `image-${randomBytes(4).toString('hex')}.qcow2`);
  const pieces = composed.parts.map((part) =>
    part.kind === 'bytes'
      ? part.bytes
      : (store.get(part.pack) ?? Buffer.alloc(0)).subarray(part.offset, part.offset + part.length),
  );
  await fs.writeFile(file, Buffer.concat(pieces));
  return file;
}

/** Asks qemu-img about the written image and compares its digests. Returns the bytes that were fetched for them. */
export async function proved(
  dir: string,
  composed: Composed,
  raw: string,
  index: BlockIndex,
  table: BlockTable,
): Promise<number> {
  const file = await written(dir, composed);
  const image = { path: file, format: 'qcow2' };
  expect((await fs.stat(file)).size).toBe(composed.totalBytes);
  expect(await qemuImg.check(image)).toMatchObject({ corruptions: 0, leaks: 0 });
  expect(await qemuImg.compare(image, { path: raw, format: 'raw' })).toBe(true);
  const handle = await fs.open(raw, 'r');
  try {
    const fetch: ComposedReader['fetch'] = async (pack, offset, length) =>
      Buffer.from((store.get(pack) ?? Buffer.alloc(0)).subarray(offset, offset + length));
    const digests = await composedDigests(composed, { handle, index, table, fetch });
    const content = await fs.readFile(file);
    expect(digests.bytes).toBe(content.length);
    expect(digests.sha512).toBe(createHash('sha512').update(content).digest('hex'));
    return digests.fetchedBytes;
  } finally {
    await handle.close();
  }
}
