import * as fs from 'node:fs/promises';
import * as net from 'node:net';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { run } from '../../../core/command.ts';
import { BLOCK_BYTES, type ByteRange, type DiskSource } from '../../../core/disk-source.ts';
import { parseSource, type Source } from '../../../core/source.ts';
import { runPass } from '../../../stages/capture/pass.ts';
import { type Background, startBackground } from '../../../tools/background.ts';
import { openDiskCopy } from '../../../tools/disk-copy/index.ts';
import { openNbdSource } from '../../../tools/disk-sources/nbd.ts';
import { requires } from '../../support/requires.ts';
import { blockOf } from '../disk-copy/disk-fixtures.ts';

const missing = requires('nbdkit', 'qemu-nbd', 'qemu-img', 'fallocate', 'setpriv');
const SIZE = 6 * BLOCK_BYTES + 7 * 512;

describe.skipIf(missing)('an NBD server as a disk', () => {
  let dir: string;
  let image: string;
  let socket: string;
  let content: Buffer;
  const servers: Background[] = [];

  beforeEach(async () => {
    dir = await fs.mkdtemp(path.join(tmpdir(), 'port-image-nbd-'));
    image = path.join(dir, 'disk.img');
    socket = path.join(dir, 'nbd.sock');
    content = Buffer.concat(
      [1, 2, 0, 0, 5, 6, 7]
        .map((seed) => blockOf(seed))
        .map((b, i) => (i === 6 ? b.subarray(0, 7 * 512) : b)),
    );
    const handle = await fs.open(image, 'w');
    for (const [start, end] of [
      [0, 2],
      [4, 7],
    ] as const) {
      const piece = content.subarray(start * BLOCK_BYTES, end * BLOCK_BYTES);
      await handle.write(piece, 0, piece.length, start * BLOCK_BYTES);
    }
    await handle.truncate(SIZE);
    await handle.close();
  });
  afterEach(async () => {
    for (const server of servers.splice(0)) await server.stop();
    await fs.rm(dir, { recursive: true, force: true });
  });

  const serve = async (program: string, args: readonly string[]): Promise<Background> => {
    await fs.rm(socket, { force: true });
    const server = startBackground(program, args);
    servers.push(server);
    // the socket has a name before anybody listens on it
    const listens = () =>
      new Promise<boolean>((resolve) => {
        const probe = net.connect(socket, () => resolve(true));
        probe.on('connect', () => probe.destroy());
        probe.on('error', () => resolve(false));
      });
    await expect.poll(listens, { timeout: 10_000 }).toBe(true);
    return server;
  };
  const nbdkit = (...args: string[]) => serve('nbdkit', ['-f', '-r', '-U', socket, ...args]);
  const source = (exportName = '') =>
    parseSource(`nbd+unix:///${exportName}?socket=${encodeURIComponent(socket)}`) as Extract<
      Source,
      { kind: 'nbd' }
    >;
  const open = () => openNbdSource(source());
  const copyOf = (disk: { sizeBytes: number }) =>
    openDiskCopy(dir, 'copy', { sizeBytes: disk.sizeBytes, sourceId: 'nbd' });
  const allocation = async (disk: DiskSource) => ({
    ranges: [{ startBytes: 0, lengthBytes: disk.sizeBytes }],
  });
  const retry = { firstDelayMs: 50, maxDelayMs: 200 };

  async function expectCopied(bad: ByteRange[]): Promise<void> {
    const copy = await copyOf({ sizeBytes: SIZE });
    const result = await runPass({ open, copy, allocation, pass: 1, mode: 'resume', retry });
    expect(result.badRanges).toEqual(bad);
    const expected = Buffer.from(content);
    for (const r of bad) expected.fill(0, r.startBytes, r.startBytes + r.lengthBytes);
    expect((await fs.readFile(copy.rawPath)).equals(expected)).toBe(true);
    await copy.verifyAll();
    await copy.close();
  }

  test('nbdkit: the whole disk, only what is stored is read', async () => {
    await nbdkit('file', image);
    const disk = await open();
    expect(disk.sizeBytes).toBe(SIZE);
    expect(await disk.dataRanges?.()).toEqual([
      { startBytes: 0, lengthBytes: 2 * BLOCK_BYTES },
      { startBytes: 4 * BLOCK_BYTES, lengthBytes: SIZE - 4 * BLOCK_BYTES },
    ]);
    const at = BLOCK_BYTES - 100;
    expect((await disk.read(at, 1000)).equals(content.subarray(at, at + 1000))).toBe(true);
    expect((await disk.read(SIZE - 10, 1000)).equals(content.subarray(SIZE - 10))).toBe(true);
    await disk.close();
    await expectCopied([]);
  });

  test.each([
    ['no structured replies, no metadata', ['--no-sr']],
    [
      'large sectors',
      [
        '--filter=blocksize-policy',
        'blocksize-minimum=4096',
        'blocksize-maximum=65536',
        'blocksize-error-policy=error',
        '--filter=truncate',
        'round-up=4096',
      ],
    ],
    ['no knowledge of holes', ['--filter=noextents']],
    ['a slow disk', ['--filter=delay', 'rdelay=50ms']],
  ])('nbdkit with %s', async (_, args) => {
    const filters = args.filter((a) => a.startsWith('-'));
    const parameters = args.filter((a) => !a.startsWith('-'));
    await nbdkit(...filters, 'file', image, ...parameters);
    const disk = await open();
    const at = 3 * 512 + 7;
    expect((await disk.read(at, 70_000)).equals(content.subarray(at, at + 70_000))).toBe(true);
    await disk.close();
    if (disk.sizeBytes === SIZE) await expectCopied([]);
  });

  test('qemu-nbd, with a name, over TCP', async () => {
    const qcow2 = path.join(dir, 'disk.qcow2');
    await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', image, qcow2]);
    await serve('qemu-nbd', ['-r', '-t', '-e', '4', '-x', 'a disk/1', '-f', 'qcow2', '-k', socket, qcow2]);
    const disk = await openNbdSource(source('a%20disk/1'));
    expect((await disk.read(0, 4 * BLOCK_BYTES)).equals(content.subarray(0, 4 * BLOCK_BYTES))).toBe(true);
    expect((await disk.dataRanges?.())?.[0]).toMatchObject({ startBytes: 0 });
    await disk.close();
    await expect(openNbdSource(source('another'))).rejects.toMatchObject({
      code: 'SOURCE_REMOTE',
      temporary: false,
      message: expect.stringContaining('no such export'),
    });
    const tcp = startBackground('nbdkit', ['-f', '-r', '-i', '127.0.0.1', '-p', '10819', 'file', image]);
    servers.push(tcp);
    const url = parseSource('nbd://127.0.0.1:10819') as Extract<Source, { kind: 'nbd' }>;
    await expect
      .poll(
        async () => {
          const opened = await openNbdSource(url).catch(() => undefined);
          await opened?.close();
          return opened?.sizeBytes;
        },
        { timeout: 10_000 },
      )
      .toBe(SIZE);
  });

  test('unreadable sectors are found exactly', async () => {
    // what a rescue map does not call finished, this filter answers with EIO
    const bad = [
      { startBytes: 512, lengthBytes: 512 },
      { startBytes: BLOCK_BYTES - 1024, lengthBytes: 2048 },
      { startBytes: 5 * BLOCK_BYTES + 4096, lengthBytes: 3 * 512 },
      { startBytes: SIZE - 512, lengthBytes: 512 },
    ];
    const lines = ['0x0 ? 1'];
    let at = 0;
    const hex = (n: number) => `0x${n.toString(16)}`;
    for (const r of [...bad, { startBytes: SIZE, lengthBytes: 0 }]) {
      if (r.startBytes > at) lines.push(`${hex(at)} ${hex(r.startBytes - at)} +`);
      if (r.lengthBytes > 0) lines.push(`${hex(r.startBytes)} ${hex(r.lengthBytes)} -`);
      at = r.startBytes + r.lengthBytes;
    }
    const map = path.join(dir, 'map');
    await fs.writeFile(map, `${lines.join('\n')}\n`);
    await nbdkit('--filter=ddrescue', 'file', image, `ddrescue-mapfile=${map}`);
    await expectCopied(bad);
    const disk = await open();
    await expect(disk.read(0, 4096)).rejects.toMatchObject({
      code: 'BAD_SECTORS',
      message: expect.stringContaining('byte 512'),
    });
    await disk.close();
  });

  test('a disk that fails by chance: each byte is right or told as bad, and later passes heal it', async () => {
    await nbdkit('--filter=error', 'file', image, 'error-pread=EIO', 'error-pread-rate=90%');
    const copy = await copyOf({ sizeBytes: SIZE });
    const first = await runPass({ open, copy, allocation, pass: 1, mode: 'resume', retry });
    expect(first.badRanges.length).toBeGreaterThan(0);
    const raw = await fs.readFile(copy.rawPath);
    const expected = Buffer.from(content);
    for (const r of first.badRanges) expected.fill(0, r.startBytes, r.startBytes + r.lengthBytes);
    expect(raw.equals(expected)).toBe(true);
    await servers.pop()?.stop();
    await nbdkit('file', image);
    const second = await runPass({ open, copy, allocation, pass: 2, mode: 'full', retry });
    expect(second.badRanges).toEqual([]);
    expect((await fs.readFile(copy.rawPath)).equals(content)).toBe(true);
    await copy.close();
  });

  test('a server that dies is no bad disk: the pass waits for it and goes on', async () => {
    // bits per second: two seconds for a block, so that the pass is far from its end when the first one is safe
    const first = await nbdkit('--filter=rate', 'file', image, `rate=${4 * BLOCK_BYTES}`);
    const copy = await copyOf({ sizeBytes: SIZE });
    const started = runPass({
      open,
      copy,
      allocation,
      pass: 1,
      mode: 'resume',
      retry: { ...retry, onRetry: (error) => errors.push(error.code) },
    });
    const errors: string[] = [];
    await expect.poll(() => copy.presentBlocks, { interval: 5, timeout: 60_000 }).toBeGreaterThan(0);
    if (first.pid !== undefined) process.kill(first.pid, 'SIGKILL');
    await expect.poll(() => errors.length, { timeout: 60_000 }).toBeGreaterThan(1);
    await nbdkit('file', image);
    const result = await started;
    expect(result.badRanges).toEqual([]);
    expect(result.reconnects).toBeGreaterThan(0);
    expect(new Set(errors)).toEqual(new Set(['SOURCE_REMOTE']));
    expect((await fs.readFile(copy.rawPath)).equals(content)).toBe(true);
    await copy.close();
  });

  test('a stopped pass does not wait for a silent server', async () => {
    await nbdkit('--filter=delay', 'file', image, 'rdelay=600');
    const copy = await copyOf({ sizeBytes: SIZE });
    const controller = new AbortController();
    const signal = controller.signal;
    setTimeout(() => controller.abort(), 200);
    await expect(runPass({ open, copy, allocation, pass: 1, mode: 'resume', signal })).rejects.toMatchObject({
      code: 'INTERRUPTED',
    });
    await copy.close();
  });
});
