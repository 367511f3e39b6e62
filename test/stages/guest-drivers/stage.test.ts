import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, describe, expect, test } from 'vitest';
import type { Facts, Kernel } from '../../../core/facts.ts';
import { platformsNamed } from '../../../drivers/registry.ts';
import { stage } from '../../../stages/guest-drivers/index.ts';
import { planKernels, uniteNeeds } from '../../../stages/guest-drivers/needs.ts';
import { makeContext, makeTree, sampleFacts, type TreeSession } from '../../support/tree-guest.ts';

const platforms = platformsNamed(['openstack', 'qemu']);
const STORAGE = uniteNeeds(platforms).storageModules;
let guest: TreeSession;
afterEach(async () => {
  await fs.rm(guest.root, { recursive: true, force: true });
});

function kernel(change: Partial<Kernel> = {}): Kernel {
  return {
    version: '6.1.0-9-amd64',
    image: '/boot/vmlinuz-6.1.0-9-amd64',
    initramfs: '/boot/initrd.img-6.1.0-9-amd64',
    inBootMenu: true,
    isDefault: true,
    builtin: [],
    modules: [...STORAGE, 'virtio_net'],
    initramfsModules: ['ahci', 'sd_mod'],
    ...change,
  };
}

function cpio(names: readonly string[]): Buffer {
  const hex = (n: number) => n.toString(16).padStart(8, '0');
  const pad = (b: Buffer) => Buffer.concat([b, Buffer.alloc((4 - (b.length % 4)) % 4)]);
  const member = (name: string) =>
    pad(
      Buffer.from(
        `070701${[1, 0o100644, 0, 0, 1, 0, 0, 0, 0, 0, 0, name.length + 1, 0].map(hex).join('')}${name}\0`,
      ),
    );
  return gzipSync(Buffer.concat([...names, 'TRAILER!!!'].map(member)));
}

const BIOS_TREE = {
  'etc/fstab':
    '/dev/mapper/shop--vg-root / ext4 errors=remount-ro 0 1\n/dev/sda1 /boot ext4 defaults 0 2\n/dev/sda3 none swap sw 0 0\n/dev/sdb1 /mnt/archive ext4 noatime 0 2\n',
  'etc/default/grub':
    'GRUB_DEFAULT=0\nGRUB_TIMEOUT=-1\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX="resume=/dev/sda3"\n#GRUB_TERMINAL=console\n',
  'boot/grub/grub.cfg':
    "terminal_output gfxterm\nset timeout=-1\nmenuentry 'Debian' {\n\tset root='hd0,msdos1'\n\tlinux\t/vmlinuz-6.1.0-9-amd64 root=/dev/mapper/shop--vg-root ro resume=/dev/sda3 quiet\n\tinitrd\t/initrd.img-6.1.0-9-amd64\n}\n",
  'boot/grub/i386-pc/serial.mod': 'x',
  'boot/grub/device.map': '(hd0)\t/dev/disk/by-id/ata-OLD\n',
  'boot/initrd.img-6.1.0-9-amd64': 'old',
  'etc/initramfs-tools/initramfs.conf': 'MODULES=most\nBUSYBOX=auto\n',
  'etc/initramfs-tools/conf.d/driver-policy': '# Driver inclusion policy\nMODULES=dep\n',
  'etc/initramfs-tools/conf.d/resume': 'RESUME=/dev/sda3\n',
  'etc/initramfs-tools/modules': '# List of modules\nvirtio_blk\n',
  'etc/lvm/devices/system.devices': 'IDTYPE=sys_wwid\n',
  'var/cache/debconf/config.dat':
    'Name: grub-pc/install_devices\nTemplate: grub-pc/install_devices\nValue: /dev/sda\nOwners: grub-pc\n\nName: x/password\nTemplate: x/password\nValue: hunter2\n',
};

const facts = (change: Partial<Facts> = {}) =>
  sampleFacts({
    kernels: [kernel()],
    packages: ['grub-pc', 'open-vm-tools'].map((name) => ({ name, version: '1', architecture: 'amd64' })),
    agents: [
      { platform: 'vmware', package: 'open-vm-tools' },
      { platform: 'any', package: 'cloud-init' },
      { platform: 'virtualbox', path: '/opt/VBoxGuestAdditions-6' },
    ],
    ...change,
  });

async function makeJob(tree: Record<string, string>, found: Facts) {
  guest = await makeTree(tree);
  return makeContext({ stage: 'guest-drivers', guest, facts: found, platforms, out: guest.root });
}

describe('guest-drivers on a BIOS server', () => {
  test('plan changes nothing, run does it, a second run has nothing to do', async () => {
    const ctx = await makeJob(BIOS_TREE, facts());
    const plan = await stage.plan(ctx);
    expect(await guest.readText('/etc/fstab')).toBe(BIOS_TREE['etc/fstab']);
    expect(plan.remove).toEqual(['open-vm-tools']);
    expect(plan.kernels[0]?.lacking).toEqual(['virtio_pci', 'virtio_blk', 'virtio_scsi']);
    guest.answer = async ({ what, args }) => {
      if (what.includes('update-initramfs -c')) {
        const modules = STORAGE.map((m) => `usr/lib/modules/${args[0]}/${m}.ko`);
        await fs.writeFile(path.join(guest.root, `boot/initrd.img-${args[0]}`), cpio(modules));
      }
      return '';
    };
    const result = await stage.run(ctx, plan);
    expect(result.rebuilt).toMatchObject([
      { version: '6.1.0-9-amd64', compression: 'gzip', modules: STORAGE.length },
    ]);
    expect(await guest.readText('/etc/fstab')).toBe(
      '/dev/mapper/shop--vg-root / ext4 errors=remount-ro 0 1\nUUID=8f0f9c5a-6a53-4d27-a3bb-2b0f6a1f5c01 /boot ext4 defaults 0 2\nUUID=c6a4a6f1-1e2b-4a57-9d8f-7e5d4c3b2a04 none swap sw 0 0\n/dev/sdb1 /mnt/archive ext4 noatime,nofail,x-systemd.device-timeout=10s 0 2\n',
    );
    expect(await guest.readText('/etc/default/grub')).toBe(
      'GRUB_DEFAULT=0\nGRUB_TIMEOUT=5\nGRUB_CMDLINE_LINUX_DEFAULT=""\nGRUB_CMDLINE_LINUX="resume=UUID=c6a4a6f1-1e2b-4a57-9d8f-7e5d4c3b2a04 no_timer_check console=tty0 console=ttyS0,115200"\n#GRUB_TERMINAL=console\nGRUB_TERMINAL="console serial"\nGRUB_SERIAL_COMMAND="serial --speed=115200 --unit=0 --word=8 --parity=no --stop=1"\n',
    );
    expect(await guest.readText('/boot/grub/grub.cfg')).toBe(
      "serial --speed=115200 --unit=0 --word=8 --parity=no --stop=1\nterminal_input console serial\nterminal_output console serial\nset timeout=5\nmenuentry 'Debian' {\n\tset root='hd0,msdos1'\n\tlinux\t/vmlinuz-6.1.0-9-amd64 root=/dev/mapper/shop--vg-root ro resume=UUID=c6a4a6f1-1e2b-4a57-9d8f-7e5d4c3b2a04 no_timer_check console=tty0 console=ttyS0,115200\n\tinitrd\t/initrd.img-6.1.0-9-amd64\n}\n",
    );
    expect(await guest.readText('/etc/initramfs-tools/conf.d/driver-policy')).toBe(
      '# Driver inclusion policy\nMODULES=most\n',
    );
    expect(await guest.readText('/etc/initramfs-tools/conf.d/resume')).toBe(
      'RESUME=UUID=c6a4a6f1-1e2b-4a57-9d8f-7e5d4c3b2a04\n',
    );
    expect(await guest.readText('/etc/initramfs-tools/modules')).toMatch(
      /^# List of modules\nvirtio_blk\n# Begin of .*\nvirtio_pci\nvirtio_scsi\nsd_mod\nvirtio_net\n# End of .*\n$/,
    );
    expect(await guest.kind('/etc/lvm/devices/system.devices')).toBe('missing');
    expect(await guest.kind('/boot/grub/device.map')).toBe('missing');
    expect(await guest.readText('/var/cache/debconf/config.dat')).toContain('Value: \nOwners: grub-pc');
    expect(JSON.stringify(ctx.changes)).not.toContain('hunter2');
    expect(ctx.warnings.join('\n')).toMatch(/sdb1/);
    expect(ctx.warnings.join('\n')).toMatch(/VBoxGuestAdditions/);
    const again = makeContext({ stage: 'guest-drivers', guest, facts: facts(), platforms, out: guest.root });
    expect((await stage.plan(again)).edits).toEqual([]);
  });

  test('a rebuilt initramfs that lacks a module fails by name', async () => {
    const ctx = await makeJob(BIOS_TREE, facts());
    guest.answer = async ({ what }) => {
      if (what.includes('update-initramfs -c')) {
        await fs.writeFile(
          path.join(guest.root, 'boot/initrd.img-6.1.0-9-amd64'),
          cpio(STORAGE.filter((m) => m !== 'virtio_scsi').map((m) => `lib/modules/v/${m}.ko`)),
        );
      }
      return '';
    };
    await expect(stage.run(ctx, await stage.plan(ctx))).rejects.toMatchObject({
      code: 'GUEST_BROKEN',
      message: 'the new initramfs of kernel 6.1.0-9-amd64 still has no virtio_scsi',
    });
  });

  test('an extra the guest does not put in is a warning, and the listing says where it is', async () => {
    const extra = platformsNamed(['alibaba']);
    guest = await makeTree({
      ...BIOS_TREE,
      'lib/modules/6.1.0-9-amd64/modules.dep':
        'kernel/nvme.ko: kernel/nvme-core.ko\nkernel/virtio_blk.ko: kernel/virtio.ko\n',
    });
    const found = facts({ kernels: [kernel({ modules: [...STORAGE, 'nvme', 'virtio_net'] })] });
    const ctx = makeContext({
      stage: 'guest-drivers',
      guest,
      facts: found,
      platforms: extra,
      out: guest.root,
    });
    guest.answer = async ({ what }) => {
      if (what.includes('update-initramfs -c')) {
        const modules = STORAGE.map((m) => `lib/modules/v/${m}.ko`);
        await fs.writeFile(path.join(guest.root, 'boot/initrd.img-6.1.0-9-amd64'), cpio(modules));
      }
      return '';
    };
    const plan = await stage.plan(ctx);
    expect(plan.kernels[0]).toMatchObject({
      required: ['virtio_pci', 'virtio_blk'],
      extras: ['nvme', 'virtio_scsi', 'sd_mod'],
      lacking: ['virtio_pci', 'virtio_blk', 'nvme', 'virtio_scsi'],
    });
    const { listings } = await stage.run(ctx, plan);
    expect(ctx.warnings.join('\n')).toContain('6.1.0-9-amd64 has no nvme:');
    const listed = (module: string) => listings.find((l) => l.module === module);
    expect(listed('nvme')).toMatchObject({ where: 'image', lackingDependencies: ['nvme_core'] });
    expect(listed('virtio_blk')).toMatchObject({ where: 'initramfs', lackingDependencies: ['virtio'] });
    expect(listed('virtio_scsi')).toMatchObject({ where: 'initramfs', lackingDependencies: [] });
  });

  test('a kernel without a module names the platforms that need it', () => {
    const asked = platformsNamed(['aws', 'openstack']);
    const found = facts({ kernels: [kernel({ modules: [...STORAGE, 'virtio_net', 'ena'] })] });
    expect(() => planKernels(found, uniteNeeds(asked), () => undefined)).toThrow(
      expect.objectContaining({
        code: 'GUEST_BROKEN',
        message: expect.stringMatching(/no nvme \(Amazon EC2\), .*xen_blkfront \(Amazon EC2\)/),
      }),
    );
  });

  test('what a cloud image sets in grub.d gives way: the next update-grub keeps our console last', async () => {
    const path50 = '/etc/default/grub.d/50-cloudimg-settings.cfg';
    const ctx = await makeJob(
      {
        ...BIOS_TREE,
        [path50.slice(1)]:
          'GRUB_RECORDFAIL_TIMEOUT=0\nGRUB_CMDLINE_LINUX_DEFAULT="console=ttyS0 console=tty1 panic=-1"\n',
      },
      facts(),
    );
    const { edits } = await stage.plan(ctx);
    expect(edits.find((e) => e.path === path50)?.after).toBe(
      'GRUB_RECORDFAIL_TIMEOUT=0\nGRUB_CMDLINE_LINUX_DEFAULT="panic=-1"\n',
    );
  });

  test('a full /boot is refused in the plan', async () => {
    const filesystems = sampleFacts().filesystems.map((f) => ({ ...f, freeBytes: 2 ** 20 }));
    const ctx = await makeJob(BIOS_TREE, facts({ filesystems }));
    await expect(stage.plan(ctx)).rejects.toMatchObject({ code: 'GUEST_FULL' });
  });

  test('ubuntu-server keeps open-vm-tools, an expansion in GRUB_CMDLINE_LINUX is extended', async () => {
    const found = facts();
    found.packages.push({ name: 'ubuntu-server', version: '1', architecture: 'amd64' });
    const tree = {
      ...BIOS_TREE,
      'etc/default/grub.d/50-x.cfg': 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX a=b"\n',
    };
    const ctx = await makeJob(tree, found);
    const plan = await stage.plan(ctx);
    expect(plan.remove).toEqual([]);
    expect(plan.edits.find((e) => e.path.endsWith('50-x.cfg'))?.after).toBe(
      'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX a=b"\nGRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX no_timer_check console=tty0 console=ttyS0,115200"\n',
    );
  });
});

describe('kernels', () => {
  const needs = uniteNeeds(platforms);
  const plan = (kernels: Kernel[], warn = (_: string) => {}) =>
    planKernels(sampleFacts({ kernels }), needs, warn);
  test('built-in drivers count', async () => {
    guest = await makeTree({});
    expect(plan([kernel({ builtin: STORAGE, initramfsModules: [] })])[0]).toMatchObject({
      required: [],
      lacking: [],
    });
    expect(plan([kernel({ initramfsModules: STORAGE })])[0]?.lacking).toEqual([]);
  });
  test('the default kernel must have every driver, another one is a warning', async () => {
    guest = await makeTree({});
    const poor = kernel({ version: '5.10', isDefault: false, modules: ['virtio_net'] });
    expect(() => plan([{ ...poor, isDefault: true }])).toThrow(
      /kernel 5\.10 has no virtio_pci \(OpenStack \(KVM\), QEMU and libvirt\), virtio_blk/,
    );
    const warnings: string[] = [];
    plan([kernel(), poor], (text) => warnings.push(text));
    expect(warnings).toHaveLength(1);
    expect(() => plan([])).toThrow(/no kernel/);
    expect(() => plan([kernel({ initramfs: undefined })])).toThrow(/without an initramfs/);
  });
});

describe('UEFI', () => {
  const uefi = (change: Partial<Facts> = {}) =>
    sampleFacts({
      firmware: 'uefi',
      kernels: [kernel({ initramfsModules: STORAGE })],
      packages: [{ name: 'grub-efi-amd64', version: '1', architecture: 'amd64' }],
      ...change,
    });
  const ESP = {
    'boot/efi/EFI/debian/shimx64.efi': 'shim',
    'boot/efi/EFI/debian/grubx64.efi': 'grub',
    'boot/efi/EFI/debian/mmx64.efi': 'mok',
    'boot/efi/EFI/debian/fbx64.efi': 'fallback',
    'boot/efi/EFI/debian/grub.cfg': 'configfile x',
    'boot/grub/grub.cfg': 'terminal_output gfxterm\n',
    'var/cache/debconf/config.dat': '',
  };
  test('the vendor loader becomes the fallback, without fbx64', async () => {
    const ctx = await makeJob(ESP, uefi());
    const plan = await stage.plan(ctx);
    await stage.run(ctx, plan);
    expect(await guest.list('/boot/efi/EFI/BOOT')).toEqual([
      'BOOTX64.EFI',
      'grub.cfg',
      'grubx64.efi',
      'mmx64.efi',
    ]);
    expect(await guest.readText('/boot/efi/EFI/BOOT/BOOTX64.EFI')).toBe('shim');
    expect(await guest.readText('/boot/grub/grub.cfg')).toBe(
      'terminal_input console\nterminal_output console\n',
    );
    expect(await guest.readText('/var/cache/debconf/config.dat')).toContain(
      'force_efi_extra_removable\nValue: true',
    );
    expect((await stage.plan(ctx)).loaders).toEqual([]);
  });
  test('without a shim GRUB itself is copied; without both it is refused', async () => {
    let ctx = await makeJob({ 'boot/efi/EFI/debian/grubx64.efi': 'grub' }, uefi());
    await stage.run(ctx, await stage.plan(ctx));
    expect(await guest.readText('/boot/efi/EFI/BOOT/BOOTX64.EFI')).toBe('grub');
    await fs.rm(guest.root, { recursive: true });
    ctx = await makeJob({ 'boot/efi/EFI/debian/x': '' }, uefi());
    await expect(stage.plan(ctx)).rejects.toMatchObject({ code: 'GUEST_BROKEN' });
  });
  test("another fallback loader is nobody's business; a shim without GRUB gets it", async () => {
    let ctx = await makeJob({ ...ESP, 'boot/efi/EFI/BOOT/bootx64.efi': 'other' }, uefi());
    expect((await stage.plan(ctx)).loaders).toEqual([]);
    await fs.rm(guest.root, { recursive: true });
    ctx = await makeJob({ ...ESP, 'boot/efi/EFI/BOOT/bootx64.efi': 'shim' }, uefi());
    expect((await stage.plan(ctx)).loaders.map((l) => l.to.replace(/.*\//, ''))).toEqual([
      'grubx64.efi',
      'mmx64.efi',
      'grub.cfg',
    ]);
  });
});
