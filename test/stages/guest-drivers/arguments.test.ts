import { describe, expect, test } from 'vitest';
import type { Kernel } from '../../../core/facts.ts';
import { platformsNamed } from '../../../drivers/registry.ts';
import { platformArguments } from '../../../stages/guest-drivers/arguments.ts';

function kernel(version: string, change: Partial<Kernel> = {}): Kernel {
  return {
    version,
    image: `/boot/vmlinuz-${version}`,
    initramfs: `/boot/initrd.img-${version}`,
    inBootMenu: true,
    isDefault: true,
    builtin: [],
    modules: [],
    initramfsModules: [],
    ...change,
  };
}
const NEW = [kernel('6.1.0-9-amd64')];

describe('kernel arguments for a guest', () => {
  test('OpenStack alone gets what it always got', () => {
    expect(platformArguments(platformsNamed(['openstack']), { kernels: NEW, keepsNetwork: false })).toEqual({
      words: ['no_timer_check', 'console=tty0', 'console=ttyS0,115200'],
      notes: [],
    });
  });

  test('all platforms: each key once, ttyS0 last, what they disagree about is said', () => {
    const { words, notes } = platformArguments(platformsNamed(['all']), {
      kernels: NEW,
      keepsNetwork: false,
    });
    const keys = words.map((w) => w.replace(/(console=[^,]+).*|=.*/, '$1'));
    expect(new Set(keys).size).toBe(keys.length);
    expect(words.slice(-3)).toEqual(['console=tty0', 'console=hvc0', 'console=ttyS0,115200']);
    expect(words).toContain('nvme_core.io_timeout=4294967295');
    expect(notes).toEqual([expect.stringContaining('not nvme_core.io_timeout=240')]);
  });

  test('cards are not renamed when the network configuration stays', () => {
    const { words, notes } = platformArguments(platformsNamed(['aws']), {
      kernels: NEW,
      keepsNetwork: true,
    });
    expect(words).not.toContain('net.ifnames=0');
    expect(notes).toEqual([expect.stringContaining('net.ifnames=0')]);
    expect(
      platformArguments(platformsNamed(['openstack']), { kernels: NEW, keepsNetwork: true }).notes,
    ).toEqual([]);
  });

  test('a kernel before 4.6 has the time limit elsewhere, and smaller', () => {
    const words = (version: string) =>
      platformArguments(platformsNamed(['aws']), { kernels: [kernel(version)], keepsNetwork: false }).words;
    expect(words('4.5.7')).toEqual(
      expect.arrayContaining(['nvme.io_timeout=255', 'nvme_core.io_timeout=4294967295']),
    );
    expect(words('3.16.0-6-amd64')).toContain('nvme.io_timeout=255');
    for (const version of ['4.6.0', '4.19.0-27-amd64', '5.10.0', 'odd'])
      expect(words(version).filter((w) => w.startsWith('nvme.'))).toEqual([]);
  });

  test('no start sleeps five minutes: initramfs-tools takes rootdelay for a pause, not for a limit', () => {
    const { words } = platformArguments(platformsNamed(['all']), { kernels: NEW, keepsNetwork: false });
    expect(words.some((w) => w.startsWith('rootdelay'))).toBe(false);
  });
});
