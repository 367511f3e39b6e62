/** A disk that has got the name of another one is found out. */
import { expect, test } from 'vitest';
import type { Inventory } from '../../../core/inventory.ts';
import { requireSameDisks } from '../../../stages/capture/identity.ts';
import type { CaptureState } from '../../../stages/capture/state.ts';

interface Told {
  serial?: string;
  partitions?: (string | undefined)[];
}

const machine = ({ serial, partitions = [] }: Told) =>
  ({
    disks: [{ name: 'sda', links: [], serial, partitions: partitions.map((uuid) => ({ uuid })) }],
  }) as unknown as Inventory;

const state = (told: Told, device = '/dev/sda') =>
  ({ disks: [{ id: 'sda', device, sizeBytes: 1 }], inventory: machine(told) }) as unknown as CaptureState;

const check = (before: Told, now: Told, device?: string) => () =>
  requireSameDisks('shop01', [{ device: '/dev/sda' }], state(before, device), machine(now));

test.each<[Told, Told]>([
  [{ serial: 'A' }, { serial: 'B' }],
  // copied partition tables have the same names
  [
    { serial: 'A', partitions: ['x'] },
    { serial: 'B', partitions: ['x'] },
  ],
  [{ partitions: ['x', 'y'] }, { partitions: ['z'] }],
])('%j is not %j', (before, now) => {
  expect(check(before, now)).toThrow(/another disk/);
});

test.each<[Told, Told]>([
  [
    { serial: 'A', partitions: ['x'] },
    { serial: 'A', partitions: ['z'] },
  ],
  [{ partitions: ['x', 'y'] }, { partitions: ['y', 'z'] }],
  [{ serial: 'A', partitions: ['x'] }, { partitions: ['x'] }],
  // nothing to tell by
  [{}, { serial: 'B' }],
  [{ partitions: [undefined] }, { partitions: ['z'] }],
])('%j may be %j', (before, now) => {
  expect(check(before, now)).not.toThrow();
});

test('what was not copied before is not compared', () => {
  expect(check({ serial: 'A' }, { serial: 'B' }, '/dev/sdb')).not.toThrow();
});
