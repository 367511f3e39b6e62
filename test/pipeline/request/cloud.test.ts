import { describe, expect, test } from 'vitest';
import { buildRequest } from '../../../pipeline/request/build.ts';
import { cloudRequest, storeRequest } from '../../../pipeline/request/cloud.ts';

const NONE = {} as NodeJS.ProcessEnv;
const CLOUD = { OS_CLOUD: 'c1' } as NodeJS.ProcessEnv;

describe('upload', () => {
  test('to the named cloud, to OS_CLOUD, to plain OS_* variables; nowhere without one', () => {
    expect(cloudRequest(['openstack'], { osCloud: 'x' }, {}, CLOUD).glance?.cloud).toBe('x');
    expect(cloudRequest(['openstack'], {}, {}, CLOUD).glance).toMatchObject({
      cloud: 'c1',
      method: 'auto',
      onExists: 'new-version',
      visibility: 'private',
      protected: false,
    });
    expect(cloudRequest(['openstack'], {}, {}, { OS_AUTH_URL: 'https://k' }).glance?.cloud).toBe('envvars');
    expect(cloudRequest(['openstack'], {}, {}, NONE).glance).toBeUndefined();
  });

  test('not for other platforms, not with --no-upload', () => {
    expect(cloudRequest(['qemu'], {}, {}, CLOUD).glance).toBeUndefined();
    expect(cloudRequest(['openstack'], { upload: false }, {}, CLOUD)).toEqual({
      cloud: 'c1',
      glance: undefined,
    });
    expect(cloudRequest(['openstack'], {}, { upload: false }, CLOUD).glance).toBeUndefined();
  });

  test.each([
    [{ uploadMethod: 'ftp' }, CLOUD],
    [{ uploadMethod: 'put' }, NONE],
    [{ visibility: 'everyone' }, CLOUD],
    [{ member: ['p'] }, CLOUD],
    [{ signKey: 'k.pem' }, CLOUD],
    [{ signCertificate: 'id' }, CLOUD],
  ])('refused: %j', (flags, env) => {
    expect(() => cloudRequest(['openstack'], flags, {}, env)).toThrow(
      expect.objectContaining({ code: 'USAGE' }),
    );
  });

  test('all Glance stores, however it is said', () => {
    expect(cloudRequest(['openstack'], { glanceStore: ['all'] }, {}, CLOUD).glance?.stores).toBe('all');
    expect(cloudRequest(['openstack'], {}, { glanceStores: 'all' }, CLOUD).glance?.stores).toBe('all');
    expect(cloudRequest(['openstack'], { glanceStore: ['a', 'b'] }, {}, CLOUD).glance?.stores).toEqual([
      'a',
      'b',
    ]);
  });
});

describe('store', () => {
  const { glance } = cloudRequest(['openstack'], {}, {}, CLOUD);

  test("the cloud's Swift when an image goes there, else a folder of the job", () => {
    expect(storeRequest(undefined, '/j/store', 'c1', glance)).toEqual({
      store: 'swift:port-image',
      storeCloud: 'c1',
    });
    expect(storeRequest(undefined, '/j/store', undefined, undefined)).toEqual({ store: 'file:/j/store' });
    expect(storeRequest('file:/d', '/j/store', 'c1', glance)).toEqual({ store: 'file:/d' });
    expect(storeRequest('swift:shop', '/j', 'c1', undefined)).toEqual({
      store: 'swift:shop',
      storeCloud: 'c1',
    });
  });

  test.each(['ftp:bucket', 's3:B', 'swift:a/b', 'swift:a_b', 'swift:-x', 'swift:ä', '/plain/path'])(
    'refused: %s',
    (url) => {
      expect(() => storeRequest(url, '/j', 'c1', undefined)).toThrow(
        expect.objectContaining({ code: 'USAGE' }),
      );
    },
  );

  test('a swift: store without a cloud is refused', () => {
    expect(() => storeRequest('swift:x', '/j', undefined, undefined)).toThrow(/needs a cloud/);
  });
});

test('--qcow2-compat is the encoding for old clouds', async () => {
  const flags = { to: 'openstack', upload: false, verify: true, compare: true, job: '/nowhere/job' };
  expect((await buildRequest('/d.raw', { ...flags, qcow2Compat: true })).request.encoding).toBe('compat');
  expect((await buildRequest('/d.raw', flags)).request.encoding).toBe('zstd');
});
