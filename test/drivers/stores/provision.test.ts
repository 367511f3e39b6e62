import { expect, test } from 'vitest';
import { PortError } from '../../../core/errors.ts';
import { FileStore } from '../../../drivers/stores/file.ts';
import { provisionIfAble } from '../../../drivers/stores/provision.ts';
import { SwiftStore } from '../../../drivers/stores/swift.ts';

const OPTIONS = { lifeMs: 1000 };
const never = () => {
  throw new Error('no warning was expected');
};

test('a store that signs nothing is no error and no warning', async () => {
  expect(await provisionIfAble(new FileStore('/nowhere'), ['a'], OPTIONS, never)).toBeUndefined();
});

test('a store that refuses to sign is told with the way that is left; other failures are thrown', async () => {
  const told: string[] = [];
  const failing = (error: PortError) => new SwiftStore('x', { open: () => Promise.reject(error) });
  const refused = failing(new PortError('CLOUD_REFUSED', 'this object store is Ceph RGW'));
  expect(await provisionIfAble(refused, ['a'], OPTIONS, (text) => told.push(text))).toBeUndefined();
  expect(told).toEqual([expect.stringMatching(/Ceph RGW.*data mint --application-credential new/)]);
  const lost = failing(new PortError('CLOUD_LOGIN', 'no'));
  await expect(provisionIfAble(lost, ['a'], OPTIONS, never)).rejects.toMatchObject({ code: 'CLOUD_LOGIN' });
});
