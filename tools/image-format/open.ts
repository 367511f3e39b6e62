/** Opening what the operator named: one door, which no FIFO blocks and no link swapped in between passes. */
import { constants } from 'node:fs';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { type ByteSource, fileSource } from './reader.ts';

/** An open source. */
export interface OpenedSource extends ByteSource {
  /** Absolute, links resolved. */
  readonly path: string;
  readonly isDevice: boolean;
  /** Milliseconds; 0 for a device. */
  readonly modifiedMs: number;
  /** For large reads into memory of the caller. */
  readonly handle: fs.FileHandle;
  close(): Promise<void>;
}

type Kinds = Pick<
  Awaited<ReturnType<typeof fs.lstat>>,
  'isFile' | 'isBlockDevice' | 'isDirectory' | 'isFIFO' | 'isSocket' | 'isCharacterDevice'
>;

function refuseKind(name: string, stat: Kinds): void {
  if (stat.isFile() || stat.isBlockDevice()) return;
  const kind = stat.isDirectory()
    ? 'a folder'
    : stat.isFIFO()
      ? 'a named pipe'
      : stat.isSocket()
        ? 'a socket'
        : stat.isCharacterDevice()
          ? 'a character device'
          : 'no regular file';
  throw new PortError('NOT_A_DISK', `${name} is ${kind}, not a disk`, {
    hint: 'give an image file or a block device',
  });
}

/** Size of a block device from sysfs: fstat says 0, and Node cannot seek. */
async function deviceBytes(rdev: number): Promise<number> {
  // Linux: minor in bits 0-7 and 20-31, major in bits 8-19
  const major = (rdev >> 8) & 0xfff;
  const minor = (rdev & 0xff) | ((rdev >>> 12) & 0xfff00);
  return Number(await fs.readFile(`/sys/dev/block/${major}:${minor}/size`, 'utf8')) * 512;
}

/**
 * Opens a file or block device for reading. Throws USAGE when it does not exist, NOT_A_DISK for anything else than a
 * regular file or block device, HOST_IO when it may not be read, EMPTY_DISK when it has no bytes.
 */
export async function openSource(file: string): Promise<OpenedSource> {
  const name = printable(file);
  let resolved: string;
  try {
    resolved = await fs.realpath(path.resolve(file));
  } catch (cause) {
    throw new PortError('USAGE', `${name} does not exist or cannot be reached`, { cause });
  }
  refuseKind(name, await fs.lstat(resolved));
  let handle: fs.FileHandle;
  try {
    handle = await fs.open(resolved, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (cause) {
    throw new PortError('HOST_IO', `${name} cannot be opened: ${(cause as Error).message}`, {
      hint: 'run as root, or give read permission',
      cause,
    });
  }
  try {
    const stat = await handle.stat();
    refuseKind(name, stat);
    const isDevice = stat.isBlockDevice();
    const sizeBytes = isDevice ? await deviceBytes(stat.rdev) : stat.size;
    if (sizeBytes === 0) {
      throw new PortError('EMPTY_DISK', `${name} is empty: it has no bytes`, {
        hint: isDevice ? 'is the medium inserted?' : 'copy or download the image again',
      });
    }
    return {
      ...fileSource(handle, name, sizeBytes),
      path: resolved,
      isDevice,
      modifiedMs: isDevice ? 0 : stat.mtimeMs,
      handle,
      close: () => handle.close(),
    };
  } catch (error) {
    await handle.close();
    throw error;
  }
}
