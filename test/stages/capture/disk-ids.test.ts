import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Inventory } from '../../../core/inventory.ts';
import { diskIds } from '../../../stages/capture/disk-ids.ts';

const machine = (...disks: { name: string; links: string[] }[]) => ({ disks }) as unknown as Inventory;
const server = machine({ name: 'sda', links: ['/dev/disk/by-id/ata-1'] }, { name: 'cciss!c0d0', links: [] });

test.each([
  [['/dev/sda'], ['sda']],
  [['/dev/disk/by-id/ata-1'], ['sda']],
  [['/dev/cciss/c0d0'], ['cciss-c0d0']],
  [
    ['/dev/vg0/root', '/dev/vg1/root'],
    ['root', 'root-2'],
  ],
  [['/dev/mapper/vg0-root'], ['vg0-root']],
])('%j is called %j', (devices, ids) => {
  expect(diskIds(server, devices)).toEqual(ids);
});

test('one disk under two names is refused', () => {
  expect(() => diskIds(server, ['/dev/sda', '/dev/disk/by-id/ata-1'])).toThrow(/the same disk/);
});

test('whatever a machine calls its disks: names of files of ours, each once', () => {
  const hostile = fc.uniqueArray(
    fc.oneof(
      fc.string(),
      fc.constantFrom('../../etc/cron.d/x', '..', '-rf', 'a/b', 'a!b', 'a-b', '\u001b[31m', 'x\n'),
    ),
    { minLength: 1, maxLength: 8 },
  );
  fc.assert(
    fc.property(hostile, (names) => {
      const ids = diskIds(
        machine(...names.map((name) => ({ name, links: [] }))),
        // each is asked for by the path it claims
        [...new Set(names.map((name) => `/dev/${name.replaceAll('!', '/')}`))],
      );
      for (const id of ids) expect(id).toMatch(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/);
      expect(new Set(ids).size).toBe(ids.length);
    }),
    { numRuns: 2000 },
  );
});
