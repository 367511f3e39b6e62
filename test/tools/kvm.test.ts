import { expect, test } from 'vitest';
import { libguestfsEnvironment, probeAccelerator, probeKvm, probeRom } from '../../tools/kvm.ts';
import { requires } from '../support/requires.ts';

const missing = requires('qemu-system-x86_64', 'setpriv');

test('the ROM ends with a jump to its start', () => {
  const rom = probeRom();
  expect(rom.length).toBe(65536);
  expect(rom[0xfff0]).toBe(0xe9);
  expect((0xfff3 + rom.readUInt16LE(0xfff1)) & 0xffff).toBe(0);
});

test.skipIf(missing)(
  'the test guest runs to its end where virtualisation works: under emulation always',
  async () => {
    expect(await probeAccelerator('tcg')).toMatchObject({ usable: true });
  },
);

test.skipIf(missing)('the probe answers, with a reason, once', async () => {
  const first = probeKvm();
  expect(probeKvm()).toBe(first);
  expect((await first).reason).not.toBe('');
});

test('libguestfs is told not to use a KVM that does not work', () => {
  expect(libguestfsEnvironment({ usable: false, reason: 'x' })).toEqual({
    LIBGUESTFS_BACKEND: 'direct',
    LIBGUESTFS_BACKEND_SETTINGS: 'force_tcg',
  });
  expect(libguestfsEnvironment({ usable: true, reason: 'x' }).LIBGUESTFS_BACKEND_SETTINGS).toBe('');
});
