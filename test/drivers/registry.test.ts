import { expect, test } from 'vitest';
import { platforms, platformsNamed } from '../../drivers/registry.ts';

test('names find platforms once each, in the order asked for', () => {
  expect(platformsNamed(['qemu', 'openstack', 'qemu']).map((p) => p.name)).toEqual(['qemu', 'openstack']);
  expect(platformsNamed(['all'])).toEqual([...platforms]);
});

test('an unknown name is a usage error that lists the known ones', () => {
  expect(() => platformsNamed(['cloud9'])).toThrow(
    expect.objectContaining({ code: 'USAGE', hint: expect.stringContaining('openstack, aws') }),
  );
  expect(() => platformsNamed([])).toThrow(expect.objectContaining({ code: 'USAGE' }));
});

test.each(platforms.map((p) => [p.name, p] as const))('%s is complete', (_, platform) => {
  expect(platform.name).toMatch(/^[a-z][a-z0-9-]*$/);
  expect(platform.image.source).not.toBe('');
  // The last console= owns /dev/console, and consoles of clouds are serial.
  const consoles = platform.needs.kernelArguments.filter((a) => a.startsWith('console='));
  if (consoles.length > 0) expect(consoles.at(-1)).toMatch(/ttyS0|hvc0/);
  // Azure names itself alone: a boot that does not wait for its metadata would come up without a login.
  if (platform.needs.datasources.length > 1) expect(platform.needs.datasources.at(-1)).toBe('None');
  expect(platform.needs.datasources.map((d) => d.toLowerCase())).toContain(platform.boot.datasource);
  const { storageModules, storageExtras = [], networkModules, optionalModules } = platform.needs;
  for (const { module } of platform.boot.listedOnly) {
    expect([...storageModules, ...storageExtras, ...networkModules, ...optionalModules]).toContain(module);
  }
  for (const name of [...storageModules, ...storageExtras, ...networkModules, ...optionalModules]) {
    expect(name).toMatch(/^[a-z0-9_]+$/);
  }
});
