/**
 * The copy of a disk while it grows: `NAME.raw`, sparse, and `NAME.index`, which says of each block what is known of
 * it. What the index says was on the disk before: it survives a kill at any moment and a power loss. A block that is
 * written over is unknown until the new bytes are safe. The order of writes holds while the machine runs; after
 * another boot, all bytes are compared with the index.
 */
import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { BLOCK_BYTES } from '../../core/disk-source.ts';
import { PortError } from '../../core/errors.ts';
import { FILE_MODE, makeDir } from '../../core/files.ts';
import { printable } from '../../core/text.ts';
import { type BadParts, readBadList } from './bad-list.ts';
import { DiskCopy, hostError } from './disk-copy.ts';
import { IndexFile } from './index-file.ts';
import { type CheckOptions, differingBlocks } from './local-check.ts';

export { DiskCopy } from './disk-copy.ts';
export type { CheckOptions } from './local-check.ts';
export { isZero, zeroSum } from './zeros.ts';

/** What a copy is of. */
export interface CopyIdentity {
  sizeBytes: number;
  /** Names the source and the disk of it; another one never continues this copy. */
  sourceId: string;
}

/** How to open a copy. */
export interface OpenCopyOptions extends CheckOptions {
  /** Compare all bytes with the index now; by default only when the machine was booted since they were written. */
  verify?: 'all' | undefined;
}

/**
 * Opens the copy `NAME.raw` in `dir`, or starts an empty one. Blocks whose bytes are not what the index says count as
 * missing.
 * Throws JOB_MISMATCH for a copy of another disk, JOB_TAMPERED, DISK_SPACE, HOST_IO, INTERRUPTED.
 */
export async function openDiskCopy(
  dir: string,
  name: string,
  identity: CopyIdentity,
  options: OpenCopyOptions = {},
): Promise<DiskCopy> {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/.test(name)) {
    throw new PortError('BUG', `not a name for a copy: ${printable(name)}`);
  }
  await makeDir(dir);
  // what is started for a file runs elsewhere and reads no relative names
  const base = path.resolve(dir, name);
  try {
    return await openFiles(base, identity, options);
  } catch (error) {
    throw hostError(error, `${base}.raw`);
  }
}

async function openFiles(base: string, identity: CopyIdentity, options: OpenCopyOptions): Promise<DiskCopy> {
  const rawPath = `${base}.raw`;
  const indexPath = `${base}.index`;
  const sourceSha256 = createHash('sha256').update(identity.sourceId).digest('hex');
  const isNew = await fs.access(indexPath).then(
    () => false,
    () => true,
  );
  const flags = fs.constants.O_RDWR | fs.constants.O_CREAT | fs.constants.O_NOFOLLOW;
  const raw = await fs.open(rawPath, flags, FILE_MODE);
  let index: IndexFile | undefined;
  try {
    if (isNew) {
      // bytes without an index are worth nothing
      await raw.truncate(0);
      const source = identity.sourceId.slice(0, 500);
      await IndexFile.create(indexPath, {
        sizeBytes: identity.sizeBytes,
        blockBytes: BLOCK_BYTES,
        sourceSha256,
        source,
      });
    }
    index = await IndexFile.open(indexPath);
    refuseOther(base, index, identity, sourceSha256);
    const bad = await trustedBadList(`${base}.bad.json`, index);
    const { size } = await raw.stat();
    if (size !== identity.sizeBytes) await raw.truncate(identity.sizeBytes);
    const boot = (await fs.readFile('/proc/sys/kernel/random/boot_id', 'latin1')).trim();
    const fromOtherBoot = (await index.bootId()) !== boot;
    if (!isNew && (fromOtherBoot || options.verify === 'all' || size !== identity.sizeBytes)) {
      await forgetDiffering(rawPath, raw, index, bad, options);
    }
    if (fromOtherBoot) await index.setBootId(boot);
    return new DiskCopy(rawPath, raw, index, `${base}.bad.json`, bad);
  } catch (error) {
    await raw.close();
    await index?.close();
    throw error;
  }
}

function refuseOther(base: string, index: IndexFile, identity: CopyIdentity, sourceSha256: string): void {
  const { header } = index;
  const same = header.sourceSha256 === sourceSha256 && header.sizeBytes === identity.sizeBytes;
  if (same && header.blockBytes === BLOCK_BYTES) return;
  const source = printable(header.source).replace(/\\x0a/g, ' ');
  throw new PortError(
    'JOB_MISMATCH',
    `${printable(base)}.raw is a copy of another disk: ${source}, ${header.sizeBytes} bytes (now ${identity.sizeBytes} bytes)`,
    { hint: 'choose another --job for this source, or remove the old copy' },
  );
}

/** Bad blocks and the list of their bad parts must agree; a bad block without parts would read as a good one. */
async function trustedBadList(file: string, index: IndexFile): Promise<BadParts> {
  const bad = await readBadList(file);
  for (const block of bad.keys()) {
    if (block >= index.blockCount || index.state(block) !== 'bad') bad.delete(block);
  }
  const forgotten: number[] = [];
  for (let i = 0; i < index.blockCount; i++) {
    if (index.state(i) === 'bad' && !bad.has(i)) forgotten.push(i);
  }
  await forget(index, forgotten);
  return bad;
}

async function forgetDiffering(
  rawPath: string,
  raw: fs.FileHandle,
  index: IndexFile,
  bad: BadParts,
  options: CheckOptions,
): Promise<void> {
  const forgotten: number[] = [];
  for await (const block of differingBlocks(rawPath, raw, index, options)) {
    bad.delete(block);
    forgotten.push(block);
  }
  await forget(index, forgotten);
}

async function forget(index: IndexFile, blocks: readonly number[]): Promise<void> {
  for (const block of blocks) index.set(block, 'unknown', 0, Buffer.alloc(32));
  await index.put(blocks);
  await index.sync();
}
