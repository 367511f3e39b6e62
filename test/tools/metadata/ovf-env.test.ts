import fc from 'fast-check';
import { XMLParser, XMLValidator } from 'fast-xml-parser';
import { expect, test } from 'vitest';
import { serviceMetadata } from '../../../tools/metadata/index.ts';
import { azureEnvironment, ovfEnvironment } from '../../../tools/metadata/ovf-env.ts';
import { xmlText } from '../../../tools/xml-text.ts';

const META = {
  instanceId: 'i-1',
  hostname: 'shop"01<&',
  userData: '#!/bin/sh\necho "ü" <&>\n',
  mac: '52:54:00:12:34:56',
};
const SETTINGS = { ignoreAttributes: false, parseTagValue: false, parseAttributeValue: false };
const parser = new XMLParser(SETTINGS);
const exact = new XMLParser({ ...SETTINGS, trimValues: false });
const decoded = (text: string) => Buffer.from(text, 'base64').toString('utf8');

test('vSphere: properties by key, user data in base64', () => {
  const xml = ovfEnvironment(serviceMetadata('ovf', META));
  expect(XMLValidator.validate(xml)).toBe(true);
  // ds-identify greps an ISO with another label for this (is_cdrom_ovf).
  expect(xml).toContain('http://schemas.dmtf.org/ovf/environment/1');
  const properties: Record<string, string>[] = parser.parse(xml).Environment.PropertySection.Property;
  const found = Object.fromEntries(properties.map((p) => [p['@_oe:key'], p['@_oe:value']]));
  expect(found['instance-id']).toBe('i-1');
  expect(found.hostname).toBe(META.hostname);
  expect(decoded(found['user-data'] ?? '')).toBe(META.userData);
});

test("Azure: the section cloud-init's parser asks for", () => {
  const xml = azureEnvironment(serviceMetadata('azure', META));
  expect(XMLValidator.validate(xml)).toBe(true);
  const section = parser.parse(xml).Environment['wa:ProvisioningSection'];
  const set = section['wa:LinuxProvisioningConfigurationSet'];
  expect(set['wa:ConfigurationSetType']).toBe('LinuxProvisioningConfiguration');
  expect(set['wa:HostName']).toBe(META.hostname);
  expect(decoded(set['wa:CustomData'])).toBe(META.userData);
});

test('any text survives as an attribute, without what XML cannot hold', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), (text) => {
      const kept = text.replace(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, '');
      const xml = `<a b="${xmlText(text)}"/>`;
      expect(XMLValidator.validate(xml)).toBe(true);
      const attribute: unknown = exact.parse(xml).a['@_b'];
      expect(attribute ?? '').toBe(kept);
    }),
  );
});
