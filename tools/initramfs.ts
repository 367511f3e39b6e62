/**
 * Lists an initramfs on the host, without running anything of the guest. The image may be several archives in a row
 * (processor microcode first, not compressed), and all of it is hostile input: every length is bounded.
 */
import { createReadStream } from 'node:fs';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { run } from '../core/command.ts';
import { asPortError, PortError } from '../core/errors.ts';
import { GIB } from '../core/sizes.ts';
import { ByteCursor } from './byte-cursor.ts';
import { readCpioNames } from './cpio.ts';

/** What an initramfs holds. */
export interface InitramfsListing {
  /** Names of all members, without a leading `/` or `./`, in order, each once. */
  files: string[];
  /** Kernel modules, sorted, names with `_`. */
  modules: string[];
  /** `none`, `gzip`, `zstd`, `xz`, `lz4`, `bzip2`, `lzma` or `lzo`: of the main archive. */
  compression: string;
  /** Size of the file. */
  bytes: number;
}

/** No real initramfs comes near; more is an attack on our memory and time. */
const MAX_UNPACKED_BYTES = 4 * GIB;
const MAX_FILE_BYTES = 2 * GIB;

const MAGICS: readonly { name: string; bytes: readonly number[] }[] = [
  { name: 'gzip', bytes: [0x1f, 0x8b] },
  { name: 'zstd', bytes: [0x28, 0xb5, 0x2f, 0xfd] },
  { name: 'xz', bytes: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00] },
  { name: 'lz4', bytes: [0x02, 0x21, 0x4c, 0x18] },
  { name: 'lz4', bytes: [0x04, 0x22, 0x4d, 0x18] },
  { name: 'bzip2', bytes: [0x42, 0x5a, 0x68] },
  { name: 'lzma', bytes: [0x5d, 0x00, 0x00] },
  { name: 'lzo', bytes: [0x89, 0x4c, 0x5a, 0x4f] },
];

/** Programs for what Node cannot decompress itself: arguments that unpack `from` into `to`. */
const PROGRAMS: Readonly<Record<string, { program: string; args: (from: string, to: string) => string[] }>> =
  {
    xz: { program: 'xz', args: (from) => ['-dq', '--suffix=.packed', from] },
    lzma: { program: 'xz', args: (from) => ['-dq', '--format=lzma', '--suffix=.packed', from] },
    lz4: { program: 'lz4', args: (from, to) => ['-dqf', from, to] },
    bzip2: { program: 'bzip2', args: (from) => ['-dq', from] },
    lzo: { program: 'lzop', args: (from, to) => ['-dqf', '-o', to, from] },
  };

/** The kernel module's name of a path, or undefined when it is none: `a/virtio-blk.ko.xz` is `virtio_blk`. */
export function moduleName(file: string): string | undefined {
  const match = /(?:^|\/)([^/]+)\.ko(?:\.(?:gz|xz|zst|bz2|lz4))?$/.exec(file);
  return match?.[1]?.replaceAll('-', '_');
}

/** Name of the compression that starts with these bytes, or undefined. */
export function compressionOf(head: Uint8Array): string | undefined {
  return MAGICS.find((m) => m.bytes.every((byte, i) => head[i] === byte))?.name;
}

/**
 * Lists `hostFile`. Scratch files, where a program must unpack, are put beside it and removed.
 * Throws GUEST_BROKEN when it is no initramfs, is cut, or unpacks to absurd sizes; PROGRAM_MISSING, INTERRUPTED.
 */
export async function listInitramfs(hostFile: string, signal: AbortSignal): Promise<InitramfsListing> {
  const { size: bytes } = await fs.stat(hostFile);
  if (bytes === 0) throw new PortError('GUEST_BROKEN', 'the initramfs is empty');
  if (bytes > MAX_FILE_BYTES) throw new PortError('GUEST_BROKEN', `the initramfs has ${bytes} bytes`);
  const names = new Set<string>();
  const compression = await listInto(names, hostFile, signal);
  const files = [...names];
  const modules = new Set(files.map(moduleName).filter((name) => name !== undefined));
  return { files, modules: [...modules].sort(), compression, bytes };
}

async function listInto(names: Set<string>, hostFile: string, signal: AbortSignal): Promise<string> {
  const stream = createReadStream(hostFile, { highWaterMark: 1 << 18, signal });
  try {
    const outer = new ByteCursor(stream, MAX_FILE_BYTES);
    await readCpioNames(outer, names);
    const head = await outer.peek(6);
    if (head.length === 0) {
      if (names.size === 0) throw new PortError('GUEST_BROKEN', 'the initramfs holds no archive');
      return 'none';
    }
    const compression = compressionOf(head);
    if (compression === undefined) {
      throw new PortError('GUEST_BROKEN', 'the initramfs has a compression nobody knows', {
        hint: `it goes on with the bytes ${Buffer.from(head).toString('hex')}`,
      });
    }
    await listPacked(names, outer, compression, path.dirname(hostFile), signal);
    return compression;
  } catch (error) {
    throw asInitramfsError(error, signal);
  } finally {
    stream.destroy();
  }
}

function asInitramfsError(error: unknown, signal: AbortSignal): PortError {
  if (error instanceof PortError) return error;
  if (signal.aborted) return new PortError('INTERRUPTED', 'interrupted', { cause: error });
  const { code, message } = error as NodeJS.ErrnoException;
  if (/^(Z_|ZSTD_|ERR_ZSTD)/.test(code ?? '') || /unexpected end of file/i.test(message)) {
    return new PortError('GUEST_BROKEN', `the initramfs cannot be unpacked: ${message}`, { cause: error });
  }
  return asPortError(error);
}

async function listPacked(
  names: Set<string>,
  outer: ByteCursor,
  compression: string,
  scratch: string,
  signal: AbortSignal,
): Promise<void> {
  if (compression !== 'gzip' && compression !== 'zstd') {
    await listByProgram(names, outer, compression, scratch, signal);
    return;
  }
  const unpack = compression === 'gzip' ? createGunzip() : createZstdDecompress();
  const pump = pipeline(Readable.from(outer.rest()), unpack, { signal });
  // The reader below reports what went wrong; without this the same failure would count as unhandled.
  pump.catch(() => {});
  try {
    await listUnpacked(names, unpack);
    await pump;
  } finally {
    unpack.destroy();
  }
}

async function listUnpacked(names: Set<string>, stream: AsyncIterable<Uint8Array>): Promise<void> {
  const inner = new ByteCursor(stream, MAX_UNPACKED_BYTES);
  const before = names.size;
  await readCpioNames(inner, names);
  if ((await inner.peek(1)).length > 0 || names.size === before) {
    throw new PortError('GUEST_BROKEN', 'the initramfs holds something that is no cpio archive');
  }
}

async function listByProgram(
  names: Set<string>,
  outer: ByteCursor,
  compression: string,
  scratch: string,
  signal: AbortSignal,
): Promise<void> {
  const how = PROGRAMS[compression];
  if (how === undefined) throw new PortError('BUG', `no program for ${compression}`);
  const dir = await fs.mkdtemp(path.join(scratch, '.initramfs-'));
  try {
    const packed = path.join(dir, compression === 'bzip2' ? 'main.bz2' : 'main.packed');
    const unpacked = path.join(dir, 'main');
    await fs.writeFile(packed, outer.rest(), { signal });
    await run(how.program, how.args(packed, unpacked), {
      signal,
      timeoutMs: 300_000,
      limits: { cpuSeconds: 240, memoryBytes: 2 * GIB, fileBytes: MAX_UNPACKED_BYTES },
    }).catch((error: unknown) => {
      const cause = asPortError(error);
      if (cause.code !== 'PROGRAM_FAILED') throw cause;
      throw new PortError('GUEST_BROKEN', `the initramfs cannot be unpacked: ${cause.message}`, { cause });
    });
    await listUnpacked(names, createReadStream(unpacked, { highWaterMark: 1 << 18, signal }));
  } finally {
    await fs.rm(dir, { recursive: true, force: true });
  }
}
