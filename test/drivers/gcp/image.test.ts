import fc from 'fast-check';
import { expect, test } from 'vitest';
import { gceName, guestOsFeatures, labelValue } from '../../../drivers/gcp/image.ts';
import { GCE_NAME, GcpOptions } from '../../../drivers/gcp/options.ts';
import { partsOf } from '../../../tools/gcp/put-parts.ts';

test('whatever a server is called, its image has a name of RFC 1035, with the version whole', () => {
  fc.assert(
    fc.property(fc.string(), fc.stringMatching(/^[0-9a-f]{1,20}$/), (name, tail) => {
      const made = gceName(`a${name}`, tail);
      expect(made).toMatch(GCE_NAME);
      expect(made.endsWith(`-${tail}`)).toBe(true);
    }),
  );
  expect(() => gceName('2026')).toThrow(expect.objectContaining({ code: 'USAGE' }));
  expect(labelValue('2026.01.02')).toBe('2026-01-02');
});

test('parts cover a file once, in 1024 parts at most', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 2 ** 44 }), (bytes) => {
      const parts = partsOf('x', bytes);
      expect(parts.length).toBeLessThanOrEqual(1024);
      expect(parts.at(-1)).toMatchObject({ start: bytes - (parts.at(-1)?.length ?? 0) });
      for (const [i, part] of parts.entries()) {
        expect(part.start).toBe(i === 0 ? 0 : (parts[i - 1]?.start ?? 0) + (parts[i - 1]?.length ?? 0));
      }
      expect(new Set(parts.map((p) => p.name)).size).toBe(parts.length);
    }),
    { numRuns: 30 },
  );
});

const kernel = (version: string, modules: string[], inBootMenu = true) => ({
  version,
  image: `/boot/vmlinuz-${version}`,
  inBootMenu,
  isDefault: false,
  builtin: [],
  modules,
  initramfsModules: [],
});

test('a feature is claimed only when every kernel of the boot menu has it', () => {
  const both = [kernel('6.1.0-1', ['virtio_scsi', 'gve']), kernel('5.10.0-1', ['virtio_scsi'])];
  expect(guestOsFeatures({ firmware: 'bios', kernels: both })).toEqual(['VIRTIO_SCSI_MULTIQUEUE']);
  const [first] = both;
  expect(guestOsFeatures({ firmware: 'uefi', kernels: [first as (typeof both)[0]] })).toEqual([
    'UEFI_COMPATIBLE',
    'VIRTIO_SCSI_MULTIQUEUE',
    'GVNIC',
  ]);
  expect(guestOsFeatures({ firmware: 'bios', kernels: [kernel('3.10.0-1', ['virtio_scsi'])] })).toEqual([]);
  expect(guestOsFeatures({ firmware: 'bios', kernels: [] })).toEqual([]);
  expect(guestOsFeatures({ firmware: 'bios', kernels: [kernel('6.1.0', ['gve', 'idpf'], false)] })).toEqual(
    [],
  );
});

test('nothing but https and this machine gets a token', () => {
  const parse = (compute: string) =>
    GcpOptions.safeParse({ project: 'shop-1', bucket: 'images', endpoints: { compute } }).success;
  expect(parse('http://127.0.0.1:8000')).toBe(true);
  expect(parse('https://compute.example.org/v1/')).toBe(true);
  for (const bad of [
    'http://example.org',
    'http://127.0.0.1.example.org',
    'https://u:p@x.org',
    'ftp://x',
    'x',
  ])
    expect(parse(bad)).toBe(false);
});
