import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { FileStore } from '../../../drivers/stores/file.ts';
import { openStore } from '../../../drivers/stores/index.ts';
import { checkKey } from '../../../drivers/stores/key.ts';

let dir: string;
let store: FileStore;
beforeEach(async () => {
  dir = await fs.mkdtemp(path.join(os.tmpdir(), 'store-'));
  store = new FileStore(path.join(dir, 'deep/store'));
});
afterEach(() => fs.rm(dir, { recursive: true, force: true }));

async function* bytes(...parts: string[]) {
  for (const part of parts) yield Buffer.from(part);
}
const keys = async (prefix: string) => {
  const all: string[] = [];
  for await (const object of store.list(prefix)) all.push(object.key);
  return all;
};

test('put, get with ranges, head, list, remove', async () => {
  const put = await store.put('a/segments/1.tar', () => bytes('hello ', 'world'), { bytes: 11 });
  expect(put).toMatchObject({
    bytes: 11,
    sha256: 'b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9',
  });
  expect(await text(await store.get('a/segments/1.tar'))).toBe('hello world');
  expect(await text(await store.get('a/segments/1.tar', { offsetBytes: 6, lengthBytes: 3 }))).toBe('wor');
  expect(await store.head('a/segments/1.tar')).toMatchObject({ bytes: 11 });
  expect(await store.head('a/nothing')).toBeUndefined();
  await expect(store.get('a/nothing')).rejects.toMatchObject({ code: 'STORE' });
  await store.put('a/manifest.json', () => bytes('{}'));
  await store.put('a-b/x', () => bytes('x'));
  expect(await keys('')).toEqual(['a-b/x', 'a/manifest.json', 'a/segments/1.tar']);
  expect(await keys('a/')).toEqual(['a/manifest.json', 'a/segments/1.tar']);
  expect(await keys('a/seg')).toEqual(['a/segments/1.tar']);
  await store.remove('a/segments/1.tar');
  await store.remove('a/segments/1.tar');
  expect(await keys('a/')).toEqual(['a/manifest.json']);
  expect((await fs.stat(store.pathOf('a/manifest.json'))).mode & 0o777).toBe(0o600);
  expect((await fs.stat(path.join(store.dir, 'a'))).mode & 0o777).toBe(0o700);
});

test('a broken or short source leaves the old object and no rest', async () => {
  await store.put('k', () => bytes('old'));
  async function* broken() {
    yield Buffer.from('new');
    throw new Error('cut');
  }
  await expect(store.put('k', () => broken())).rejects.toThrow('cut');
  await expect(store.put('k', () => bytes('new'), { bytes: 4 })).rejects.toMatchObject({ code: 'STORE' });
  expect(await text(await store.get('k'))).toBe('old');
  expect(await fs.readdir(store.dir)).toEqual(['k']);
});

test('what a killed put left is not listed and can be swept', async () => {
  await store.put('a/k', () => bytes('x'));
  await fs.writeFile(path.join(store.dir, 'a/.k.0123456789ab.tmp'), 'half');
  await fs.writeFile(path.join(store.dir, 'a/.keep'), 'not ours');
  expect(await keys('a/')).toEqual(['a/k']);
  expect(await store.sweep('a')).toBe(1);
  expect((await fs.readdir(path.join(store.dir, 'a'))).sort()).toEqual(['.keep', 'k']);
});

test.each([
  '',
  '/',
  '/etc/passwd',
  '../x',
  'a/../b',
  'a//b',
  'a/',
  '.',
  'a/.hidden',
  'a\nb',
  'a\0',
  'ä',
  'a'.repeat(2000),
])('refuses the key %j', (key) => {
  expect(() => checkKey(key)).toThrow(expect.objectContaining({ code: 'UNSAFE_PATH' }));
});

test('does not follow a link put in place of an object', async () => {
  await store.put('a/k', () => bytes('x'));
  await fs.symlink('/etc/passwd', path.join(store.dir, 'a/link'));
  expect(await store.head('a/link')).toBeUndefined();
  await expect(store.get('a/link')).rejects.toMatchObject({ code: 'HOST_IO' });
});

test('unknown kinds of store', () => {
  expect(openStore('file:/srv/x').url).toBe('file:/srv/x');
  expect(openStore('file:///srv/x').url).toBe('file:/srv/x');
  for (const url of ['/srv/x', 'file:', 'ftp://h/x', '']) {
    expect(() => openStore(url)).toThrow(expect.objectContaining({ code: 'USAGE' }));
  }
});

test('check creates nothing and compares free space', async () => {
  await store.check(1);
  expect(await fs.readdir(dir)).toEqual([]);
  await expect(store.check(2 ** 60)).rejects.toMatchObject({ code: 'DISK_SPACE' });
});

describe.skipIf(process.getuid?.() !== 0 ? 'needs root for a tmpfs' : undefined)('on a full disk', () => {
  test('DISK_SPACE, no rest', async () => {
    const full = path.join(dir, 'full');
    await fs.mkdir(full);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', full]);
    try {
      const small = new FileStore(full);
      await small.put('a', () => bytes('x'));
      const big = Array.from({ length: 64 }, () => 'x'.repeat(65536));
      await expect(small.put('b', () => bytes(...big))).rejects.toMatchObject({ code: 'DISK_SPACE' });
      expect(await fs.readdir(full)).toEqual(['a']);
    } finally {
      execFileSync('umount', [full]);
    }
  });
});
