import { expect, test } from 'vitest';
import { platforms, platformsNamed } from '../../drivers/registry.ts';

test('names find platforms once each, in the order asked for', () => {
  expect(platformsNamed(['qemu', 'openstack', 'qemu']).map((p) => p.name)).toEqual(['qemu', 'openstack']);
  expect(platformsNamed(['all'])).toEqual([...platforms]);
});

test('an unknown name is a usage error that lists the known ones', () => {
  expect(() => platformsNamed(['aws2'])).toThrow(
    expect.objectContaining({ code: 'USAGE', hint: expect.stringContaining('openstack, qemu') }),
  );
  expect(() => platformsNamed([])).toThrow(expect.objectContaining({ code: 'USAGE' }));
});

test.each(platforms.map((p) => [p.name, p] as const))('%s is complete', (_, platform) => {
  expect(platform.name).toMatch(/^[a-z][a-z0-9-]*$/);
  expect(platform.image.source).not.toBe('');
  // The last console= owns /dev/console, and consoles of clouds are serial.
  expect(platform.needs.kernelArguments.filter((a) => a.startsWith('console=')).at(-1)).toMatch(/ttyS0/);
  expect(platform.needs.datasources.at(-1)).toBe('None');
  for (const name of [...platform.needs.storageModules, ...platform.needs.networkModules]) {
    expect(name).toMatch(/^[a-z0-9_]+$/);
  }
});
