import { expect, test } from 'vitest';
import {
  matchesPath,
  readRules,
  rulesCover,
  widerRules,
} from '../../../tools/openstack/application-credential.ts';

const path = '/v1/AUTH_p/data.shop/';

test.each([
  ['/v1/AUTH_p/data.shop/**', '/v1/AUTH_p/data.shop/segments/1', true],
  ['/v1/AUTH_p/data.shop/*', '/v1/AUTH_p/data.shop/segments/1', false],
  ['/v1/AUTH_p/data.shop/*', '/v1/AUTH_p/data.shop/manifest.json', true],
  ['/v1/AUTH_p/{container}/**', '/v1/AUTH_p/data.shop/x/y', true],
  ['/v1/AUTH_p/data.shop/**', '/v1/AUTH_p/dataXshop/segments/1', false],
  ['/v1/AUTH_p/data.shop/**', '/x/v1/AUTH_p/data.shop/segments/1', false],
  ['(a+)+$', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaa!', false],
])('%s on %s: %s', (pattern, asked, matches) => expect(matchesPath(pattern, asked)).toBe(matches));

test('our own rules cover their sets, no others, and allow nothing more', () => {
  const rules = readRules(path);
  expect(rulesCover(rules, [path])).toBe(true);
  expect(rulesCover(rules, [path, '/v1/AUTH_p/data.other/'])).toBe(false);
  expect(widerRules(rules, [path])).toEqual([]);
});

test.each([
  ['another method', { service: 'object-store', method: 'PUT', path: `${path}**` }],
  ['another service', { service: 'image', method: 'GET', path: `${path}**` }],
  ['the whole account', { service: 'object-store', method: 'GET', path: '/v1/AUTH_p/**' }],
])('%s is told as wider', (_, rule) =>
  expect(widerRules([rule, ...readRules(path)], [path])).toEqual([rule]),
);

test('rules that do not reach the data do not cover it', () => {
  const rule = { service: 'object-store', method: 'GET', path: `${path}*` };
  expect(rulesCover([rule], [path])).toBe(false);
  expect(rulesCover([{ ...rule, path: `${path}**`, method: 'HEAD' }], [path])).toBe(false);
  expect(rulesCover([{ ...rule, path: `${path}**`, service: 'image' }], [path])).toBe(false);
});
