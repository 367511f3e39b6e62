import * as net from 'node:net';
import fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import { openNbdSource } from '../../../tools/disk-sources/nbd.ts';

/** What every request begins with. */
const REQUEST = Buffer.from([0x25, 0x60, 0x95, 0x13]);
const GREETING = Buffer.concat([Buffer.from('NBDMAGICIHAVEOPT'), Buffer.from([0, 3])]);

function reply(option: number, type: number, data: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(20);
  head.writeBigUInt64BE(0x3e889045565a9n, 0);
  head.writeUInt32BE(option, 8);
  head.writeUInt32BE(type, 12);
  head.writeUInt32BE(data.length, 16);
  return Buffer.concat([head, data]);
}

function exportInfo(sizeBytes: bigint): Buffer {
  const data = Buffer.alloc(12);
  data.writeBigUInt64BE(sizeBytes, 2);
  return data;
}

function blockSizes(minimum: number, maximum: number): Buffer {
  const data = Buffer.alloc(14);
  data.writeUInt16BE(3, 0);
  data.writeUInt32BE(minimum, 2);
  data.writeUInt32BE(minimum, 6);
  data.writeUInt32BE(maximum, 10);
  return data;
}

/** Negotiation without structured replies, to a disk of this size. */
const ready = (sizeBytes: bigint) => [
  GREETING,
  reply(8, 0x8000_0001),
  reply(7, 3, exportInfo(sizeBytes)),
  reply(7, 1),
];

/** An answer to the first request. */
function simple(error: number, data: Buffer = Buffer.alloc(0), cookie = 1n): Buffer {
  const head = Buffer.alloc(16);
  head.writeUInt32BE(0x67446698, 0);
  head.writeUInt32BE(error, 4);
  head.writeBigUInt64BE(cookie, 8);
  return Buffer.concat([head, data]);
}

function chunk(type: number, payload: Buffer, flags = 1, length = payload.length): Buffer {
  const head = Buffer.alloc(20);
  head.writeUInt32BE(0x668e33ef, 0);
  head.writeUInt16BE(flags, 4);
  head.writeUInt16BE(type, 6);
  head.writeBigUInt64BE(1n, 8);
  head.writeUInt32BE(length, 16);
  return Buffer.concat([head, payload]);
}

function at(offset: bigint, data: Buffer): Buffer {
  const head = Buffer.alloc(8);
  head.writeBigUInt64BE(offset);
  return Buffer.concat([head, data]);
}

describe('a hostile NBD server', () => {
  let server: net.Server | undefined;
  afterEach(() => server?.close());

  /** A server that says this, and that once it is asked for bytes, whatever it is told. */
  async function say(pieces: readonly Buffer[], answers: readonly Buffer[] = [], end = false) {
    server?.close();
    server = net.createServer((socket) => {
      socket.on('error', () => {});
      socket.on('data', (data) => {
        if (!data.includes(REQUEST)) return;
        socket.write(Buffer.concat(answers));
        if (end) socket.end();
      });
      socket.write(Buffer.concat(pieces));
      // whoever still waits for something then is told that nothing comes
      if (end) setTimeout(() => socket.end(), 30);
    });
    await new Promise<void>((resolve) => server?.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as net.AddressInfo;
    return openNbdSource({
      kind: 'nbd',
      url: `nbd://127.0.0.1:${port}/x`,
      host: '127.0.0.1',
      port,
      exportName: 'x',
    });
  }

  test.each<[string, Buffer[], string]>([
    ['another service', [Buffer.from('SSH-2.0-OpenSSH_9.2p1 Debian\r\n')], 'its greeting'],
    [
      'an old server',
      [Buffer.from('NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53\x00\x00', 'latin1')],
      'its greeting',
    ],
    ['another magic', [GREETING, Buffer.alloc(20)], 'what it was not asked'],
    ['an endless answer', [GREETING, reply(8, 3, Buffer.alloc(70_000))], 'has no end'],
    ['endless answers', [GREETING, ...Array(80).fill(reply(8, 3))], 'has no end'],
    ['a wish for TLS', [GREETING, reply(8, 0x8000_0001), reply(7, 0x8000_0005)], 'wants TLS'],
    [
      'no such export',
      [GREETING, reply(8, 0x8000_0001), reply(7, 0x8000_0006, Buffer.from('\x1b[31mno'))],
      '\\x1b[31mno',
    ],
    ['no size', [GREETING, reply(8, 0x8000_0001), reply(7, 1)], 'how large'],
    ['a size nobody has', ready(2n ** 63n), 'larger than 64 TiB'],
    [
      'impossible blocks',
      [...ready(512n).slice(0, 2), reply(7, 3, exportInfo(512n)), reply(7, 3, blockSizes(0, 0)), reply(7, 1)],
      'block sizes',
    ],
  ])('is refused in one line: %s', async (_, pieces, words) => {
    await expect(say(pieces)).rejects.toMatchObject({
      code: 'SOURCE_REMOTE',
      temporary: false,
      message: expect.stringContaining(words),
    });
  });

  test.each<[string, Buffer[], string, boolean]>([
    ['an answer to nothing', [simple(0, Buffer.alloc(512), 9n)], 'what it was not asked', false],
    ['another form', [Buffer.concat([Buffer.from('BAD!'), simple(0).subarray(4)])], 'another form', false],
    ['a refused read', [simple(1)], 'error 1', false],
    ['a shutdown', [simple(108)], 'error 108', true],
    ['bytes beyond what was asked', [chunk(1, at(0n, Buffer.alloc(513)))], 'not asked for', false],
    ['bytes before it', [chunk(1, at(2n ** 63n, Buffer.alloc(512)))], 'not asked for', false],
    [
      'bytes twice',
      [chunk(1, at(0n, Buffer.alloc(512)), 0), chunk(1, at(256n, Buffer.alloc(256)))],
      'not asked for',
      false,
    ],
    ['half of the bytes', [chunk(1, at(0n, Buffer.alloc(256)))], 'fewer bytes', false],
    ['no bytes', [chunk(0, Buffer.alloc(0))], 'fewer bytes', false],
    ['a hole of 4 GiB', [chunk(2, at(0n, Buffer.from([255, 255, 255, 255])))], 'not asked for', false],
    ['an answer of 4 GiB', [chunk(0x8001, Buffer.alloc(6), 1, 0xffff_ffff)], 'an answer of kind', false],
    ['metadata nobody asked for', [chunk(5, Buffer.alloc(12))], 'an answer of kind', false],
  ])('does not get its bytes into a copy: %s', async (_, pieces, words, temporary) => {
    const disk = await say(ready(512n), pieces);
    await expect(disk.read(0, 512)).rejects.toMatchObject({
      code: 'SOURCE_REMOTE',
      temporary,
      message: expect.stringContaining(words),
    });
    await disk.close();
  });

  test('answers in crumbs, and without end, are refused', async () => {
    const crumbs = Array.from({ length: 20_000 }, (_, i) => chunk(1, at(BigInt(i), Buffer.alloc(1)), 0));
    const disk = await say(ready(32_768n), crumbs);
    await expect(disk.read(0, 32_768)).rejects.toThrow(/not asked for/);
    await disk.close();

    const context = Buffer.concat([Buffer.from([0, 0, 0, 1]), Buffer.from('base:allocation')]);
    const runs = Buffer.alloc(4 + 8 * 1024 * 1024, Buffer.from([0, 0, 0, 1, 0, 0, 0, 0]));
    runs.writeUInt32BE(1, 0);
    for (let run = 4; run < runs.length; run += 8) runs.writeUInt32BE(1, run);
    const [greeting = GREETING, , ...go] = ready(2n ** 40n);
    const told = await say(
      [greeting, reply(8, 1), reply(10, 4, context), reply(10, 1), ...go],
      [chunk(5, runs, 0), chunk(5, runs, 0), chunk(5, runs, 0)],
    );
    await expect(told.dataRanges?.()).rejects.toThrow(/without end/);
    await told.close();
  });

  test('one that ends in the middle can be asked again later', async () => {
    await expect(say([GREETING, reply(8, 0x8000_0001)], [], true)).rejects.toMatchObject({ temporary: true });
    const disk = await say(ready(1024n), [simple(0, Buffer.alloc(100))], true);
    await expect(disk.read(0, 1024)).rejects.toMatchObject({ code: 'SOURCE_REMOTE', temporary: true });
    await disk.close();
  });

  test('a disk without bytes is empty; what nobody serves is not there now', async () => {
    await expect(say(ready(0n))).rejects.toMatchObject({ code: 'EMPTY_DISK' });
    const gone = {
      kind: 'nbd' as const,
      url: 'nbd+unix:///?socket=/nowhere/x',
      socket: '/nowhere/x',
      exportName: '',
    };
    await expect(openNbdSource(gone)).rejects.toMatchObject({ code: 'SOURCE_REMOTE', temporary: true });
    await expect(openNbdSource(gone, { signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'INTERRUPTED',
    });
  });

  test('whatever it says, it is an error or the bytes of one answer', async () => {
    const hello = Buffer.concat(ready(512n));
    const good = Buffer.concat([hello, simple(0, Buffer.alloc(512, 7))]);
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat({ max: good.length - 1 }), fc.nat({ max: 255 })), { maxLength: 3 }),
        fc.nat({ max: good.length }),
        async (changes, cut) => {
          const bytes = Buffer.from(good);
          for (const [where, value] of changes) bytes[where] = value;
          const outcome = await (async () => {
            const disk = await say(
              [bytes.subarray(0, Math.min(cut, hello.length))],
              cut <= hello.length ? [] : [bytes.subarray(hello.length, cut)],
              true,
            );
            try {
              return (await disk.read(0, 512)).length;
            } finally {
              await disk.close();
            }
          })().catch((error: { code?: string }) => error.code);
          expect([512, 'SOURCE_REMOTE', 'EMPTY_DISK', 'BAD_SECTORS', undefined]).toContain(
            outcome ?? 'nothing',
          );
        },
      ),
      { numRuns: 200 },
    );
  });
});
