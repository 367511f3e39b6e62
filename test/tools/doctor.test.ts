import { expect, test } from 'vitest';
import { doctor, versionIn } from '../../tools/doctor.ts';

test('versions are found in what programs print', () => {
  expect(versionIn('qemu-img version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright')).toBe('7.2.22');
  expect(versionIn('*** Zstandard CLI (64-bit) v1.5.4, by Yann Collet ***')).toBe('1.5.4');
  expect(versionIn('tar (GNU tar) 1.34')).toBe('1.34');
  expect(versionIn('no digits')).toBeUndefined();
});

test('the report names what each thing disables and how to install it', async () => {
  const report = await doctor();
  expect(report.node.ok).toBe(true);
  for (const item of report.items) {
    expect(item.disables).not.toBe('');
    expect(item.install).not.toBe('');
  }
  expect(report.items.find((i) => i.name === 'govc')).toMatchObject({
    required: false,
    install: expect.stringContaining('https://github.com/vmware/govmomi'),
  });
  expect(report.items.find((i) => i.name === 'qemu-io')?.install).toBe('apt-get install qemu-utils');
  expect(report.kvm.reason).not.toBe('');
  expect(report.space[0]?.freeBytes).toBeGreaterThan(0);
});
