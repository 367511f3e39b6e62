/** A whole image as one compressed file, where blocks cannot be used. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { PortError } from '../../../core/errors.ts';
import { fileDigests } from '../../../core/files.ts';
import { pause } from '../../../core/pause.ts';
import { convert } from '../../../tools/qemu-img.ts';
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
