import { expect, test } from 'vitest';
import { mixedNames } from '../../../drivers/openstack/sync/source.ts';
import { worldImages } from '../../../scripts/lib/simulate-world.ts';

test('names that become one series are told; versions that say what they are may be named as they like', () => {
  const [image] = worldImages(1, 0);
  if (image === undefined) throw new Error('no image');
  const named = (series: string, ...names: string[]) => names.map((name) => ({ ...image, series, name }));
  expect(
    mixedNames([
      ...named('web-1', 'web/1', 'web-1', 'web 1'),
      ...named('db', 'db', 'db-2026.1', 'db-2026.2'),
    ]),
  ).toEqual([['web 1', 'web-1', 'web/1']]);
});
