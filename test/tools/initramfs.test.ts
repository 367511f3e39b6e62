import { execFileSync, spawnSync } from 'node:child_process';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { constants, gunzipSync, gzipSync, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { compressionOf, listInitramfs, moduleName } from '../../tools/initramfs.ts';
import { repackInitramfs } from '../../tools/initramfs-repack.ts';

let dir = '';
const signal = new AbortController().signal;
beforeAll(async () => {
  dir = await fs.mkdtemp(path.join(os.tmpdir(), 'initramfs-test-'));
});
afterAll(async () => {
  await fs.rm(dir, { recursive: true, force: true });
});

function member(name: string, data = Buffer.alloc(0), fields: { size?: string; nameSize?: string } = {}) {
  const hex = (n: number) => n.toString(16).padStart(8, '0');
  const header = [
    '070701',
    hex(1),
    hex(0o100644),
    ...Array(4).fill(hex(0)),
    fields.size ?? hex(data.length),
    ...Array(4).fill(hex(0)),
    fields.nameSize ?? hex(Buffer.byteLength(name) + 1),
    hex(0),
  ].join('');
  const head = Buffer.from(`${header}${name}\0`);
  const pad = (b: Buffer) => Buffer.concat([b, Buffer.alloc((4 - (b.length % 4)) % 4)]);
  return Buffer.concat([pad(head), pad(data)]);
}
function archive(...names: string[]) {
  return Buffer.concat([...names.map((n) => member(n, Buffer.from(`data of ${n}`))), member('TRAILER!!!')]);
}
async function list(content: Buffer) {
  const file = path.join(dir, 'initrd');
  await fs.writeFile(file, content);
  return listInitramfs(file, signal);
}
function has(program: string) {
  return spawnSync(program, ['--version']).error === undefined;
}

const microcode = Buffer.concat([archive('kernel/x86/microcode/AuthenticAMD.bin'), Buffer.alloc(512)]);
const main = archive(
  '.',
  './init',
  'usr/lib/modules/6.1/kernel/drivers/virtio-blk.ko',
  'usr/lib/modules/6.1/kernel/drivers/virtio_net.ko.xz',
);
const expected = ['virtio_blk', 'virtio_net'];

describe('listInitramfs', () => {
  test('uncompressed archives in a row', async () => {
    const got = await list(Buffer.concat([microcode, main, Buffer.alloc(100)]));
    expect(got).toEqual({
      files: [
        'kernel/x86/microcode/AuthenticAMD.bin',
        'init',
        'usr/lib/modules/6.1/kernel/drivers/virtio-blk.ko',
        'usr/lib/modules/6.1/kernel/drivers/virtio_net.ko.xz',
      ],
      modules: expected,
      compression: 'none',
      bytes: microcode.length + main.length + 100,
    });
  });
  test.each([
    ['gzip', (b: Buffer) => gzipSync(b)],
    ['zstd', (b: Buffer) => zstdCompressSync(b)],
  ])('microcode, then %s', async (name, pack) => {
    const got = await list(Buffer.concat([microcode, pack(main)]));
    expect(got.compression).toBe(name);
    expect(got.modules).toEqual(expected);
    expect(got.files).toContain('kernel/x86/microcode/AuthenticAMD.bin');
  });
  test.each([
    ['xz', 'xz', ['--check=crc32', '-c']],
    ['lzma', 'xz', ['--format=lzma', '-c']],
    ['bzip2', 'bzip2', ['-c']],
    ['lz4', 'lz4', ['-l', '-c', '-q']],
    ['lzo', 'lzop', ['-c']],
  ] as const)('%s by program', async (name, program, args) => {
    if (!has(program)) return;
    const packed = execFileSync(program, [...args], { input: main });
    const got = await list(Buffer.concat([microcode, packed]));
    expect([got.compression, got.modules]).toEqual([name, expected]);
    expect(await fs.readdir(dir)).toEqual(['initrd']);
  });
  test.each([
    ['empty', Buffer.alloc(0)],
    ['only zeros', Buffer.alloc(4096)],
    ['text', Buffer.from('not an initramfs')],
    [
      'cut gzip',
      gzipSync(
        Buffer.concat([main, Buffer.from(Array.from({ length: 9999 }, (_, i) => (i * 7919) % 251))]),
      ).subarray(0, 200),
    ],
    ['cut zstd', zstdCompressSync(main).subarray(0, 60)],
    ['cut in data', member('a', Buffer.alloc(8000)).subarray(0, 400)],
    ['huge name', member('a', Buffer.alloc(0), { nameSize: 'ffffffff' })],
    ['huge data', member('a', Buffer.alloc(0), { size: 'fffffff0' })],
    ['bad number', member('a', Buffer.alloc(0), { size: '0x000000' })],
    ['gzip of text', gzipSync('text')],
    ['corrupt xz', Buffer.concat([microcode, Buffer.from('fd377a585a000102030405', 'hex')])],
  ])('refuses: %s', async (_name, content) => {
    await expect(list(content)).rejects.toMatchObject({ code: 'GUEST_BROKEN' });
  });
  test('stops when told', async () => {
    const file = path.join(dir, 'initrd');
    await fs.writeFile(file, main);
    await expect(listInitramfs(file, AbortSignal.abort())).rejects.toMatchObject({ code: 'INTERRUPTED' });
  });
});

test('names and magics', () => {
  expect(moduleName('a/b/nvme-core.ko.zst')).toBe('nvme_core');
  expect(moduleName('a/b/nvme-core.konf')).toBeUndefined();
  expect(compressionOf(Buffer.from('28b52ffd', 'hex'))).toBe('zstd');
});

test.each([
  ['gzip', (b: Buffer, level: number) => gzipSync(b, { level })],
  ['zstd', (b: Buffer) => zstdCompressSync(b, { params: { [constants.ZSTD_c_compressionLevel]: 1 } })],
] as const)('repack %s: smaller, the same archive, microcode untouched', async (name, pack) => {
  const text = Array.from({ length: 20_000 }, (_, i) => `line ${i * 7919} of a driver `).join('');
  const body = Buffer.concat([member('lib/a.ko', Buffer.from(text)), main]);
  const [from, to] = [path.join(dir, 'from'), path.join(dir, 'to')];
  for (const lead of [microcode, Buffer.alloc(0)]) {
    await fs.writeFile(from, Buffer.concat([lead, pack(body, 1)]));
    expect(await repackInitramfs(from, to, 9, signal)).toBe(true);
    const result = await fs.readFile(to);
    expect(result.subarray(0, lead.length)).toEqual(lead);
    const packed = result.subarray(lead.length);
    expect(name === 'gzip' ? gunzipSync(packed) : zstdDecompressSync(packed)).toEqual(body);
  }
  await fs.writeFile(from, Buffer.concat([microcode, main]));
  expect(await repackInitramfs(from, to, 9, signal)).toBe(false);
});
