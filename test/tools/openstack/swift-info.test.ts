import { expect, test } from 'vitest';
import { infoUrl, parseSwiftInfo } from '../../../tools/openstack/swift-info.ts';
import { planManifests } from '../../../tools/openstack/swift-slo.ts';
import { signTempUrl } from '../../../tools/openstack/tempurl.ts';

const account = new URL('https://swift.example.org/v1/AUTH_1/');

test('abilities come from /info, defaults where it is silent', () => {
  const info = parseSwiftInfo(
    {
      swift: { max_file_size: 5368709122, version: '2.30.1', policies: [{ name: 'p' }] },
      slo: { max_manifest_segments: 200, min_segment_size: 5 },
      tempurl: {
        methods: ['GET'],
        allowed_digests: ['sha1', 'sha256', 'sha512'],
        incoming_remove_headers: [],
      },
    },
    account,
  );
  expect(info).toEqual({
    maxFileBytes: 5 * 2 ** 30,
    listingLimit: 10_000,
    slo: { maxManifestSegments: 200, minSegmentBytes: 5 },
    tempUrl: { digests: ['sha512', 'sha256'], methods: ['GET'] },
    isRgw: false,
    isKnown: true,
  });
  expect(parseSwiftInfo('<html>', account)).toMatchObject({ isKnown: false, isRgw: false });
  expect(parseSwiftInfo({ swift: {} }, account)).toMatchObject({ slo: undefined, tempUrl: undefined });
});

test('only sha1, or no list of digests, leaves none that is safe', () => {
  for (const tempurl of [{ methods: ['GET'] }, { allowed_digests: ['sha1'] }])
    expect(parseSwiftInfo({ tempurl }, account).tempUrl?.digests).toEqual([]);
});

test('Ceph RGW is recognised by version, sections or path', () => {
  // the form of rgw_rest_swift.cc: list_swift_data, list_tempurl_data, list_slo_data
  const rgw = {
    bulk_delete: {},
    container_quotas: {},
    swift: { max_file_size: 5368709120, container_listing_limit: 10000, version: '17.2.6' },
    tempurl: { methods: ['GET', 'HEAD', 'PUT', 'POST', 'DELETE'] },
    slo: { max_manifest_segments: 1000 },
  };
  expect(parseSwiftInfo(rgw, account).isRgw).toBe(true);
  const newer = { ...rgw, tempurl: { methods: ['GET'], allowed_digests: ['sha1', 'sha256', 'sha512'] } };
  expect(parseSwiftInfo({ ...newer, swift: { version: 'Development' } }, account).isRgw).toBe(true);
  expect(parseSwiftInfo(undefined, new URL('https://h/swift/v1/')).isRgw).toBe(true);
});

test('/info lies beside the version', () => {
  expect(infoUrl(account).href).toBe('https://swift.example.org/info');
  expect(infoUrl(new URL('https://h:8080/swift/v1')).href).toBe('https://h:8080/swift/info');
});

test('manifests nest, and no limit is passed', () => {
  const parts = Array.from({ length: 1001 }, (_, i) => ({ name: `p${i}`, bytes: 2, etag: `${i}` }));
  const two = planManifests('o', parts, 1000);
  expect(two.map((m) => m.parts.length)).toEqual([1000, 2]);
  expect(two.at(-1)).toMatchObject({ name: 'o', bytes: 2002 });
  const deep = planManifests('o', parts, 3);
  expect(deep.every((m) => m.parts.length <= 3)).toBe(true);
  expect(deep.at(-1)?.bytes).toBe(2002);
  expect(new Set(deep.map((m) => m.name)).size).toBe(deep.length);
  expect(() => planManifests('o', parts, 1)).toThrow(/more parts/);
});

test('signatures are those of swiftclient', () => {
  // from swiftclient.utils.generate_temp_url(path, 1400003600, 'correcthorsebatterystaple', 'GET', absolute=True, digest='sha256')
  const url = signTempUrl({
    url: new URL('https://h/v1/AUTH_account/c/o'),
    method: 'GET',
    expires: 1400003600,
    key: 'correcthorsebatterystaple',
    digest: 'sha256',
  });
  expect(url).toBe(
    `https://h/v1/AUTH_account/c/o?temp_url_sig=923ba41f852382aae7a9a475296cd2b2d87bd103950d578ed257685938c9dcfc&temp_url_expires=1400003600`,
  );
});
