import { createHash, randomBytes } from 'node:crypto';
import * as zlib from 'node:zlib';
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { BLOCK_BYTES, BlockIndex } from '../../../core/sync/block-index.ts';
import { CLUSTERS_PER_BLOCK } from '../../../tools/blocks/pack.ts';
import { BlockTable } from '../../../tools/blocks/table.ts';

const hex = fc
  .uint8Array({ minLength: 32, maxLength: 32 })
  .map((bytes) => Buffer.from(bytes).toString('hex'));
const lengths = fc
  .array(fc.integer({ min: 0, max: 66_000 }), {
    minLength: CLUSTERS_PER_BLOCK,
    maxLength: CLUSTERS_PER_BLOCK,
  })
  .filter((all) => all.some((n) => n > 0));
const packs = fc.uniqueArray(
  fc.tuple(hex, fc.array(fc.record({ digest: hex, sha256: hex, lengths }), { minLength: 1, maxLength: 5 })),
  { selector: ([id]) => id, maxLength: 4 },
);

function tableOf(list: [string, { digest: string; sha256: string; lengths: number[] }[]][]): BlockTable {
  const table = new BlockTable();
  for (const [pack, blocks] of list) {
    let offset = 0;
    table.add(
      pack,
      blocks.map((block) => {
        const stored = { ...block, pack, offset };
        offset += block.lengths.reduce((a, b) => a + b, 0);
        return stored;
      }),
    );
  }
  return table;
}

test('a table is read as it was written', () => {
  fc.assert(
    fc.property(packs, (list) => {
      const table = tableOf(list);
      expect([...BlockTable.fromBytes(table.toBytes()).packs()]).toEqual([...table.packs()]);
    }),
  );
});

test('a table with any byte changed, cut off or added is damaged', () => {
  fc.assert(
    fc.property(packs, fc.nat(), fc.integer({ min: 1, max: 255 }), (list, where, by) => {
      const bytes = tableOf(list).toBytes();
      const at = where % bytes.length;
      const flipped = Buffer.from(bytes);
      flipped[at] = (flipped[at] ?? 0) ^ by;
      for (const wrong of [flipped, bytes.subarray(0, at)]) {
        let read: BlockTable | undefined;
        try {
          read = BlockTable.fromBytes(wrong);
        } catch (error) {
          expect(error).toMatchObject({ code: 'DAMAGED' });
        }
        // a bit of the frame's head may mean nothing; what is read is then what was written
        if (read !== undefined) expect([...read.packs()]).toEqual([...BlockTable.fromBytes(bytes).packs()]);
      }
    }),
  );
});

test('anything else is damaged, never an error of the program', () => {
  const head = fc.oneof(
    fc.json(),
    fc
      .record({ magic: fc.constant('port-image/table/1'), packs: fc.jsonValue() })
      .map((v) => JSON.stringify(v)),
    fc
      .record({ magic: fc.constant('port-image/table/1'), packs: fc.array(fc.tuple(hex, fc.integer())) })
      .map((v) => JSON.stringify(v)),
  );
  fc.assert(
    fc.property(head, fc.uint8Array({ maxLength: 300 }), (line, body) => {
      const plain = Buffer.concat([Buffer.from(`${line}\n`), body]);
      for (const bytes of [plain, zlib.zstdCompressSync(plain)]) {
        try {
          BlockTable.fromBytes(bytes);
        } catch (error) {
          expect(error).toMatchObject({ code: 'DAMAGED' });
        }
      }
    }),
  );
});

test('a table that would fill the memory is refused', () => {
  const bomb = zlib.zstdCompressSync(Buffer.alloc(256 * 2 ** 20));
  expect(() => BlockTable.fromBytes(bomb)).toThrow(expect.objectContaining({ code: 'DAMAGED' }));
});

test('the first of several places of a block is the one that counts', () => {
  const block = {
    digest: 'a'.repeat(64),
    sha256: 'b'.repeat(64),
    lengths: Array(CLUSTERS_PER_BLOCK).fill(9),
  };
  const table = tableOf([['1'.repeat(64), [block]]]);
  table.merge(tableOf([['2'.repeat(64), [block]]]));
  expect(table.find(block.digest)?.pack).toBe('1'.repeat(64));
  expect(table.only(new Set(['2'.repeat(64)])).find(block.digest)?.pack).toBe('2'.repeat(64));
});

const indexes = fc
  .uniqueArray(fc.nat(5000), { maxLength: 20 })
  .map((list) => list.sort((a, b) => a - b))
  .map(
    (numbers) =>
      new BlockIndex({
        blockBytes: BLOCK_BYTES,
        virtualBytes: 5001 * BLOCK_BYTES - 512,
        rawSha256: createHash('sha256').update(String(numbers)).digest('hex'),
        numbers: Uint32Array.from(numbers),
        digests: randomBytes(32 * numbers.length),
      }),
  );

test('an index is read as it was written, and one with any byte of its blocks changed is damaged', () => {
  fc.assert(
    fc.property(indexes, fc.nat(), fc.integer({ min: 1, max: 255 }), (index, where, by) => {
      const bytes = index.toBytes();
      const read = BlockIndex.fromBytes(bytes);
      expect(read).toEqual(index);
      expect(read.root).toBe(index.root);
      const damaged = expect.objectContaining({ code: 'DAMAGED' });
      expect(() => BlockIndex.fromBytes(bytes.subarray(0, where % bytes.length))).toThrow(damaged);
      expect(() => BlockIndex.fromBytes(Buffer.concat([bytes, Buffer.alloc(1)]))).toThrow(damaged);
      const body = bytes.indexOf(0x0a) + 1;
      if (index.count === 0) return;
      const flipped = Buffer.from(bytes);
      const at = body + (where % (bytes.length - body));
      flipped[at] = (flipped[at] ?? 0) ^ by;
      expect(() => BlockIndex.fromBytes(flipped)).toThrow(damaged);
    }),
  );
});

test('anything else is no index', () => {
  const head = fc.record({
    magic: fc.constant('port-image/blocks/1'),
    blockBytes: fc.oneof(fc.integer(), fc.constant(BLOCK_BYTES), fc.string()),
    virtualBytes: fc.oneof(fc.double(), fc.maxSafeNat()),
    rawSha256: fc.oneof(fc.string(), fc.constant('0'.repeat(64))),
    count: fc.oneof(fc.integer(), fc.constant(1)),
    root: fc.oneof(fc.string(), fc.constant(null)),
  });
  fc.assert(
    fc.property(fc.oneof(head, fc.jsonValue()), fc.uint8Array({ maxLength: 80 }), (value, body) => {
      const bytes = Buffer.concat([Buffer.from(`${JSON.stringify(value)}\n`), body]);
      expect(() => BlockIndex.fromBytes(bytes)).toThrow(expect.objectContaining({ code: 'DAMAGED' }));
    }),
  );
});
