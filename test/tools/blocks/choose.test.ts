import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { MIB } from '../../../core/sizes.ts';
import { BLOCK_BYTES, BlockIndex } from '../../../core/sync/block-index.ts';
import { worthKeeping } from '../../../tools/blocks/choose.ts';
import { CLUSTERS_PER_BLOCK } from '../../../tools/blocks/pack.ts';
import { BlockTable } from '../../../tools/blocks/table.ts';

const digestOf = (name: string): string => createHash('sha256').update(name).digest('hex');

/** A pack of blocks, each stored in so many bytes. */
function add(table: BlockTable, pack: string, names: readonly string[], bytes = MIB): void {
  const blocks = names.map((name, at) => ({
    digest: digestOf(name),
    sha256: digestOf(`stored ${name}`),
    pack,
    offset: at * bytes,
    lengths: Array<number>(CLUSTERS_PER_BLOCK).fill(bytes / CLUSTERS_PER_BLOCK),
  }));
  table.add(pack, blocks);
}

function indexOf(names: readonly string[]): BlockIndex {
  return new BlockIndex({
    blockBytes: BLOCK_BYTES,
    virtualBytes: Math.max(1, names.length) * BLOCK_BYTES,
    rawSha256: '0'.repeat(64),
    numbers: Uint32Array.from(names, (_, at) => at),
    digests: Buffer.concat(names.map((name) => Buffer.from(digestOf(name), 'hex'))),
  });
}

const named = (prefix: string, count: number): string[] =>
  Array.from({ length: count }, (_, at) => `${prefix}${at}`);
const ids = (table: BlockTable): string[] => [...table.packs().keys()].sort();

test('dead bytes up to 30 % of the live ones stay', () => {
  const table = new BlockTable();
  add(table, 'one', named('a', 13));
  // 10 live, 3 dead: exactly 30 %
  expect(ids(worthKeeping(indexOf(named('a', 10)), table))).toEqual(['one']);
  expect(ids(worthKeeping(indexOf(named('a', 9)), table))).toEqual([]);
});

test('the deadest packs go first, and no more than needed', () => {
  const table = new BlockTable();
  add(table, 'little dead', named('a', 16));
  add(table, 'half dead', named('b', 16));
  add(table, 'most dead', named('c', 16));
  const live = [...named('a', 15), ...named('b', 13), ...named('c', 2)];
  // 30 live, 18 dead; without the deadest 4
  expect(ids(worthKeeping(indexOf(live), table))).toEqual(['half dead', 'little dead']);
});

test('packs of other images do not count', () => {
  const table = new BlockTable();
  add(table, 'mine', named('a', 16));
  add(table, 'theirs', named('z', 160));
  expect(ids(worthKeeping(indexOf(named('a', 16)), table))).toEqual(['mine', 'theirs']);
});

test('a block in two packs is live in one of them only', () => {
  const table = new BlockTable();
  add(table, 'first', named('a', 4));
  add(table, 'again', [...named('a', 4), ...named('b', 1)]);
  // 5 live, 4 dead: the second goes, its one block is stored anew
  expect(ids(worthKeeping(indexOf([...named('a', 4), ...named('b', 1)]), table))).toEqual(['first']);
});

test('eight small packs stay, nine are merged', () => {
  const table = new BlockTable();
  add(table, 'large', named('a', 16));
  for (const [at, name] of named('s', 8).entries()) add(table, `small ${at}`, [name], MIB / 2);
  const live = [...named('a', 16), ...named('s', 9)];
  expect(ids(worthKeeping(indexOf(live), table))).toHaveLength(9);
  add(table, 'small 8', ['s8'], MIB / 2);
  expect(ids(worthKeeping(indexOf(live), table))).toEqual(['large']);
  // merged in one pack, they are found there: nothing is stored a second time
  add(table, 'merged', named('s', 9), MIB / 2);
  const kept = worthKeeping(indexOf(live), table);
  expect(live.filter((name) => kept.find(digestOf(name)) === undefined)).toEqual([]);
});

test('an empty disk keeps everything', () => {
  const table = new BlockTable();
  add(table, 'one', named('a', 3));
  expect(ids(worthKeeping(indexOf([]), table))).toEqual(['one']);
});
