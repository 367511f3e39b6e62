import { expect, test } from 'vitest';
import type { GlanceRequest } from '../../../drivers/openstack/options.ts';
import { chooseMethod, type Offer, RESUMABLE_FROM_BYTES } from '../../../drivers/openstack/upload/method.ts';

const store = (id: string, readOnly = false) => ({ id, default: id === 'a', 'read-only': readOnly });
const everything: Offer = {
  importMethods: ['glance-direct', 'web-download', 'copy-image'],
  stores: [store('a'), store('b'), store('http', true)],
  hasObjectStore: true,
};
const choose = (
  request: Partial<Pick<GlanceRequest, 'method' | 'stores'>>,
  offer: Partial<Offer> = {},
  bytes = 1,
) => chooseMethod({ method: 'auto', stores: [], ...request }, { ...everything, ...offer }, bytes).method;

test.each([
  ['nothing named', {}, {}, 1, 'put'],
  ['one store', { stores: ['b'] }, {}, 1, 'put'],
  ['two stores', { stores: ['a', 'b'] }, {}, 1, 'import'],
  ['all stores', { stores: 'all' }, {}, 1, 'import'],
  ['large', {}, {}, RESUMABLE_FROM_BYTES, 'web-download'],
  ['large, no Swift', {}, { hasObjectStore: false }, RESUMABLE_FROM_BYTES, 'put'],
  ['large, not offered', {}, { importMethods: ['glance-direct'] }, RESUMABLE_FROM_BYTES, 'put'],
  [
    'two stores, only web-download',
    { stores: ['a', 'b'] },
    { importMethods: ['web-download'] },
    1,
    'web-download',
  ],
  ['an old cloud', {}, { importMethods: [], stores: undefined, hasObjectStore: false }, 1, 'put'],
  ['asked for', { method: 'import' }, {}, 1, 'import'],
] as const)('%s', (_, request, offer, bytes, method) => {
  expect(choose(request as Parameters<typeof choose>[0], offer, bytes)).toBe(method);
});

test.each([
  ['a store that is not there', { stores: ['c'] }, {}, 'no such Glance store: c'],
  ['a store that cannot be written to', { stores: ['http'] }, {}, 'no such Glance store: http'],
  ['all stores of a cloud without names', { stores: 'all' }, { stores: undefined }, 'only one Glance store'],
  ['import where there is none', { method: 'import' }, { importMethods: [] }, 'glance-direct'],
  ['web-download that is not offered', { method: 'web-download' }, { importMethods: [] }, 'web-download'],
  ['web-download without Swift', { method: 'web-download' }, { hasObjectStore: false }, 'no object store'],
  ['several stores without an import', { stores: ['a', 'b'] }, { importMethods: [] }, 'glance-direct'],
] as const)('refused: %s', (_, request, offer, message) => {
  expect(() => choose(request as Parameters<typeof choose>[0], offer as Partial<Offer>)).toThrow(message);
});
