import { Readable } from 'node:stream';
import { expect, test } from 'vitest';
import { MIB } from '../../../core/sizes.ts';
import { BlockStore } from '../../../drivers/openstack/sync/block-store.ts';
import { BlockTable } from '../../../tools/blocks/table.ts';
import type { SwiftApi } from '../../../tools/openstack/swift.ts';

test('tables of other images are looked at as long as they fit into memory; those of the series always', async () => {
  const read: string[] = [];
  const objects = [
    { name: 'tables/web/1/aa', bytes: 50 * MIB, modifiedMs: 1 },
    ...Array.from({ length: 9 }, (_, n) => ({
      name: `tables/other${n}/1/bb`,
      bytes: 20 * MIB,
      modifiedMs: 100 - n,
    })),
  ];
  const swift = {
    headContainer: async () => ({}),
    ensureContainer: async () => {},
    async *listObjects(_container: string, prefix: string) {
      yield* objects.filter(({ name }) => name.startsWith(prefix));
    },
    getObject: async (_container: string, name: string) => {
      read.push(name);
      return Readable.from([new BlockTable().toBytes()]);
    },
  } as unknown as SwiftApi;
  const { signal } = new AbortController();
  const store = await BlockStore.open(swift, 'nightly', { make: false, signal });
  await store?.known({ series: 'web', rawSha256: 'c'.repeat(64) });
  expect(read).toEqual(['tables/web/1/aa', 'tables/other0/1/bb', 'tables/other1/1/bb', 'tables/other2/1/bb']);
});
