/** qemu-io: single writes into a disk image of any format. */
import * as path from 'node:path';
import { lastLine, run } from '../core/command.ts';
import { PortError } from '../core/errors.ts';
import type { ImageRef, QemuImgOptions } from './qemu-img.ts';

/**
 * Writes the bytes of a file at an offset. `dataFile` is a plain name in the folder of the image, so that no part of a path
 * is read as a command. Throws PROGRAM_MISSING, PROGRAM_FAILED.
 */
export async function writeAt(
  image: ImageRef,
  offsetBytes: number,
  dataFile: string,
  lengthBytes: number,
  options: Pick<QemuImgOptions, 'signal' | 'log'> = {},
): Promise<void> {
  if (!/^[\w.-]+$/.test(dataFile)) throw new PortError('BUG', `not a plain name: ${dataFile}`);
  const command = `write -q -s ${dataFile} ${offsetBytes} ${lengthBytes}`;
  const result = await run('qemu-io', ['-f', image.format, '-c', command, image.path], {
    ...(options.signal === undefined ? {} : { signal: options.signal }),
    ...(options.log === undefined ? {} : { log: options.log }),
    cwd: path.dirname(image.path),
    timeoutMs: 120_000,
  });
  // older versions tell a failed command only in words
  if (/failed|error|out of range|unknown/i.test(result.stdout)) {
    throw new PortError('PROGRAM_FAILED', `qemu-io could not write: ${lastLine(result.stdout)}`);
  }
}
