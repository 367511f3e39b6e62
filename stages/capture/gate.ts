/** The gate: our header checks, then qemu-img's opinion under limits, then the first bytes the guest sees. */
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { PortError } from '../../core/errors.ts';
import type { Log } from '../../core/log.ts';
import type { SourceFormat } from '../../core/request.ts';
import { printable } from '../../core/text.ts';
import {
  bufferSource,
  CONTENT_BYTES,
  type ImageFile,
  inspectContent,
  inspectImageFile,
} from '../../tools/image-format/index.ts';
import { writtenThrough } from '../../tools/mounted.ts';
import * as qemuImg from '../../tools/qemu-img.ts';

/** How to run the gate. */
export interface GateOptions {
  format?: SourceFormat | undefined;
  /** Existing folder for scratch files, removed again. */
  tmp: string;
  signal?: AbortSignal | undefined;
  log?: Log | undefined;
  warn?: ((text: string) => void) | undefined;
}

/**
 * Lets a source pass or refuses it; changes nothing but scratch files. Throws what `inspectImageFile` throws, and
 * DAMAGED when qemu-img finds corruptions, SOURCE_CHANGED when another program writes to the image.
 */
export async function gate(source: string, options: GateOptions): Promise<ImageFile> {
  const { signal, log } = options;
  const image = await inspectImageFile(source, options.format);
  const name = printable(source);
  if (image.isDevice) {
    const mounts = await writtenThrough(image.path);
    if (mounts.length > 0) {
      options.warn?.(
        `${name} is in use by this machine (${mounts.map(printable).join(', ')}): it changes while it is read, and a conversion then ends with SOURCE_CHANGED; use a snapshot`,
      );
    }
  }
  const info = await qemuImg.info(image, { signal, log });
  if (info.backingFile !== undefined || info.dataFile !== undefined) {
    throw new PortError(
      'OUTSIDE_REFERENCE',
      `${name} refers to another file: ${printable(info.backingFile ?? info.dataFile ?? '')}`,
    );
  }
  if (info.encrypted) throw new PortError('ENCRYPTED', `${name} is encrypted`, { hint: 'decrypt it first' });
  if (info.virtualBytes !== image.virtualBytes) {
    throw new PortError(
      'UNSAFE_IMAGE',
      `${name} is refused: its size reads as ${image.virtualBytes} or ${info.virtualBytes} bytes`,
      { hint: 'export the disk again with a current tool' },
    );
  }
  const checked = await qemuImg.check(image, { signal, log });
  if (checked.corruptions > 0) {
    throw new PortError(
      'DAMAGED',
      `${name} is damaged: qemu-img check counts ${checked.corruptions} errors`,
      {
        hint: 'export the disk again, or repair a copy with qemu-img check -r all',
      },
    );
  }
  if (checked.leaks > 0) options.warn?.(`${name} holds ${checked.leaks} lost clusters; they do no harm`);
  if (image.format !== 'raw') await inspectGuestStart(image, name, options);
  return image;
}

/** What the guest would see in its first sectors must be a disk, and no other image's header. */
async function inspectGuestStart(image: ImageFile, name: string, options: GateOptions): Promise<void> {
  const file = path.join(options.tmp, `start-${randomBytes(6).toString('hex')}.raw`);
  try {
    await qemuImg.readStart(image, Math.min(CONTENT_BYTES, image.virtualBytes), file, options);
    const start = await fs.readFile(file);
    await inspectContent(bufferSource(start, name, image.virtualBytes));
  } finally {
    await fs.rm(file, { force: true });
  }
}
