/** guest-drivers on constructed trees of the other families: plan, run, and a second plan with nothing to do. */
import * as fs from 'node:fs/promises';
import { afterEach, describe, expect, test } from 'vitest';
import type { Facts, Kernel } from '../../core/facts.ts';
import { platformsNamed } from '../../drivers/registry.ts';
import { familyOf } from '../../families/registry.ts';
import { stage } from '../../stages/guest-drivers/index.ts';
import { makeContext, makeTree, sampleFacts, type TreeSession } from '../support/tree-guest.ts';

const platforms = platformsNamed(['openstack', 'aws']);
const DRIVERS = ['virtio_pci', 'virtio_blk', 'virtio_scsi', 'nvme', 'nvme_core', 'xen_blkfront', 'sd_mod'];
let guest: TreeSession;
afterEach(async () => {
  await fs.rm(guest.root, { recursive: true, force: true });
});

function kernel(version: string, image: string, initramfs: string): Kernel {
  const modules = [...DRIVERS, 'virtio_net', 'ena', 'xen_netfront'];
  return {
    version,
    image,
    initramfs,
    inBootMenu: true,
    isDefault: true,
    builtin: [],
    modules,
    initramfsModules: DRIVERS,
  };
}

function factsOf(distro: string, family: string, kernels: Kernel[], change: Partial<Facts> = {}): Facts {
  const facts = sampleFacts({ kernels, ...change });
  const config = family === 'rhel' || family === 'suse' ? '/boot/grub2/grub.cfg' : '/boot/grub/grub.cfg';
  return {
    ...facts,
    os: { ...facts.os, distro, family, productName: distro },
    bootloader: { ...facts.bootloader, config },
  };
}

async function convert(tree: Record<string, string>, facts: Facts) {
  guest = await makeTree(tree);
  const context = () => makeContext({ stage: 'guest-drivers', guest, facts, platforms, out: guest.root });
  const ctx = context();
  const plan = await stage.plan(ctx);
  for (const [name, text] of Object.entries(tree)) expect(await guest.readText(`/${name}`)).toBe(text);
  await stage.run(ctx, plan);
  expect((await stage.plan(context())).edits).toEqual([]);
  return ctx;
}

const GRUBENV = (kernelopts: string) =>
  `# GRUB Environment Block\nsaved_entry=id-4.18.0\n${kernelopts}`.padEnd(1024, '#');
const BLS = (options: string) =>
  `title Rocky\nversion 4.18.0\nlinux /vmlinuz-4.18.0\ninitrd /initramfs-4.18.0.img $tuned_initrd\noptions ${options}\ngrub_users $grub_users\n`;
const DEFAULTS =
  'GRUB_TIMEOUT=5\nGRUB_DEFAULT=saved\nGRUB_TERMINAL_OUTPUT="console"\nGRUB_CMDLINE_LINUX="crashkernel=auto resume=/dev/sda3 rhgb quiet"\nGRUB_ENABLE_BLSCFG=true\n';

describe('RHEL family', () => {
  test('9: options in the entries, /etc/kernel/cmdline, dracut.conf', async () => {
    await convert(
      {
        'etc/default/grub': DEFAULTS,
        'etc/kernel/cmdline': 'root=/dev/mapper/rl-root ro resume=/dev/sda3 rhgb quiet\n',
        'boot/grub2/grub.cfg': 'set timeout=5\nterminal_output console\ninsmod blscfg\nblscfg\n',
        'boot/grub2/grubenv': GRUBENV(''),
        'boot/loader/entries/id-4.18.0.conf': BLS(
          'root=/dev/mapper/rl-root ro resume=/dev/sda3 quiet $tuned_params',
        ),
        'etc/dracut.conf.d/omit.conf': 'omit_drivers+=" xen_blkfront "\n',
        'boot/initramfs-4.18.0.img': 'x',
      },
      factsOf('rocky', 'rhel', [kernel('4.18.0', '/boot/vmlinuz-4.18.0', '/boot/initramfs-4.18.0.img')]),
    );
    const entry = (await guest.readText('/boot/loader/entries/id-4.18.0.conf')) ?? '';
    expect(entry).toMatch(
      /^options root=\/dev\/mapper\/rl-root ro resume=UUID=c6a4a6f1-1e2b-4a57-9d8f-7e5d4c3b2a04 \$tuned_params .*console=ttyS0,115200$/m,
    );
    expect(entry).not.toContain('quiet');
    expect(entry).toContain('initrd /initramfs-4.18.0.img $tuned_initrd\n');
    expect(await guest.readText('/etc/kernel/cmdline')).toMatch(
      /^root=\/dev\/mapper\/rl-root ro resume=UUID=\S+ .*console=ttyS0,115200\n$/,
    );
    expect(await guest.readText('/etc/default/grub')).toContain('crashkernel=auto resume=UUID=c6a4');
    expect(await guest.readText('/boot/grub2/grubenv')).toBe(GRUBENV(''));
    expect(await guest.readText('/etc/dracut.conf.d/zz-port-image.conf')).toMatch(
      /^hostonly="no"\nhostonly_cmdline="no"\nadd_drivers\+=" .*xen_blkfront.* "$/m,
    );
    expect(await guest.readText('/etc/dracut.conf.d/omit.conf')).toBe('omit_drivers+=""\n');
  });

  test('8: kernelopts in grubenv, which keeps its size', async () => {
    await convert(
      {
        'boot/grub2/grub.cfg': 'blscfg\n',
        'boot/grub2/grubenv': GRUBENV('kernelopts=root=/dev/mapper/rl-root ro resume=/dev/sda3 quiet \n'),
        'boot/loader/entries/id-4.18.0.conf': BLS('$kernelopts $tuned_params'),
        'boot/initramfs-4.18.0.img': 'x',
      },
      factsOf('rhel', 'rhel', [kernel('4.18.0', '/boot/vmlinuz-4.18.0', '/boot/initramfs-4.18.0.img')]),
    );
    const env = (await guest.readText('/boot/grub2/grubenv')) ?? '';
    expect(Buffer.byteLength(env)).toBe(1024);
    expect(env).toMatch(
      /^kernelopts=root=\/dev\/mapper\/rl-root ro resume=UUID=\S+ .*console=ttyS0,115200$/m,
    );
    expect(env).toContain('saved_entry=id-4.18.0\n');
    expect(await guest.readText('/boot/loader/entries/id-4.18.0.conf')).toBe(
      BLS('$kernelopts $tuned_params'),
    );
  });

  test('8: arguments that do not fit into grubenv go into the entries; unset ones are refused', async () => {
    const long = `root=/dev/mapper/rl-root ${'x'.repeat(900)}`;
    const tree = {
      'boot/grub2/grub.cfg': 'blscfg\n',
      'boot/grub2/grubenv': GRUBENV(`kernelopts=${long}\n`),
      'boot/loader/entries/id-4.18.0.conf': BLS('$kernelopts'),
      'boot/initramfs-4.18.0.img': 'x',
    };
    const facts = factsOf('rhel', 'rhel', [
      kernel('4.18.0', '/boot/vmlinuz-4.18.0', '/boot/initramfs-4.18.0.img'),
    ]);
    await convert(tree, facts);
    expect(await guest.readText('/boot/loader/entries/id-4.18.0.conf')).toMatch(
      /^options root=\/dev\/mapper\/rl-root x{900} .*console=ttyS0/m,
    );
    expect(await guest.readText('/boot/grub2/grubenv')).toBe(tree['boot/grub2/grubenv']);
    await fs.rm(guest.root, { recursive: true });
    guest = await makeTree({ ...tree, 'boot/grub2/grubenv': GRUBENV('') });
    const ctx = makeContext({ stage: 'guest-drivers', guest, facts, platforms, out: guest.root });
    await expect(stage.plan(ctx)).rejects.toMatchObject({ code: 'GUEST_BROKEN' });
  });
});

test('SUSE: a generated menu in /boot/grub2, dracut with the volume group of the root', async () => {
  await convert(
    {
      'etc/default/grub': 'GRUB_CMDLINE_LINUX_DEFAULT="splash=silent quiet"\nGRUB_CMDLINE_LINUX=""\n',
      'boot/grub2/grub.cfg':
        "menuentry 'SLES' {\n  linux /vmlinuz-6.4.0-150600-default root=/dev/mapper/shop--vg-root splash=silent quiet\n  initrd /initrd-6.4.0-150600-default\n}\n",
      'boot/initrd-6.4.0-150600-default': 'x',
    },
    factsOf(
      'sles',
      'suse',
      [
        kernel(
          '6.4.0-150600-default',
          '/boot/vmlinuz-6.4.0-150600-default',
          '/boot/initrd-6.4.0-150600-default',
        ),
      ],
      {
        volumeGroups: [
          {
            name: 'shop-vg',
            uuid: 'u',
            physicalVolumes: ['/dev/sda2'],
            logicalVolumes: [{ name: 'root', device: '/dev/shop-vg/root', sizeBytes: 1 }],
          },
        ],
      },
    ),
  );
  expect(await guest.readText('/etc/dracut.conf.d/zz-port-image.conf')).toContain(
    'kernel_cmdline+=" rd.lvm.vg=shop-vg "\n',
  );
  expect(await guest.readText('/boot/grub2/grub.cfg')).toMatch(/splash=silent .*console=ttyS0,115200\n/);
});

test("UEFI: loaders of the vendors' folders become the fallback, named as each shim wants them", async () => {
  const initrd = { 'boot/initrd': 'x' };
  const plans: [string, string, Record<string, string>, string[]][] = [
    [
      'rocky',
      'rhel',
      {
        'shimx64.efi': 's',
        'shim.efi': 's',
        'grubx64.efi': 'g',
        'mmx64.efi': 'm',
        'grub.cfg': 'c',
        'fbx64.efi': 'f',
      },
      ['BOOTX64.EFI', 'grub.cfg', 'grubx64.efi', 'mmx64.efi'],
    ],
    [
      'opensuse',
      'suse',
      { 'shim.efi': 's', 'grub.efi': 'g', 'grubx64.efi': 'other', 'MokManager.efi': 'm', 'grub.cfg': 'c' },
      ['BOOTX64.EFI', 'MokManager.efi', 'grub.cfg', 'grub.efi'],
    ],
  ];
  for (const [vendor, family, files, wanted] of plans) {
    const esp = Object.entries(files).map(([name, text]) => [`boot/efi/EFI/${vendor}/${name}`, text]);
    const facts = factsOf(vendor, family, [kernel('1', '/boot/vmlinuz-1', '/boot/initrd')]);
    await convert({ ...initrd, ...Object.fromEntries(esp) }, { ...facts, firmware: 'uefi' });
    expect(await guest.list('/boot/efi/EFI/BOOT')).toEqual(wanted);
    expect(await guest.readText('/boot/efi/EFI/BOOT/BOOTX64.EFI')).toBe('s');
    await fs.rm(guest.root, { recursive: true });
  }
  guest = await makeTree({});
});

test('Alpine: features of mkinitfs', async () => {
  const dep = 'kernel/drivers/block/xen-blkfront.ko.gz:\nkernel/drivers/nvme/host/nvme.ko.gz:\n';
  await convert(
    {
      'etc/mkinitfs/mkinitfs.conf':
        'features="ata base cdrom ext4 keymap kms mmc nvme raid scsi usb virtio"\n',
      'etc/mkinitfs/features.d/virtio.modules': 'kernel/drivers/virtio\n',
      'etc/mkinitfs/features.d/base.files': '/bin/busybox\n',
      'lib/modules/6.6.1-0-virt/modules.dep': dep,
      'boot/grub/grub.cfg': '\n',
      'boot/initramfs-virt': 'x',
    },
    factsOf('alpine', 'alpine', [kernel('6.6.1-0-virt', '/boot/vmlinuz-virt', '/boot/initramfs-virt')]),
  );
  expect(await guest.readText('/etc/mkinitfs/mkinitfs.conf')).toMatch(/ virtio port-image"\n$/);
  expect(await guest.readText('/etc/mkinitfs/features.d/port-image.modules')).toBe(
    'kernel/drivers/block/xen-blkfront.ko*\nkernel/drivers/nvme/host/nvme.ko*\n',
  );
});

test('Arch: MODULES and HOOKS, drop-ins too', async () => {
  await convert(
    {
      'etc/mkinitcpio.conf': 'MODULES=(btrfs)\nHOOKS=(base udev autodetect block filesystems)\n',
      'etc/mkinitcpio.conf.d/hooks.conf': 'HOOKS=(base systemd autodetect block)\n',
      'etc/mkinitcpio.conf.d/other.conf': 'COMPRESSION="zstd"\n',
      'boot/grub/grub.cfg': '\n',
      'boot/initramfs-linux.img': 'x',
    },
    factsOf('arch', 'arch', [kernel('6.9.1-arch1-1', '/boot/vmlinuz-linux', '/boot/initramfs-linux.img')]),
  );
  expect(await guest.readText('/etc/mkinitcpio.conf')).toMatch(
    /^MODULES=\(btrfs virtio_pci virtio_blk .*nvme.*\)\nHOOKS=\(base udev block filesystems\)\n$/,
  );
  expect(await guest.readText('/etc/mkinitcpio.conf.d/hooks.conf')).toBe('HOOKS=(base systemd block)\n');
  expect(await guest.readText('/etc/mkinitcpio.conf.d/other.conf')).toBe('COMPRESSION="zstd"\n');
});

test('each family is found by its distributions, and rebuilds with its own tool', async () => {
  const cases: [string, string, RegExp][] = [
    ['almalinux', 'rhel', /dracut "\$@" "\$new" "\$version"/],
    ['amzn', 'rhel', /dracut/],
    ['opensuse-leap', 'suse', /dracut/],
    ['alpine', 'alpine', /mkinitfs -o "\$new" "\$1"/],
    ['manjaro', 'arch', /mkinitcpio -k "\$1" -g "\$new"/],
  ];
  guest = await makeTree({});
  for (const [distro, name, command] of cases) {
    const { os } = sampleFacts();
    const family = familyOf({ ...os, distro, family: 'other' });
    expect(family.name).toBe(name);
    guest.calls.length = 0;
    await family.rebuildInitramfs(guest, kernel('1.2', '/boot/vmlinuz-1.2', '/boot/i'));
    expect(guest.calls[0]?.what).toMatch(command);
    expect(guest.calls[0]?.args.slice(0, 2)).toEqual(['1.2', '/boot/i']);
  }
});
