/** Images made by the real programs, and the proof that a copy of the mapped ranges alone is the same file system. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { run } from '../../../core/command.ts';
import type { ByteRange } from '../../../core/disk-source.ts';
import { type AllocationMap, allocationMap, type DiskState } from '../../../tools/allocation/index.ts';
import { fileSource } from '../../../tools/image-format/reader.ts';

/** The map of an image file. */
export async function mapOf(image: string, state: DiskState = 'offline'): Promise<AllocationMap> {
  const handle = await fs.open(image, 'r');
  try {
    return await allocationMap(fileSource(handle, 'disk.img', (await handle.stat()).size), { state });
  } finally {
    await handle.close();
  }
}

/** Copies nothing but the ranges; the rest of the copy is a hole. */
export async function copyRanges(image: string, ranges: readonly ByteRange[], copy: string): Promise<void> {
  const from = await fs.open(image, 'r');
  const to = await fs.open(copy, 'w');
  try {
    await to.truncate((await from.stat()).size);
    const buffer = Buffer.alloc(4 * 1024 * 1024);
    for (const { startBytes, lengthBytes } of ranges) {
      for (let at = 0; at < lengthBytes; at += buffer.length) {
        const length = Math.min(buffer.length, lengthBytes - at);
        await from.read(buffer, 0, length, startBytes + at);
        await to.write(buffer, 0, length, startBytes + at);
      }
    }
  } finally {
    await Promise.all([from.close(), to.close()]);
  }
}

/** Mounts a stretch of an image, calls, unmounts. */
export async function mounted<T>(
  image: string,
  options: string,
  use: (folder: string) => Promise<T>,
): Promise<T> {
  const folder = await fs.mkdtemp('/var/tmp/port-image-mount-');
  try {
    await run('mount', ['-o', `loop,${options}`, image, folder]);
    try {
      return await use(folder);
    } finally {
      await run('umount', [folder]);
    }
  } finally {
    await fs.rmdir(folder);
  }
}

/** Names below a folder as bytes, one character each: not all are UTF-8. */
async function* namesIn(folder: string): AsyncGenerator<string> {
  for (const entry of await fs.readdir(Buffer.from(folder, 'latin1'), {
    withFileTypes: true,
    encoding: 'buffer',
  })) {
    const full = `${folder}/${entry.name.toString('latin1')}`;
    yield full;
    if (entry.isDirectory()) yield* namesIn(full);
  }
}

/** Every name with mode, owner, size and the sum of its content, in order. */
export async function treeDigest(folder: string): Promise<string[]> {
  const lines: string[] = [];
  for await (const name of namesIn(folder)) {
    const full = Buffer.from(name, 'latin1');
    const facts = await fs.lstat(full);
    let content = '';
    if (facts.isSymbolicLink()) content = await fs.readlink(full);
    else if (facts.isFile()) {
      const hash = createHash('sha256');
      for await (const chunk of createReadStream(full)) hash.update(chunk);
      content = hash.digest('hex');
    }
    const size = facts.isDirectory() ? 0 : facts.size;
    const owner = `${facts.uid}:${facts.gid}`;
    lines.push(`${name.slice(folder.length)} ${facts.mode.toString(8)} ${owner} ${size} ${content}`);
  }
  return lines.sort();
}

/** Writes, grows, cuts and deletes files until free space lies in many pieces. Always the same. */
export async function age(folder: string, files = 900): Promise<void> {
  let seed = 1;
  const random = (below: number): number => {
    seed = (seed * 1103515245 + 12345) % 2147483648;
    return Math.floor((seed / 2147483648) * below);
  };
  const content = (length: number): Buffer => Buffer.alloc(length, `${random(1e9)} some content; `);
  for (let round = 0; round < 3; round++) {
    const dir = path.join(folder, `round ${round}`);
    await fs.mkdir(dir);
    for (let i = 0; i < files / 3; i++) {
      const file = path.join(dir, `file ${i}`);
      await fs.writeFile(file, content(1 + random(i % 10 === 0 ? 1_500_000 : 60_000)));
      if (i % 7 === 2) await fs.truncate(file, random(3_000_000));
      if (i % 11 === 3) await fs.appendFile(file, content(random(200_000)));
      if (i % 50 === 5) await fs.symlink('file 0', path.join(dir, `link ${i}`));
    }
    for (let i = 1; i < files / 3; i += 3) await fs.rm(path.join(dir, `file ${i}`));
    await run('sync', ['-f', dir]);
  }
}

/** Bytes the mounted file system counts as used, its own metadata included. */
export async function usedBytes(folder: string, imageBytes: number): Promise<number> {
  const { bfree, bsize } = await fs.statfs(folder);
  return imageBytes - bfree * bsize;
}
