import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { CaptureOptions } from '../../core/request.ts';
import { goodDisk } from '../../fixtures/hostile/build.ts';
import { captureInto } from '../../pipeline/capture.ts';

let dir = '';
let disk = '';
beforeAll(async () => {
  dir = await fs.mkdtemp(path.join(os.tmpdir(), 'port-image-capture-'));
  disk = path.join(dir, 'disk.raw');
  await fs.writeFile(disk, goodDisk());
});
afterAll(() => fs.rm(dir, { recursive: true, force: true }));

const capture = (folder: string, source: string) =>
  captureInto(
    path.join(dir, folder),
    { source, moreSources: [], disks: {}, format: undefined, capture: CaptureOptions.parse({}) },
    { signal: new AbortController().signal, listener: () => {}, final: false },
  );

test("a folder with somebody else's files is refused, and nothing in it is removed", async () => {
  await fs.mkdir(path.join(dir, 'home/tmp'), { recursive: true });
  await fs.writeFile(path.join(dir, 'home/tmp/thesis'), 'only copy');
  await expect(capture('home', disk)).rejects.toMatchObject({ code: 'USAGE' });
  expect(await fs.readdir(path.join(dir, 'home'), { recursive: true })).toEqual(['tmp', 'tmp/thesis']);
});

test('a job.json that is not ours is refused before anything is removed', async () => {
  await fs.mkdir(path.join(dir, 'other/tmp'), { recursive: true });
  await fs.writeFile(path.join(dir, 'other/job.json'), '{}');
  await expect(capture('other', disk)).rejects.toMatchObject({ code: 'JOB_TAMPERED' });
  expect((await fs.readdir(path.join(dir, 'other'))).sort()).toEqual(['job.json', 'tmp']);
});

test('a file is no folder', async () => {
  await expect(capture('disk.raw', disk)).rejects.toMatchObject({ code: 'USAGE' });
});

test('a refused source leaves nothing: neither a new folder nor anything in an empty one', async () => {
  await expect(capture('new', path.join(dir, 'missing'))).rejects.toMatchObject({ code: 'USAGE' });
  expect(await fs.readdir(dir)).not.toContain('new');
  await fs.mkdir(path.join(dir, 'empty'));
  await expect(capture('empty', path.join(dir, 'missing'))).rejects.toMatchObject({ code: 'USAGE' });
  expect(await fs.readdir(path.join(dir, 'empty'))).toEqual([]);
});

test('the same folder is taken again', async () => {
  await capture('again', disk);
  const { disks } = await capture('again', disk);
  expect(disks).toMatchObject([{ id: 'disk0', path: disk, copied: false }]);
  expect((await fs.readdir(path.join(dir, 'again'))).sort()).toEqual(['capture', 'logs']);
});
