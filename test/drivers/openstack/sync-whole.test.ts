import { createHash, randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { expect, test } from 'vitest';
import { MIB } from '../../../core/sizes.ts';
import { type ContentInput, CountingMeter } from '../../../drivers/openstack/sync/content-types.ts';
import { sendWhole } from '../../../drivers/openstack/sync/whole.ts';
import { indexDisk } from '../../../tools/blocks/index-disk.ts';
import { requires } from '../../support/requires.ts';
import { syncContext } from '../../support/sync-context.ts';

const missing = requires('qemu-img', 'qemu-storage-daemon', 'fusermount3');

async function sentWith(change: (file: string) => Promise<void>): Promise<unknown> {
  const tmp = await fs.mkdtemp(path.join(os.tmpdir(), 'port-image-whole-'));
  try {
    const rawPath = path.join(tmp, 'disk.raw');
    await fs.writeFile(rawPath, randomBytes(3 * MIB));
    const index = await indexDisk(rawPath, { virtualBytes: 3 * MIB });
    expect(index.rawSha256).toBe(
      createHash('sha256')
        .update(await fs.readFile(rawPath))
        .digest('hex'),
    );
    await change(rawPath);
    const input = {
      cloud: { glance: {} },
      create: {
        ...syncContext(),
        disk: { rawPath, virtualBytes: 3 * MIB, index },
        identity: { series: 'web', version: '1', rawSha256: index.rawSha256 },
        wanted: { name: 'web' },
        tmp,
      },
      request: { stores: 'all' },
      reclaim: async () => {
        throw new Error('it would be sent');
      },
    } as unknown as ContentInput;
    return await sendWhole(input, 'put', new CountingMeter(undefined)).catch((error: unknown) => error);
  } finally {
    await fs.rm(tmp, { recursive: true, force: true });
  }
}

test.skipIf(missing)(
  'what is not the planned disk any more is not sent',
  async () => {
    expect(await sentWith(async () => {})).toMatchObject({ message: 'it would be sent' });
    const overwritten = async (file: string) => {
      const handle = await fs.open(file, 'r+');
      await handle.write(Buffer.from('x'), 0, 1, MIB);
      await handle.close();
    };
    expect(await sentWith(overwritten)).toMatchObject({ code: 'SOURCE_CHANGED' });
    expect(await sentWith((file) => fs.truncate(file, 0))).toMatchObject({ code: 'SOURCE_CHANGED' });
  },
  30_000,
);
