import { createHash } from 'node:crypto';
import { utimesSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { MIB } from '../../../core/sizes.ts';
import type { SyncImage, SyncSource } from '../../../core/sync/types.ts';
import { LocalDisks } from '../../../pipeline/sync/local-disks.ts';
import { requires } from '../../support/requires.ts';
import { syncContext } from '../../support/sync-context.ts';

const missing = requires('qemu-img', 'qemu-storage-daemon', 'fusermount3');
let dir = '';
let raw = '';
let rawSha256 = '';
beforeAll(async () => {
  dir = await fs.mkdtemp(path.join(os.tmpdir(), 'port-image-disks-'));
  raw = path.join(dir, 'disk.raw');
  // A disk with a partition table: what the gate lets through.
  const disk = Buffer.alloc(4 * MIB);
  disk.writeUInt8(0x83, 450);
  disk.writeUInt32LE(2048, 454);
  disk.writeUInt32LE(4096, 458);
  disk.writeUInt16LE(0xaa55, 510);
  disk.write('something', 2 * MIB);
  await fs.writeFile(raw, disk);
  rawSha256 = createHash('sha256').update(disk).digest('hex');
});
afterAll(async () => {
  await fs.rm(dir, { recursive: true, force: true });
});

const IMAGE: SyncImage = {
  ref: 'disk.raw',
  series: 'web',
  version: '1',
  name: 'web',
  fileDigest: 'sha256:x',
  format: 'raw',
  fileBytes: 4 * MIB,
  createdAt: '2026-08-21T00:00:00Z',
  arch: 'x86_64',
  firmware: 'bios',
  minDiskGib: 1,
  minRamMib: 0,
  properties: {},
  dataSets: [],
};

/** A source that copies the disk, and may fail first. */
function copying(failures = 0): SyncSource & { fetched: number } {
  const source = {
    name: 'golden',
    fetched: 0,
    list: async () => [IMAGE],
    async fetch(_image: SyncImage, to: string) {
      source.fetched++;
      if (source.fetched <= failures) throw new Error('cut');
      const file = path.join(to, 'image');
      await fs.copyFile(raw, file);
      return { path: file, format: 'raw', receivedBytes: 4 * MIB };
    },
    close: async () => {},
  };
  return source;
}

async function disksIn(name: string): Promise<{ disks: LocalDisks; folder: string; known: string[] }> {
  const folder = path.join(dir, name);
  const known: string[] = [];
  const disks = new LocalDisks({
    dir: folder,
    remember: (digest, facts) => known.push(`${digest} ${facts.rawSha256}`),
  });
  await disks.start();
  return { disks, folder, known };
}

test.skipIf(missing)(
  'held, an image is fetched once for uses one after the other, and counted once; then nothing stays',
  async () => {
    const { disks, folder, known } = await disksIn('held');
    const source = copying();
    const release = disks.hold('golden', IMAGE);
    const seen: number[] = [];
    for (let i = 0; i < 3; i++)
      await disks.use(source, IMAGE, syncContext(), async ({ index, receivedBytes, rawPath }) => {
        expect(index.rawSha256).toBe(rawSha256);
        expect((await fs.readFile(rawPath)).toString('latin1', 2 * MIB, 2 * MIB + 9)).toBe('something');
        seen.push(receivedBytes);
      });
    expect(source.fetched).toBe(1);
    expect(seen).toEqual([4 * MIB, 0, 0]);
    expect(known).toEqual([`sha256:x ${rawSha256}`]);
    await release();
    expect(await fs.readdir(folder)).toEqual([]);
  },
);

test.skipIf(missing)('uses that come while it is being closed wait and open it anew', async () => {
  const { disks, folder } = await disksIn('race');
  const source = copying();
  for (let round = 0; round < 3; round++) {
    const first = disks.use(source, IMAGE, syncContext(), async () => {});
    const second = first.then(() =>
      disks.use(source, IMAGE, syncContext(), async ({ rawPath }) => fs.readFile(rawPath)),
    );
    const third = disks.use(source, IMAGE, syncContext(), async ({ rawPath }) => fs.readFile(rawPath));
    expect((await second).length).toBe(4 * MIB);
    expect((await third).length).toBe(4 * MIB);
  }
  expect(await fs.readdir(folder)).toEqual([]);
});

test.skipIf(missing)(
  'one that could not be fetched is fetched again by who tries again; after a failed use its copy stays',
  async () => {
    const { disks, folder } = await disksIn('again');
    const source = copying(1);
    const release = disks.hold('golden', IMAGE);
    await expect(disks.use(source, IMAGE, syncContext(), async () => {})).rejects.toThrow('cut');
    await expect(
      disks.use(source, IMAGE, syncContext(), async () => {
        throw new Error('target');
      }),
    ).rejects.toThrow('target');
    expect(source.fetched).toBe(2);
    await release();
    const [copy = ''] = await fs.readdir(folder);
    expect(await fs.readdir(path.join(folder, copy))).toContain('image');
    await disks.keepOnly([{ source: 'golden', image: IMAGE }]);
    expect(await fs.readdir(folder)).toEqual([copy]);
    await disks.keepOnly([{ source: 'golden', image: { ...IMAGE, version: '2' } }]);
    expect(await fs.readdir(folder)).toEqual([]);
  },
);

test.skipIf(missing)('content that is not what the source says is refused', async () => {
  const { disks } = await disksIn('liar');
  const liar = { ...IMAGE, rawSha256: '0'.repeat(64) };
  await expect(disks.use(copying(), liar, syncContext(), async () => {})).rejects.toMatchObject({
    code: 'SOURCE_CHANGED',
  });
});

test.skipIf(missing)('who is stopped takes nothing away from others that use the image', async () => {
  const { disks, folder } = await disksIn('stopped');
  const source = copying();
  const { fetch } = source;
  let fetching: () => void = () => {};
  const began = new Promise<void>((resolve) => {
    fetching = resolve;
  });
  source.fetch = async (image, to, ctx) => {
    fetching();
    await new Promise((resolve) => setTimeout(resolve, 100));
    ctx.signal.throwIfAborted();
    return fetch(image, to, ctx);
  };
  const first = syncContext();
  const stopped = disks.use(source, IMAGE, first, async () => {}).catch((error: unknown) => error);
  await began;
  const second = disks.use(source, IMAGE, syncContext(), async ({ rawPath }) => fs.readFile(rawPath));
  first.abort();
  expect(await stopped).toMatchObject({ code: 'INTERRUPTED' });
  expect((await second).length).toBe(4 * MIB);
  // nor from those that read already
  const third = syncContext();
  let reading: () => void = () => {};
  const reads = new Promise<void>((resolve) => {
    reading = resolve;
  });
  const ends = disks.use(source, IMAGE, third, async () => reads);
  const fourth = disks.use(source, IMAGE, syncContext(), async ({ rawPath }) => {
    third.abort();
    await new Promise((resolve) => setTimeout(resolve, 200));
    return fs.readFile(rawPath);
  });
  expect((await fourth).length).toBe(4 * MIB);
  reading();
  await ends;
  expect((await fs.readdir(folder)).length).toBeLessThanOrEqual(1);
});

test.skipIf(missing)(
  'a file that changes while it is read is not remembered under its old digest',
  async () => {
    const { disks, known } = await disksIn('changes');
    const own = path.join(dir, 'own.raw');
    await fs.copyFile(raw, own);
    const source = { ...copying(), fetch: async () => ({ path: own, format: 'raw', receivedBytes: 0 }) };
    const ctx = syncContext();
    const changing = {
      ...ctx,
      progress: () => {
        const now = new Date(Date.now() + 5000);
        utimesSync(own, now, now);
      },
    };
    await expect(disks.use(source, IMAGE, changing, async () => {})).rejects.toMatchObject({
      code: 'SOURCE_CHANGED',
    });
    expect(known).toEqual([]);
  },
);

test.skipIf(missing)('old copies go while others are in use', async () => {
  const { disks, folder } = await disksIn('old');
  const long = new Date(Date.now() - 30 * 86_400_000);
  await disks.use(copying(), IMAGE, syncContext(), async () => {
    await fs.mkdir(path.join(folder, 'golden-left'));
    for (const name of await fs.readdir(folder)) await fs.utimes(path.join(folder, name), long, long);
    expect((await fs.readdir(folder)).length).toBe(2);
    await disks.removeOld();
    const [left = ''] = await fs.readdir(folder);
    expect(left).not.toBe('golden-left');
    expect(await fs.readdir(path.join(folder, left))).toContain('image');
  });
});
