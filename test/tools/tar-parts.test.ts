import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { dataRanges, type FileExtent, fileRuns, parseFilefrag, toDisk } from '../../tools/extents.ts';
import { paxRecord, paxTime, xattrKeyword } from '../../tools/pax.ts';
import { aclText } from '../../tools/posix-acl.ts';
import { isSparse, sparseMap } from '../../tools/segment-tar.ts';
import { escapePath } from '../../tools/systemd-units.ts';
import { plainMap } from '../../tools/tree-content.ts';
import { findTime, parseXattrs } from '../../tools/tree-walk.ts';

test('pax records count themselves and keep bytes', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 1200 }), (value) => {
      const record = paxRecord('path', value);
      const [, length = ''] = /^(\d+) path=/.exec(record.toString('latin1')) ?? [];
      expect(Number(length)).toBe(record.length);
      expect(record.subarray(length.length + 6, -1)).toEqual(Buffer.from(value));
      expect(record.at(-1)).toBe(10);
    }),
  );
  // Around the lengths where the number of digits changes.
  for (const n of [1, 2, 3, 90, 91, 92, 93, 989, 990, 991, 992]) {
    const record = paxRecord('k', 'x'.repeat(n));
    expect(Number.parseInt(record.toString(), 10)).toBe(record.length);
  }
});

test('times: what find prints becomes what tar reads', () => {
  expect(findTime('-2.2500000000')).toBe(-1_750_000_000n);
  expect(paxTime(-1_750_000_000n)).toBe('-1.75');
  expect(paxTime(findTime('1700000000.0000000010'))).toBe('1700000000.000000001');
  expect(paxTime(0n)).toBe('0');
  expect(() => findTime('x')).toThrow();
});

test('xattr names and values as getfattr writes them', async () => {
  const lines = [
    '# file: ./n\\012l\\134q\xff',
    'user.y\\075z%=0x71',
    'user.empty',
    'user.e=0x',
    '',
    '# file: .',
    'a.b=0x00ff',
  ];
  const parsed = await parseXattrs(lines);
  expect(parsed.get('n\nl\\q\xff')).toEqual(
    new Map([
      ['user.y=z%', Buffer.from('q')],
      ['user.empty', Buffer.alloc(0)],
      ['user.e', Buffer.alloc(0)],
    ]),
  );
  expect(parsed.get('')?.get('a.b')).toEqual(Buffer.from([0, 255]));
  expect(xattrKeyword('user.a=b%')).toBe('SCHILY.xattr.user.a%3Db%25');
});

test('ACLs', () => {
  const value = Buffer.from(
    '0200000001000600ffffffff02000700d204000004000400ffffffff10000700ffffffff20000400ffffffff',
    'hex',
  );
  expect(aclText(value)).toBe('user::rw-,user:1234:rwx,group::r--,mask::rwx,other::r--');
  expect(() => aclText(Buffer.from('01000000', 'hex'))).toThrow(expect.objectContaining({ code: 'DAMAGED' }));
  expect(() => aclText(Buffer.from('02000000ff', 'hex'))).toThrow(
    expect.objectContaining({ code: 'DAMAGED' }),
  );
});

describe('filefrag', () => {
  const output = (row: string, tail = './a: 1 extent found') => [
    'Filesystem type is: ef53',
    'File size of ./a is 5242880 (5242880 blocks of 1 bytes)',
    ' ext:     logical_offset:        physical_offset: length:   expected: flags:',
    row,
    tail,
  ];
  test.each([
    ['   0:        0.. 5242879:   16778240..  22021119: 5242880:             last,eof', true, 1],
    ['   0:        0.. 5242879:   16778240..  22021119: 5242880:             last,unwritten,eof', true, 0],
    ['   0:        0.. 5242879:   16778240..  22021119: 5242880:             last,encoded,eof', false, 1],
    [
      '   0:        0..      59:          0..        59:      60:             last,not_aligned,inline,eof',
      false,
      1,
    ],
    [
      '   0:        0.. 5242879:          0.. 5242879:  5242880:             last,unknown_loc,delalloc,eof',
      false,
      1,
    ],
    [
      '   0:        0.. 5242879:   16778240..  22021119: 5242880:   16778000: last,shared,merged,eof',
      true,
      1,
    ],
    ['   0:        0.. 5242879:   16778240..  22021119: 5242880:             last,brandnew,eof', false, 1],
  ])('%s', (row, direct, extents) => {
    const map = parseFilefrag(output(row)).get('./a');
    expect(map?.direct).toBe(direct);
    expect(map?.extents.length).toBe(extents);
  });
  test('an answer without its end does not count, an empty one does', () => {
    const cut = '   0:        0.. 1048575:   16778240..  17826815: 1048576:             ';
    expect(parseFilefrag(output(cut)).has('./a')).toBe(false);
    expect(parseFilefrag(output('', './a: 0 extents found')).get('./a')?.extents).toEqual([]);
  });
  test('rows of a file whose head is not understood do not become another file’s', () => {
    const row = (n: number, flags: string) =>
      `   ${n}:        0..    4095:      40960..     45055:   4096:             ${flags}`;
    const head = (name: string) => `File size of ${name} is 9 (1 block of 1 bytes)`;
    const lines = [head('./a'), row(0, 'last,eof'), 'File size of ./b', 'c is 9', row(0, 'last,eof')];
    expect([...parseFilefrag([...lines, head('./d'), row(0, 'last,eof')]).keys()]).toEqual(['./d']);
    expect([...parseFilefrag([head('./e'), row(1, 'last,eof')]).keys()]).toEqual([]);
  });
  test('names that look like output', () => {
    const lines = [
      'File size of ./x is 5 (1 block of 1 bytes) is 7 (7 blocks of 1 bytes)',
      './x is 5 (1 block of 1 bytes): 0 extents found',
    ];
    expect([...parseFilefrag(lines).keys()]).toEqual(['./x is 5 (1 block of 1 bytes)']);
  });
});

test('every byte of a file is found on the disks exactly once', () => {
  const piece = fc.integer({ min: 1, max: 9 });
  fc.assert(
    fc.property(
      fc.array(fc.tuple(piece, piece, fc.boolean()), { minLength: 1, maxLength: 8 }),
      fc.nat(),
      fc.nat(),
      (parts, a, b) => {
        // A device of pieces that lie scattered over two disks, and a file of extents with holes.
        let device = 0;
        const map = parts.map(([length], i) => {
          const part = {
            startBytes: device,
            lengthBytes: length,
            disk: i % 2,
            diskOffsetBytes: 1000 * (parts.length - i),
          };
          device += length;
          return part;
        });
        let logical = 0;
        let used = 0;
        const extents: FileExtent[] = [];
        for (const [, wanted, hole] of parts) {
          if (hole) logical += wanted;
          const length = Math.min(wanted, device - used);
          if (length <= 0) continue;
          extents.push({ logicalBytes: logical, lengthBytes: length, deviceBytes: used });
          logical += length;
          used += length;
        }
        const size = logical + (a % 5);
        const ranges = dataRanges(extents, size);
        expect(ranges.reduce((sum, [, n]) => sum + n, 0)).toBe(used);
        expect(isSparse(ranges, size)).toBe(size > used);
        for (const [start, length] of ranges) {
          const offset = start + (b % length);
          const runs = fileRuns(extents, map, offset, start + length - offset) ?? [];
          const bytes = runs.flatMap((r) =>
            Array.from({ length: r.lengthBytes }, (_, i) => [r.disk, r.offsetBytes + i]),
          );
          const wanted = Array.from({ length: start + length - offset }, (_, i) => {
            const extent = extents.find(
              (e) => e.logicalBytes <= offset + i && offset + i < e.logicalBytes + e.lengthBytes,
            );
            const at = (extent?.deviceBytes ?? 0) + offset + i - (extent?.logicalBytes ?? 0);
            const part = map.find((m) => m.startBytes <= at && at < m.startBytes + m.lengthBytes);
            return [part?.disk, (part?.diskOffsetBytes ?? 0) + at - (part?.startBytes ?? 0)];
          });
          expect(bytes).toEqual(wanted);
        }
        expect(toDisk(map, device - 1, 2)).toBeUndefined();
      },
    ),
  );
});

test('sparse maps end at the end of the file', () => {
  expect(sparseMap([[0, 4096]], 8192).toString('latin1', 0, 16)).toBe('2\n0\n4096\n8192\n0\n');
  expect(sparseMap([], 5).toString('latin1', 0, 6)).toBe('1\n5\n0\n');
  expect(sparseMap([[512, 3]], 515).toString('latin1', 0, 8)).toBe('1\n512\n3\n');
  expect(
    sparseMap(
      Array.from({ length: 200 }, (_, i) => [i * 8192, 4096]),
      2 ** 22,
    ).length % 512,
  ).toBe(0);
});

test('unit names of paths', () => {
  expect(escapePath('/srv/app')).toBe('srv-app');
  expect(escapePath('/srv/my-app/.x y')).toBe('srv-my\\x2dapp-.x\\x20y');
  expect(escapePath('/.hidden')).toBe('\\x2ehidden');
  expect(escapePath('/')).toBe('-');
});

test('a file system with a journal to replay is not read directly, unless its log never holds content', () => {
  const map = [{ startBytes: 0, lengthBytes: 9, disk: 0, diskOffsetBytes: 0 }];
  const base = { device: '/dev/sda1', uuid: '', label: '', sizeBytes: 9, map };
  expect(plainMap({ ...base, type: 'ext4', dirty: false })).toEqual(map);
  expect(plainMap({ ...base, type: 'ext4', dirty: true })).toBeUndefined();
  expect(plainMap({ ...base, type: 'xfs', dirty: true })).toEqual(map);
  expect(plainMap({ ...base, type: 'btrfs' })).toBeUndefined();
});
