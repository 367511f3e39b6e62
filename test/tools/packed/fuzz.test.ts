import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PortError } from '../../../core/errors.ts';
import { ovf, tar, withChecksum } from '../../../fixtures/hostile/packed.ts';
import { bufferSource } from '../../../tools/image-format/reader.ts';
import { readDescriptor } from '../../../tools/image-format/vmdk-descriptor.ts';
import { parseManifest } from '../../../tools/packed/manifest.ts';
import { isPlainName } from '../../../tools/packed/names.ts';
import { parseOvf } from '../../../tools/packed/ovf.ts';
import { readTar } from '../../../tools/packed/tar-reader.ts';
import { looksLikeVmx, parseVmx, vmxDisks, vmxMachine } from '../../../tools/packed/vmx.ts';
import { xzDeclaredBytes } from '../../../tools/packed/xz-index.ts';
import { zstdFrame, zstdFrameBytes } from '../../../tools/packed/zstd-frames.ts';
import { vmwareOvf } from './package-samples.ts';

const RUNS = 12_000;

/** A text with bytes replaced, removed and doubled: most stay near the format. */
function mutated(text: Buffer): fc.Arbitrary<Buffer> {
  const change = fc.record({
    at: fc.nat(text.length - 1),
    cut: fc.nat(40),
    put: fc.oneof(
      fc.uint8Array({ maxLength: 12 }).map((b) => Buffer.from(b)),
      fc
        .constantFrom('<', '>', '"', '/', '\0', '..', '&', '=', '\n', '<!', ']]>', '99999999999999999999')
        .map((s) => Buffer.from(s)),
      fc
        .record({ from: fc.nat(text.length - 1), length: fc.nat(600) })
        .map((r) => text.subarray(r.from, r.from + r.length)),
    ),
  });
  return fc.array(change, { minLength: 1, maxLength: 4 }).map((changes) => {
    let data = text;
    for (const { at, cut, put } of changes)
      data = Buffer.concat([data.subarray(0, at), put, data.subarray(at + cut)]);
    return data;
  });
}

/** Runs a parser: it may refuse with an error of ours, and nothing else. */
async function refusesOnly<T>(parse: () => T | Promise<T>): Promise<T | undefined> {
  try {
    return await parse();
  } catch (error) {
    if (!(error instanceof PortError) || error.group === 'bug') throw error;
    expect(`${error.message} ${error.hint}`).toMatch(/^[^\p{Cc}]+$/u);
    return undefined;
  }
}

const mostly = { numRuns: RUNS };

describe('parsers of packages hold against anything', () => {
  test('tar', async () => {
    const good = tar([
      { name: 'x.ovf', content: ovf() },
      { name: './', type: '5' },
      { name: 'pax', type: 'x', content: '18 path=disk.vmdk\n' },
      { name: 'other', content: 'x'.repeat(700) },
      { name: 'long', type: 'L', content: `${'n'.repeat(120)}\0` },
      { name: 'short', content: 'y' },
    ]);
    await fc.assert(
      fc.asyncProperty(mutated(good), fc.boolean(), async (data, repaired) => {
        // a wrong checksum would hide every other fault of a header
        for (let at = 0; repaired && at + 512 <= data.length; at += 512) {
          const block = data.subarray(at, at + 512);
          if (block.toString('latin1', 257, 262) === 'ustar') withChecksum(block);
        }
        const members = await refusesOnly(() => readTar(bufferSource(data)));
        const names = new Set<string>();
        for (const { name, offsetBytes, sizeBytes } of members ?? []) {
          expect(name.startsWith('/') || name.split('/').includes('..') || name === '').toBe(false);
          expect(names.has(name)).toBe(false);
          names.add(name);
          expect(offsetBytes % 512).toBe(0);
          expect(offsetBytes + sizeBytes).toBeLessThanOrEqual(data.length);
        }
      }),
      mostly,
    );
  }, 120_000);

  test('OVF', async () => {
    const good = Buffer.from(vmwareOvf([{ href: 'a.vmdk', file: 'ovf:size="5"' }, { href: 'b.vmdk' }]));
    await fc.assert(
      fc.asyncProperty(mutated(good), async (data) => {
        const facts = await refusesOnly(() =>
          parseOvf('x.ova', data, (text) => expect(text).toMatch(/^[^\p{Cc}]+$/u)),
        );
        for (const disk of facts?.disks ?? []) {
          expect(isPlainName(disk.href)).toBe(true);
          expect(Number.isSafeInteger(disk.capacityBytes ?? 1) && Number.isSafeInteger(disk.unit)).toBe(true);
        }
      }),
      mostly,
    );
  }, 120_000);

  test('VMX', async () => {
    const good = Buffer.from(
      '.encoding = "UTF-8"\nconfig.version = "8"\nmemSize = "4096"\nscsi0.present = "TRUE"\nscsi0:0.present = "TRUE"\nscsi0:0.fileName = "a.vmdk"\nide0:1.fileName = "b|2e.vmdk"\nide0:1.present = "TRUE"\nethernet0.present = "TRUE"\nethernet0.address = "00:11:22:33:44:55"\n',
    );
    await fc.assert(
      fc.asyncProperty(mutated(good), async (data) => {
        const text = data.toString('utf8');
        looksLikeVmx(text);
        await refusesOnly(() => {
          const vmx = parseVmx('x.vmx', text);
          vmxMachine(vmx);
          for (const disk of vmxDisks('x.vmx', vmx, () => {})) expect(disk.unit).toBeLessThan(1000);
        });
      }),
      mostly,
    );
  }, 120_000);

  test('VMDK descriptors', async () => {
    const good = Buffer.from(
      '# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType="twoGbMaxExtentFlat"\nRW 16384 FLAT "a-f001.vmdk" 0\nRW 512 ZERO\nddb.adapterType = "ide"\n',
    );
    await fc.assert(
      fc.asyncProperty(mutated(good), async (data) => {
        const found = await refusesOnly(() => readDescriptor(bufferSource(data), data.toString('latin1')));
        for (const extent of found?.extents ?? [])
          expect(Number.isSafeInteger(extent.sectors * 512)).toBe(true);
      }),
      mostly,
    );
  }, 120_000);

  test('manifests, xz indexes, zstd frames', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), fc.boolean(), async (bytes, framed) => {
        const data = Buffer.from(bytes);
        for (const list of parseManifest(data.toString('utf8'), () => {}).values())
          expect(list.length).toBeGreaterThan(0);
        const xz = Buffer.concat([data, Buffer.from([0, 4, 0x59, 0x5a])]);
        await refusesOnly(() => xzDeclaredBytes(bufferSource(xz)));
        const source = bufferSource(
          framed ? Buffer.concat([Buffer.from([0x28, 0xb5, 0x2f, 0xfd]), data]) : data,
        );
        await refusesOnly(async () => {
          let length = 0;
          for await (const piece of zstdFrameBytes(source, 0, await zstdFrame(source, 0)))
            length += piece.length;
          expect(length).toBeLessThanOrEqual(source.sizeBytes);
        });
      }),
      mostly,
    );
  }, 120_000);
});
