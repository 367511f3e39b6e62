import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { checkKey, idsBelow } from '../../../drivers/stores/key.ts';

async function* each(ids: readonly string[]): AsyncIterable<string> {
  yield* ids;
}

test.each(['', '/a', 'a//b', 'a/../b', '.hidden', 'a/.x', 'a\n', `a/${'b'.repeat(129)}`])(
  'no key: %j',
  (key) => {
    expect(() => checkKey(key)).toThrow(expect.objectContaining({ code: 'UNSAFE_PATH' }));
  },
);

test('ids a listing goes through stand in the order of their keys', async () => {
  const id = fc.stringMatching(/^[a-z][a-z0-9.-]{0,6}$/);
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(id),
      fc.stringMatching(/^[a-z]?[a-z0-9.-]{0,2}$/),
      async (ids, prefix) => {
        const keys = ids.map((name) => `${name}/data`).filter((key) => key.startsWith(prefix));
        const found = await idsBelow(prefix, () => each(ids));
        expect(found?.map((name) => `${name}/data`)).toEqual(keys.sort());
      },
    ),
  );
});

test('a prefix that names a data set asks for no ids', async () => {
  expect(await idsBelow('shop-1/seg', () => each(['shop-1']))).toBeUndefined();
});
