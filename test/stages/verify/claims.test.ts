import { describe, expect, test } from 'vitest';
import type { Check, ModuleListing } from '../../../core/types.ts';
import { platforms, platformsNamed } from '../../../drivers/registry.ts';
import { claimsOf, hardwareOf } from '../../../stages/verify/claims.ts';
import { verifyFailed } from '../../../stages/verify/verify-image.ts';

const CHECKS: Check[] = [
  { name: 'cloud-init', ok: true, detail: 'done, DataSourceEc2Local' },
  { name: 'disk', ok: true, detail: 'disk nvme0n1 nvme nvme' },
  { name: 'network card', ok: true, detail: 'net eth0 e1000' },
];

function listing(module: string, change: Partial<ModuleListing> = {}): ModuleListing {
  return { kernel: '6.1', isDefault: true, module, where: 'initramfs', lackingDependencies: [], ...change };
}

function claims(listings: ModuleListing[], checks = CHECKS) {
  const [aws] = platformsNamed(['aws']);
  if (aws === undefined) throw new Error('no aws');
  return Object.fromEntries(claimsOf(aws, 'bios', checks, listings).map((c) => [c.name, c]));
}

describe('claims', () => {
  test('what the machine ran on is booted, by the driver it named', () => {
    expect(claims([])['NVMe disk, BIOS']).toMatchObject({
      proof: 'booted',
      detail: 'disk nvme0n1 nvme nvme',
    });
    const wrong = CHECKS.map((c) => (c.name === 'disk' ? { ...c, ok: false } : c));
    expect(claims([], wrong)['NVMe disk, BIOS']?.proof).toBe('missing');
  });

  test('what no emulator has is listed, or said to be unproven', () => {
    const ena = 'Elastic Network Adapter';
    expect(claims([])[ena]?.proof).toBe('unproven');
    expect(claims([listing('ena', { where: 'image' })])[ena]?.proof).toBe('listed');
    expect(claims([listing('ena', { where: 'missing' })])[ena]?.proof).toBe('missing');
    expect(claims([listing('ena', { lackingDependencies: ['ptp'] })])[ena]?.proof).toBe('missing');
  });

  test('a driver of the root disk counts only where the kernel has it early', () => {
    const disk = 'Xen disk of older instance types';
    expect(claims([listing('xen_blkfront')])[disk]?.proof).toBe('listed');
    expect(claims([listing('xen_blkfront', { where: 'builtin' })])[disk]?.proof).toBe('listed');
    expect(claims([listing('xen_blkfront', { where: 'image' })])[disk]?.proof).toBe('missing');
  });

  test('another kernel of the menu is told, the default one decides', () => {
    const found = claims([
      listing('ena', { where: 'image' }),
      listing('ena', { kernel: '3.2', isDefault: false, where: 'missing' }),
    ])['Elastic Network Adapter'];
    expect(found).toMatchObject({ proof: 'listed', detail: 'ena: 6.1: image; 3.2: missing' });
  });

  test('an image that only lacks a driver fails by the name of its device', () => {
    const [claim] = Object.values(claims([listing('ena', { where: 'missing' })], [])).filter(
      (c) => c.proof === 'missing',
    );
    if (claim === undefined) throw new Error('nothing is missing');
    const base = { platform: 'aws', verified: false, seconds: 1, serialLog: '/l' };
    const error = verifyFailed([{ ...base, checks: CHECKS, claims: [claim] }]);
    expect(error.message).toContain('aws: Elastic Network Adapter: ena: 6.1: missing');
  });

  test('every platform names what stays unproven, and drivers to look for', () => {
    for (const platform of platforms) {
      const all = claimsOf(platform, 'uefi', [], []);
      expect(all.at(-1)).toMatchObject({ name: `${platform.title} itself`, proof: 'unproven' });
      for (const firmware of ['bios', 'uefi'] as const) {
        const { disk, nic } = hardwareOf(platform.boot, firmware);
        expect([disk.length > 0, nic.length > 0]).toEqual([true, true]);
      }
    }
  });
});
