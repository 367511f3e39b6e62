import { mkdtempSync, rmSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { PortError } from '../../../core/errors.ts';
import { SOURCE_FORMATS, type SourceFormat } from '../../../core/request.ts';
import { image } from '../../../fixtures/hostile/build.ts';
import {
  bufferSource,
  decideFormat,
  inspectContent,
  inspectHeader,
} from '../../../tools/image-format/index.ts';
import { requires } from '../../support/requires.ts';

const FORMATS: readonly SourceFormat[] = SOURCE_FORMATS;

/** Nothing but facts or a PortError that is no BUG may come out. */
async function survives(data: Buffer, format: SourceFormat, sizeBytes = data.length): Promise<void> {
  const source = bufferSource(data, 'fuzz', sizeBytes);
  for (const step of [
    () => decideFormat(source),
    () => inspectHeader(source, format),
    () => inspectContent(source),
  ]) {
    try {
      await step();
    } catch (error) {
      if (!(error instanceof PortError)) throw error;
      if (error.code === 'BUG') throw error;
    }
  }
}

const MAGIC: Readonly<Record<SourceFormat, Buffer>> = {
  raw: Buffer.alloc(0),
  qcow2: Buffer.from('QFI\xfb\0\0\0\x03', 'latin1'),
  vmdk: Buffer.from('KDMV\x01\0\0\0', 'latin1'),
  vpc: Buffer.from('conectix', 'latin1'),
  vhdx: Buffer.from('vhdxfile', 'latin1'),
  vdi: Buffer.alloc(0),
};

describe('header parsers survive anything', () => {
  test.each(FORMATS)(
    '%s: noise behind the signature',
    async (format) => {
      await fc.assert(
        fc.asyncProperty(fc.uint8Array({ maxLength: 4096 }), fc.nat(2 ** 40), async (noise, claimed) => {
          const data = Buffer.concat([MAGIC[format], noise]);
          await survives(data, format, Math.max(data.length, claimed));
        }),
        { numRuns: 500 },
      );
    },
    60_000,
  );

  const missing = requires('qemu-img');
  describe.skipIf(missing)('real images with bytes changed', () => {
    const dir = mkdtempSync(path.join(tmpdir(), 'port-image-fuzz-'));
    const real = new Map<SourceFormat, Buffer>();
    beforeAll(async () => {
      const small = Buffer.alloc(1024 * 1024);
      small.write('EFI PART', 512);
      small.fill(7, 100_000, 400_000);
      for (const format of FORMATS) {
        const file = path.join(dir, format);
        await image(file, format, '', small);
        real.set(format, await fs.readFile(file));
      }
    }, 60_000);
    afterAll(() => rmSync(dir, { recursive: true, force: true }));

    // offsets where metadata lies, so that most changes hit something
    const PLACES: Readonly<Record<SourceFormat, readonly (readonly [number, number])[]>> = {
      raw: [[0, 4096]],
      qcow2: [
        [0, 512],
        [0x10000, 64],
        [0x20000, 64],
        [0x30000, 64],
        [0x40000, 256],
      ],
      vmdk: [
        [0, 1024],
        [0x2800, 4096],
      ],
      vpc: [[0, 2048]],
      vhdx: [
        [0, 512],
        [0x10000, 128],
        [0x30000, 128],
        [0x200000, 512],
        [0x210000, 128],
        [0x300000, 64],
      ],
      vdi: [[0, 1024]],
    };
    const edit = (format: SourceFormat) =>
      fc.tuple(
        fc.constantFrom(...PLACES[format]).chain(([at, length]) => fc.nat(length - 1).map((n) => at + n)),
        fc.oneof(
          fc.constantFrom(
            'ff',
            'ffffffff',
            'ffffffffffffffff',
            '00',
            '00000000',
            '7fffffff',
            '0000000000000001',
          ),
          fc.uint8Array({ minLength: 1, maxLength: 8 }).map((b) => Buffer.from(b).toString('hex')),
        ),
      );

    test.each(FORMATS)(
      '%s',
      async (format) => {
        const original = real.get(format) ?? Buffer.alloc(0);
        const data = Buffer.from(original);
        await fc.assert(
          fc.asyncProperty(fc.array(edit(format), { minLength: 1, maxLength: 4 }), async (edits) => {
            const undo: [number, Buffer][] = [];
            for (const [at, hex] of edits) {
              const bytes = Buffer.from(hex, 'hex').subarray(0, Math.max(0, data.length - at));
              undo.push([at, Buffer.from(data.subarray(at, at + bytes.length))]);
              bytes.copy(data, at);
            }
            try {
              await survives(data, format);
            } finally {
              for (const [at, bytes] of undo.reverse()) bytes.copy(data, at);
            }
          }),
          { numRuns: 1200 },
        );
        expect(data.equals(original)).toBe(true);
      },
      120_000,
    );

    test.each(FORMATS)(
      '%s: any cut',
      async (format) => {
        const original = real.get(format) ?? Buffer.alloc(0);
        await fc.assert(
          fc.asyncProperty(fc.nat(original.length - 1), async (length) => {
            await survives(original.subarray(0, length), format);
          }),
          { numRuns: 200 },
        );
      },
      60_000,
    );
  });

  test('memory stays flat on tables of a sparse giant', async () => {
    // 32 MiB L1 table of zeros in a file that claims terabytes: read in pieces
    const header = Buffer.alloc(104);
    MAGIC.qcow2.copy(header);
    header.writeUInt32BE(16, 20);
    header.writeBigUInt64BE(60n * 1024n ** 4n, 24);
    header.writeUInt32BE(4 * 1024 * 1024, 36);
    header.writeBigUInt64BE(0x20000n, 40);
    header.writeBigUInt64BE(0x10000n, 48);
    header.writeUInt32BE(1, 56);
    header.writeUInt32BE(4, 96);
    header.writeUInt32BE(104, 100);
    let largest = 0;
    const source = {
      name: 'giant',
      sizeBytes: 8 * 1024 ** 4,
      read: async (offset: number, length: number) => {
        largest = Math.max(largest, length);
        return offset === 0
          ? Buffer.concat([header, Buffer.alloc(length)]).subarray(0, length)
          : Buffer.alloc(length);
      },
    };
    await expect(inspectHeader(source, 'qcow2')).resolves.toEqual({ virtualBytes: 60 * 1024 ** 4 });
    expect(largest).toBeLessThanOrEqual(1024 * 1024);
  });
});
