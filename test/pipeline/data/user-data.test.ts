import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { checkIpRange, cloudConfig, pointerProperties } from '../../../pipeline/data/user-data.ts';

test('a URL of any length comes back from properties of at most 255 characters', () => {
  fc.assert(
    fc.property(fc.stringMatching(/^https:\/\/[a-z/?=&]{1,2000}$/), (url) => {
      const properties = pointerProperties(url);
      // the way the instance puts it together
      let back = properties.port_image ?? '';
      for (let n = 2; properties[`port_image_${n}`] !== undefined; n += 1)
        back += properties[`port_image_${n}`];
      expect(back).toBe(url);
      expect(Object.keys(properties)).toHaveLength(Math.ceil(url.length / 255));
      for (const value of Object.values(properties)) expect(value.length).toBeLessThanOrEqual(255);
    }),
  );
});

test('the cloud-config carries the document unchanged, and is refused when no cloud would take it', () => {
  const url = 'https://h/v1/AUTH_x/c/?temp_url_sig=a&b=: #\'"{}';
  const document = { version: 1 as const, data: { x: { url } } };
  const [file] = parse(cloudConfig(document)).write_files;
  expect(JSON.parse(file.content)).toEqual(document);
  expect(file.permissions).toBe('0600');
  const many = Object.fromEntries(
    Array.from({ length: 300 }, (_, i) => [`set-${i}`, { url: url.padEnd(200, 'x') }]),
  );
  expect(() => cloudConfig({ version: 1, data: many })).toThrow(expect.objectContaining({ code: 'USAGE' }));
});

test.each(['10.1.2.3', '10.1.2.0/24', '0.0.0.0/0', '2001:db8::/32', '::1'])(
  '%s is an address or range',
  (ip) => expect(checkIpRange(ip)).toBe(ip),
);
test.each([
  '',
  '10.1.2',
  '10.1.2.3/33',
  '10.1.2.3/',
  '::/129',
  '10.1.2.3\n',
  'a.b',
  '10.0.0.1/08x',
  '10.1.2.3 ',
])('%j is none', (ip) => expect(() => checkIpRange(ip)).toThrow(expect.objectContaining({ code: 'USAGE' })));
