/** A whole image as one compressed file, where blocks cannot be used. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { PortError } from '../../../core/errors.ts';
import { fileDigests } from '../../../core/files.ts';
import { pause } from '../../../core/pause.ts';
import type { CreateInput } from '../../../core/sync/types.ts';
import { indexDisk } from '../../../tools/blocks/index-disk.ts';
import { convert, map } from '../../../tools/qemu-img.ts';
import { exportDisk } from '../../../tools/qemu-storage-daemon.ts';
import { sendContent } from '../upload/bytes.ts';
import { compareRemote } from '../upload/compare.ts';
import { importStaged } from '../upload/import.ts';
import type { UploadInput } from '../upload/types.ts';
import { type Arrived, type ContentInput, type CountingMeter, uploadInput } from './content-types.ts';

/** Compresses it in the scratch folder and sends it. Throws CLOUD_REFUSED, CLOUD_MISMATCH, CLOUD, HOST_IO, DISK_SPACE, INTERRUPTED. */
export async function sendWhole(
  input: ContentInput,
  method: 'put' | 'import',
  meter: CountingMeter,
): Promise<Arrived> {
  const { cloud, create, request } = input;
  const { disk, signal, log, tmp } = create;
  const { glance } = cloud;
  const file = path.join(tmp, 'image.qcow2');
  await convert(
    { path: disk.rawPath, format: 'raw' },
    { path: file, format: 'qcow2' },
    {
      signal,
      log,
      compress: true,
      formatOptions: { compression_type: 'zstd' },
      onProgress: (doneBytes, totalBytes) => create.progress({ text: 'compressing', doneBytes, totalBytes }),
    },
  );
  try {
    await requireDisk(file, create);
    const [sha256 = '', sha512 = ''] = await fileDigests(file, ['sha256', 'sha512'], signal);
    const { size } = await fs.stat(file);
    const whole: UploadInput = {
      ...uploadInput(input, { file, bytes: size, sha256, sha512 }),
      pace: async (bytes) => {
        meter.sent(bytes);
        const waitMs = meter.waitMs(bytes);
        if (waitMs > 1) await pause(waitMs, signal);
      },
    };
    const { stores } = request;
    const sent = await sendContent(glance, whole, {
      destination: method === 'put' ? 'file' : 'stage',
      store: method === 'put' && stores !== 'all' ? stores[0] : undefined,
      create: input.reclaim,
      remove: (id) => glance.remove(id, { signal }),
    });
    const image =
      method === 'put' ? await glance.show(sent.id, { signal }) : await importStaged(glance, whole, sent.id);
    if (image?.status !== 'active')
      throw new PortError('CLOUD', `Glance did not keep image ${sent.id}`, { temporary: true });
    const { verified, proof } = await compareRemote(glance, image, whole, sent.content);
    return {
      image,
      method,
      sentBytes: meter.bytes,
      changedBytes: disk.index.dataBytes,
      dataBytes: disk.index.dataBytes,
      content: verified,
      proof,
    };
  } finally {
    await fs.rm(file, { force: true });
  }
}

/** The disk is a file of somebody else, who may have changed it since it was read. Throws SOURCE_CHANGED when the file shows another one. */
async function requireDisk(
  file: string,
  { disk, identity, tmp, signal, log, progress }: CreateInput,
): Promise<void> {
  const image = { path: file, format: 'qcow2' } as const;
  const shown = await exportDisk(image, tmp, { signal, log });
  try {
    const { rawSha256 } = await indexDisk(shown.path, {
      virtualBytes: disk.virtualBytes,
      extents: await map(image, { signal, log }),
      signal,
      onProgress: (doneBytes, totalBytes) => progress({ text: 'comparing', doneBytes, totalBytes }),
    });
    const { size } = await fs.stat(shown.path);
    if (rawSha256 === identity.rawSha256 && size >= disk.virtualBytes) return;
  } finally {
    await shown.stop();
  }
  throw new PortError('SOURCE_CHANGED', `the disk of ${identity.series} changed since it was read`, {
    hint: 'the next run takes it as it is then',
  });
}
