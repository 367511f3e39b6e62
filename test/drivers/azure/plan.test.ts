import fc from 'fast-check';
import { expect, test } from 'vitest';
import { nextVersion } from '../../../drivers/azure/gallery.ts';
import { AzureOptions } from '../../../drivers/azure/options.ts';
import { choose } from '../../../drivers/azure/plan.ts';
import { checkResource } from '../../support/azure-model.ts';

const base = {
  subscription: '11111111-2222-3333-4444-555555555555',
  resourceGroup: 'rg',
  location: 'westeurope',
  storageAccount: 'shop',
  container: 'vhds',
};
const options = (given: Record<string, unknown> = {}) => AzureOptions.parse({ ...base, ...given });
const pick = (given: Record<string, unknown>, there: [string, string | undefined][]) =>
  choose({ name: 'shop01', mark: 'mine', options: options(given) }, new Map(there));

test('versions count up from the newest, as numbers', () => {
  expect(nextVersion([])).toBe('1.0.0');
  expect(nextVersion(['1.9.9', '1.10.0', 'latest'])).toBe('1.10.1');
  const part = fc.integer({ min: 0, max: 2 ** 30 });
  fc.assert(
    fc.property(fc.array(fc.tuple(part, part, part), { minLength: 1 }), (versions) => {
      const names = versions.map((v) => v.join('.'));
      const next = nextVersion(names).split('.').map(Number);
      for (const v of versions) {
        const i = v.findIndex((n, at) => n !== next[at]);
        expect(v[i]).toBeLessThan(next[i] ?? 0);
      }
    }),
  );
});

test('an image of this job is gone on with, whatever else is there', () => {
  expect(
    pick({ onExists: 'fail' }, [
      ['shop01', 'other'],
      ['shop01-2', 'mine'],
    ]),
  ).toEqual({ image: 'shop01-2', replaces: [] });
});

test('what does not go together is refused with the option named', () => {
  const issue = (given: Record<string, unknown>) =>
    AzureOptions.safeParse({ ...base, ...given }).error?.issues[0]?.path[0];
  expect(issue({ container: undefined })).toBe('storageAccount');
  expect(issue({ method: 'managed-disk', storageAccount: undefined, container: undefined })).toBeUndefined();
  expect(issue({ version: '1.0.0' })).toBe('gallery');
  expect(issue({ osState: 'specialized' })).toBe('osState');
  expect(issue({ trustedLaunch: true })).toBe('trustedLaunch');
  expect(issue({ gallery: 'g', version: '1.0' })).toBe('version');
  expect(issue({ subscription: 'mine' })).toBe('subscription');
});

test("the provider's model refuses what it does not know", () => {
  const disk = (properties: unknown, more = {}) =>
    checkResource('computeDisk', 'Disk', { location: 'x', properties, ...more });
  expect(disk({ creationData: { createOption: 'Upload', uploadSizeBytes: 5 } })).toEqual([]);
  expect(disk({ creationData: { createOption: 'Uploaded' } })[0]).toContain('not known of DiskCreateOption');
  expect(disk({ creationData: {} })[0]).toContain('createOption is missing');
  expect(disk({ creationData: { createOption: 'Upload', size: 5 } })[0]).toContain(
    'size is not in CreationData',
  );
  expect(disk({ creationData: { createOption: 'Upload' }, diskState: 'Attached' })[0]).toContain('read-only');
  expect(disk({ creationData: { createOption: 'Upload', uploadSizeBytes: '5' } })[0]).toContain(
    'is no number',
  );
  expect(checkResource('compute', 'Image', { properties: {} })).toContain('Image.location is missing');
});
