import { mkdtempSync, rmSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { run } from '../../core/command.ts';
import { GPT_HEAD_BYTES, growGpt } from '../../tools/gpt.ts';
import { requires } from '../support/requires.ts';

const MIB = 1024 * 1024;
const dir = mkdtempSync(path.join(tmpdir(), 'port-image-gpt-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

interface Layout {
  sectors: number;
  /** Start and length in sectors. */
  partitions: [number, number][];
  entries: number;
}

/** A table written from the specification, not by the code under test: head only, the backup is never read. */
function tableOf({ sectors, partitions, entries }: Layout): Buffer {
  const head = Buffer.alloc(GPT_HEAD_BYTES);
  head[446 + 4] = 0xee;
  head.writeUInt32LE(1, 446 + 8);
  head.writeUInt32LE(Math.min(sectors - 1, 0xffff_ffff), 446 + 12);
  head.writeUInt16BE(0x55aa, 510);
  const table = head.subarray(1024, 1024 + entries * 128);
  for (const [i, [start, length]] of partitions.entries()) {
    table.fill(i + 1, i * 128, i * 128 + 32);
    table.writeBigUInt64LE(BigInt(start), i * 128 + 32);
    table.writeBigUInt64LE(BigInt(start + length - 1), i * 128 + 40);
  }
  const header = head.subarray(512, 512 + 92);
  header.write('EFI PART', 0, 'latin1');
  header.writeUInt32LE(0x10000, 8);
  header.writeUInt32LE(92, 12);
  header.writeBigUInt64LE(1n, 24);
  header.writeBigUInt64LE(BigInt(sectors - 1), 32);
  const tableSectors = Math.ceil((entries * 128) / 512);
  header.writeBigUInt64LE(BigInt(2 + tableSectors), 40);
  header.writeBigUInt64LE(BigInt(sectors - 2 - tableSectors), 48);
  header.fill(0xab, 56, 72);
  header.writeBigUInt64LE(2n, 72);
  header.writeUInt32LE(entries, 80);
  header.writeUInt32LE(128, 84);
  header.writeUInt32LE(crc32(table), 88);
  header.writeUInt32LE(crc32(header), 16);
  return head;
}

const layouts = fc
  .record({
    sectors: fc.integer({ min: 8192, max: 2 ** 33 }),
    lengths: fc.array(fc.integer({ min: 1, max: 500 }), { maxLength: 6 }),
    entries: fc.constantFrom(4, 56, 128, 256),
  })
  .map(({ sectors, lengths, entries }): Layout => {
    let at = 2048;
    const partitions = lengths.slice(0, entries).map((length): [number, number] => {
      const start = at;
      at += length;
      return [start, length];
    });
    return { sectors, partitions, entries };
  });

function validHeader(sector: Buffer): boolean {
  const header = Buffer.from(sector.subarray(0, sector.readUInt32LE(12)));
  const stated = header.readUInt32LE(16);
  header.writeUInt32LE(0, 16);
  return crc32(header) === stated;
}

describe('growGpt', () => {
  test('both headers point at each other, fit the new end and carry right checksums', () => {
    fc.assert(
      fc.property(layouts, fc.integer({ min: 0, max: 2 ** 22 }), (layout, more) => {
        const head = tableOf(layout);
        const last = layout.sectors + more - 1;
        const grown = growGpt(head, (last + 1) * 512);
        if (grown.kind !== 'patches') throw new Error(grown.kind);
        const at = (lba: number) =>
          grown.patches.find((p) => p.offsetBytes === lba * 512)?.data ?? Buffer.alloc(512);
        const [primary, backup] = [at(1), at(last)];
        expect(validHeader(primary) && validHeader(backup)).toBe(true);
        expect(primary.readBigUInt64LE(32)).toBe(BigInt(last));
        expect(backup.readBigUInt64LE(24)).toBe(BigInt(last));
        expect(backup.readBigUInt64LE(32)).toBe(1n);
        const table = at(Number(backup.readBigUInt64LE(72)));
        expect(crc32(table)).toBe(backup.readUInt32LE(88));
        expect(table.equals(head.subarray(1024, 1024 + layout.entries * 128))).toBe(true);
        // entries end where the backup header starts, and the usable area ends where they start
        expect(Number(backup.readBigUInt64LE(72)) + Math.ceil(table.length / 512)).toBe(last);
        expect(primary.readBigUInt64LE(48)).toBe(backup.readBigUInt64LE(72) - 1n);
        expect(primary.subarray(56, 72)).toEqual(head.subarray(512 + 56, 512 + 72));
        for (const p of grown.patches)
          expect(p.offsetBytes + p.data.length).toBeLessThanOrEqual((last + 1) * 512);
      }),
    );
  });

  test('one flipped bit in header or entries: nothing is touched', () => {
    const layout: Layout = { sectors: 40_960, partitions: [[2048, 100]], entries: 128 };
    fc.assert(
      fc.property(fc.integer({ min: 8, max: 91 }), fc.integer({ min: 0, max: 7 }), (byte, bit) => {
        const head = tableOf(layout);
        head[512 + byte] = (head[512 + byte] ?? 0) ^ (1 << bit);
        expect(growGpt(head, 64 * MIB).kind).toBe('unknown');
      }),
    );
    const head = tableOf(layout);
    head[1024 + 200] = 1;
    expect(growGpt(head, 64 * MIB)).toEqual({ kind: 'unknown', why: 'the checksum of its entries is wrong' });
  });

  test('any bytes at all: no crash, no patch outside the disk', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 4096 }), fc.integer({ min: 0, max: 2 ** 40 }), (bytes, size) => {
        const head = Buffer.from(bytes);
        if (head.length > 520) head.write('EFI PART', 512, 'latin1');
        expect(['none', 'unknown', 'patches']).toContain(growGpt(head, size).kind);
      }),
    );
  });

  test('a disk without GPT, and one that is smaller than its table says', () => {
    expect(growGpt(Buffer.alloc(GPT_HEAD_BYTES), 64 * MIB)).toEqual({ kind: 'none' });
    expect(growGpt(tableOf({ sectors: 40_960, partitions: [], entries: 128 }), 10 * MIB).kind).toBe(
      'unknown',
    );
  });
});

describe.skipIf(requires('sfdisk', 'sgdisk'))('real tables', () => {
  test.each([512, 8 * 512, MIB, 33 * 512, 1024 * MIB])(
    'grown by %i bytes: sfdisk and sgdisk find no fault',
    async (more) => {
      const file = path.join(dir, `grown-${more}.img`);
      await fs.writeFile(file, '');
      await fs.truncate(file, 64 * MIB);
      const script = 'label: gpt\nsize=8MiB, type=U, name="esp"\nsize=20MiB, type=L, name="a root"\n';
      await run('sfdisk', ['-q', file], { input: script });
      const before = await run('sfdisk', ['--json', file]);
      const bytes = 64 * MIB + more;
      await fs.truncate(file, bytes);
      const handle = await fs.open(file, 'r+');
      const head = Buffer.alloc(GPT_HEAD_BYTES);
      await handle.read(head, 0, head.length, 0);
      const grown = growGpt(head, bytes);
      if (grown.kind !== 'patches') throw new Error(grown.kind);
      const sgdisk = () => run('sgdisk', ['--verify', file], { okStatus: [0, 1, 2] });
      // the check must be able to fail: before the change the backup is not at the end
      expect((await sgdisk()).stdout).toMatch(
        /not placed at the end|not located at the end|[1-9]\d* problem/i,
      );
      for (const patch of grown.patches)
        await handle.write(patch.data, 0, patch.data.length, patch.offsetBytes);
      await handle.close();
      expect((await sgdisk()).stdout).toMatch(/No problems found/);
      const verified = await run('sfdisk', ['--verify', file]);
      expect(verified.stdout + verified.stderr).toMatch(/No errors detected/);
      expect(verified.stdout + verified.stderr).not.toMatch(/backup|mismatch/i);
      const partitions = (json: string) =>
        (JSON.parse(json) as { partitiontable: { partitions: unknown; id: string } }).partitiontable;
      const after = await run('sfdisk', ['--json', file]);
      expect(partitions(after.stdout).partitions).toEqual(partitions(before.stdout).partitions);
      expect(partitions(after.stdout).id).toBe(partitions(before.stdout).id);
    },
  );
});
