import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { bootloaderFacts, kernelFacts } from '../../../stages/inspect/boot.ts';
import { Bundle } from '../../../stages/inspect/bundle.ts';
import { findCandidates, ownedFolders } from '../../../stages/inspect/candidates.ts';
import { parseFstab } from '../../../stages/inspect/fstab-entries.ts';
import { networkFacts } from '../../../stages/inspect/network.ts';
import { elfMachine, parseOsRelease, userFacts } from '../../../stages/inspect/os.ts';
import { agentFacts, parseDpkgStatus, parsePacmanFolders } from '../../../stages/inspect/packages.ts';
import { serviceFacts } from '../../../stages/inspect/services.ts';
import { parseApkInstalled } from '../../../tools/apk-database.ts';
import { parseRpmList } from '../../../tools/rpm-database.ts';

function bundleOf(files: Record<string, string>, links: Record<string, string> = {}): Bundle {
  const bundle = new Bundle();
  for (const [name, text] of Object.entries(files)) bundle.addFile(name, Buffer.from(text));
  for (const [name, target] of Object.entries(links)) bundle.addLink(name, target);
  return bundle;
}

const MIB = 1024 * 1024;
const UNITS = {
  'usr/lib/systemd/system/nginx.service': '[Service]\nExecStart=/usr/sbin/nginx\n',
  'usr/lib/systemd/system/cron.service': '[Service]\nExecStart=/usr/sbin/cron -f\n',
  'usr/lib/systemd/system/mariadb.service': '[Service]\nExecStart=/usr/sbin/mariadbd\n',
  'etc/systemd/system/shop.service':
    '[Service]\nWorkingDirectory=/srv/app\nExecStart=/srv/app/run \\\n  --all\n',
  'usr/lib/systemd/system/off.service': '[Service]\nExecStart=/srv/app/off\n',
};
const WANTS = '/etc/systemd/system/multi-user.target.wants';
const LINKS = {
  lib: 'usr/lib',
  [`${WANTS}/nginx.service`]: '/lib/systemd/system/nginx.service',
  [`${WANTS}/cron.service`]: '/lib/systemd/system/cron.service',
  [`${WANTS}/mariadb.service`]: '/lib/systemd/system/mariadb.service',
  [`${WANTS}/shop.service`]: '/etc/systemd/system/shop.service',
  'etc/systemd/system/masked.service': '/dev/null',
};

test('candidates: rules, thresholds, ownership, needs', () => {
  const sizes: [string, number][] = [
    ['srv/app', 300],
    ['srv/tiny', 1],
    ['var/lib/mysql', 80],
    ['var/lib/shop-dumps', 60],
    ['var/lib/docker', 900],
    ['opt/vendor', 100],
    ['opt/vendor/data', 90],
    ['opt/mine', 20],
    ['home/ann', 70],
    ['home/bob', 30],
    ['var/log/shop', 60],
    ['var/log/shop/access.log', 59],
    ['var/log/journal', 500],
    ['srv/caf\ufffd', 300],
  ];
  const bundle = bundleOf(
    {
      ...UNITS,
      'etc/passwd':
        'root:x:0:0::/root:/bin/bash\nann:x:1000:1000::/home/ann:/bin/bash\nbob:x:1001:1001::/home/bob:/bin/sh\n',
      'home/ann/.ssh/authorized_keys': '# mine\nssh-ed25519 AAAA\n\n',
      'etc/nginx/sites-enabled/shop': 'server {\n root /srv/app/www;\n}\n',
      'etc/cron.d/shop': '# /opt/mine\n1 2 * * * root /srv/app/backup >> /var/lib/shop-dumps/log\n',
      '@lists/sizes': sizes.map(([p, mib]) => `${mib * MIB}\t${p}\0`).join(''),
      '@lists/owned': '/opt/vendor/bin/tool\0/var/lib/dpkg/x\0',
    },
    LINKS,
  );
  const users = userFacts(bundle);
  expect(users[1]).toMatchObject({ name: 'ann', human: true, authorizedKeys: 1 });
  const candidates = findCandidates(bundle, users, serviceFacts(bundle));
  expect(candidates.map((c) => [c.path, c.rule])).toEqual([
    ['/srv/app', 'srv'],
    ['/opt/vendor/data', 'opt'],
    ['/var/lib/mysql', 'databases'],
    ['/home/ann', 'homes'],
    ['/var/lib/shop-dumps', 'dumps'],
    ['/var/log/shop/access.log', 'logs'],
    ['/opt/mine', 'opt'],
  ]);
  const needed = Object.fromEntries(candidates.map((c) => [c.path, c.neededBy]));
  expect(needed['/srv/app']).toEqual(['cron.service', 'nginx.service', 'shop.service']);
  expect(needed['/var/lib/mysql']).toEqual(['mariadb.service']);
  expect(needed['/var/lib/shop-dumps']).toEqual(['cron.service']);
  expect(needed['/opt/mine']).toEqual(['multi-user.target']);
});

test('ownership reaches every folder above a file', () => {
  expect([...ownedFolders(['/opt/a/b/c', '/opt/a/d'])].sort()).toEqual([
    '/opt',
    '/opt/a',
    '/opt/a/b',
    '/opt/a/b/c',
    '/opt/a/d',
  ]);
});

test('services: enabled, disabled, masked, sysv', () => {
  const bundle = bundleOf(
    { ...UNITS, 'etc/systemd/system/off2.service': '[Service]\nExecStart=/opt/off\n' },
    { ...LINKS, 'etc/rc2.d/S01legacy': '../init.d/legacy', 'etc/rc2.d/S01nginx': '../init.d/nginx' },
  );
  const services = serviceFacts(bundle);
  expect(services.filter((s) => s.enabled).map((s) => s.unit)).toEqual([
    'cron.service',
    'legacy.service',
    'mariadb.service',
    'nginx.service',
    'shop.service',
  ]);
  expect(services.find((s) => s.unit === 'shop.service')).toMatchObject({
    file: '/etc/systemd/system/shop.service',
    paths: ['/srv/app', '/srv/app/run'],
  });
  expect(services.find((s) => s.unit === 'off2.service')?.enabled).toBe(false);
});

describe('boot', () => {
  const grub = readFileSync(
    new URL('../../../fixtures/recorded/inspect/bios-lvm.grub.cfg', import.meta.url),
    'utf8',
  );
  const version = /vmlinuz-(\S+)/.exec(grub)?.[1] ?? '';
  test('a separate /boot, default entry, modules', () => {
    const bundle = bundleOf({
      'boot/grub/grub.cfg': grub,
      '@lists/boot': `f\t9\tboot/vmlinuz-${version}\t\0f\t8\tboot/initrd.img-${version}\t\0f\t9\tboot/vmlinuz-9.9\t\0`,
      '@lists/modules': `${version}\0`,
      [`lib/modules/${version}/modules.dep`]:
        'kernel/drivers/virtio-blk.ko: kernel/x.ko\nkernel/a/b-c.ko.xz:\n',
      [`lib/modules/${version}/modules.builtin`]: 'kernel/fs/ext-4.ko\n',
    });
    expect(kernelFacts(bundle)).toEqual([
      {
        version,
        image: `/boot/vmlinuz-${version}`,
        initramfs: `/boot/initrd.img-${version}`,
        initramfsBytes: 8,
        inBootMenu: true,
        isDefault: true,
        builtin: ['ext_4'],
        modules: ['b_c', 'virtio_blk'],
        initramfsModules: [],
      },
    ]);
  });
  test('entries of the Boot Loader Specification, the saved one is the default', () => {
    const bls = (v: string) =>
      `title T ${v}\nversion ${v}\nlinux /vmlinuz-${v}\ninitrd /initramfs-${v}.img\noptions ro\n`;
    const boot = ['5.14.0-70', '5.14.0-427'].flatMap((v) => [`boot/vmlinuz-${v}`, `boot/initramfs-${v}.img`]);
    const files = (config: string, env: string) => ({
      // biome-ignore lint/suspicious/noTemplateCurlyInString: shell text
      [config]: 'set default="${saved_entry}"\nblscfg\n',
      [env]: '# GRUB Environment Block\nsaved_entry=m-5.14.0-70\n',
      'boot/loader/entries/m-5.14.0-70.conf': bls('5.14.0-70'),
      'boot/loader/entries/m-5.14.0-427.conf': bls('5.14.0-427'),
      'boot/loader/entries/m-0-rescue.conf': bls('0-rescue'),
      '@lists/boot': boot.map((f) => `f\t9\t${f}\t\0`).join(''),
      '@lists/modules': '5.14.0-70\x005.14.0-427\0',
    });
    const found = kernelFacts(bundleOf(files('boot/grub2/grub.cfg', 'boot/grub2/grubenv')));
    expect(found).toMatchObject([
      { version: '5.14.0-427', inBootMenu: true, isDefault: false },
      { version: '5.14.0-70', inBootMenu: true, isDefault: true, initramfs: '/boot/initramfs-5.14.0-70.img' },
    ]);
    // RHEL 8 with UEFI has its menu beside the loader.
    const efi = bundleOf(files('boot/efi/EFI/redhat/grub.cfg', 'boot/efi/EFI/redhat/grubenv'));
    expect(kernelFacts(efi)).toEqual(found);
    expect(bootloaderFacts(efi, []).config).toBe('/boot/efi/EFI/redhat/grub.cfg');
  });
  test('kernels named by package, by flavour, and lying below /usr', () => {
    const arch = bundleOf({
      'usr/lib/modules/6.9.1-arch1-1/pkgbase': 'linux\n',
      '@lists/boot':
        'f\t1\tboot/vmlinuz-linux\t\0f\t1\tboot/initramfs-linux.img\t\0f\t1\tboot/initramfs-linux-fallback.img\t\0',
      '@lists/modules': '6.9.1-arch1-1\0',
    });
    expect(kernelFacts(arch)).toMatchObject([
      { version: '6.9.1-arch1-1', image: '/boot/vmlinuz-linux', initramfs: '/boot/initramfs-linux.img' },
    ]);
    const alpine = bundleOf({
      '@lists/boot': 'f\t1\tboot/vmlinuz-virt\t\0f\t1\tboot/initramfs-virt\t\0',
      '@lists/modules': '6.6.9-0-virt\x006.6.31-0-virt\0',
    });
    expect(kernelFacts(alpine)).toMatchObject([
      { version: '6.6.31-0-virt', initramfs: '/boot/initramfs-virt' },
    ]);
    const suse = bundleOf({
      '@lists/boot':
        'l\t1\tboot/vmlinuz-6.4-default\t../usr/lib/modules/6.4-default/vmlinuz\0f\t1\tboot/initrd-6.4-default\t\0',
      '@lists/modules': '6.4-default\0',
    });
    expect(kernelFacts(suse)).toMatchObject([
      { version: '6.4-default', image: '/boot/vmlinuz-6.4-default', initramfs: '/boot/initrd-6.4-default' },
    ]);
  });
  test('loaders on the ESP', () => {
    const list =
      'f\t1\tboot/efi/EFI/debian/shimx64.efi\t\0f\t1\tboot/efi/EFI/BOOT/bootx64.efi\t\0f\t1\tboot/x.efi\t\0';
    const facts = bootloaderFacts(bundleOf({ '@lists/boot': list }), [
      { path: '/', device: '/dev/sda2' },
      { path: '/boot/efi', device: '/dev/sda1' },
    ]);
    expect(facts).toMatchObject({ kind: 'none', fallbackLoader: true, espMount: '/boot/efi' });
    expect(facts.efiLoaders).toEqual(['EFI/BOOT/bootx64.efi', 'EFI/debian/shimx64.efi']);
  });
});

test('network: sourced files, pins, the system in use', () => {
  const bundle = bundleOf({
    'etc/network/interfaces': 'source /etc/network/interfaces.d/*\nauto lo\niface lo inet loopback\n',
    'etc/network/interfaces.d/lan':
      'iface eth0 inet static\n address 192.0.2.2\n netmask 255.255.255.0\n gateway 192.0.2.1\n',
    'etc/udev/rules.d/70-persistent-net.rules':
      'SUBSYSTEM=="net", ATTR{address}=="00:25:90:A1:B2:C3", NAME="eth0"\n# SUBSYSTEM=="net", NAME="x"\n',
    'etc/resolv.conf': '# x\nnameserver 192.0.2.53\nsearch example.com\n',
  });
  expect(networkFacts(bundle, [])).toMatchObject({
    systems: ['ifupdown'],
    interfaces: [
      {
        name: 'eth0',
        mac: '00:25:90:a1:b2:c3',
        addresses: ['192.0.2.2/24'],
        gateways: ['192.0.2.1'],
        method: 'static',
      },
      { name: 'lo', method: 'loopback' },
    ],
    pins: [{ mac: '00:25:90:a1:b2:c3', name: 'eth0' }],
    dns: ['192.0.2.53'],
  });
});

test('links resolve inside the guest and loops end', () => {
  const bundle = bundleOf(
    { 'usr/lib/x': 'X' },
    { lib: 'usr/lib', a: 'b', b: 'a', up: '../../../../usr/lib/x' },
  );
  expect(bundle.text('/lib/x')).toBe('X');
  expect(bundle.text('/up')).toBe('X');
  expect(bundle.text('/a')).toBeUndefined();
});

test('small formats', () => {
  expect(parseOsRelease('ID="a b"\nX=\'y\'\nBAD\nid=z\nQ="\\$HOME"\n')).toEqual({
    ID: 'a b',
    X: 'y',
    Q: '$HOME',
  });
  expect(parseFstab('# c\nLABEL=x\\040y /srv/a\\040b ext4\n\nbad\n')).toEqual([
    { spec: 'LABEL=x y', path: '/srv/a b', type: 'ext4', options: ['defaults'] },
  ]);
  expect(elfMachine(Buffer.from('7f454c4602010100000000000000000003003e00', 'hex'))).toBe('x86_64');
  expect(elfMachine(Buffer.from('#!/bin/sh'))).toBeUndefined();
  const packages = parseDpkgStatus(
    'Package: open-vm-tools\nStatus: install ok installed\nVersion: 2:1\nArchitecture: amd64\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n',
  );
  expect(packages).toEqual([{ name: 'open-vm-tools', version: '2:1', architecture: 'amd64' }]);
  expect(
    agentFacts(bundleOf({ '@lists/agents': '/usr/bin/vmtoolsd\0/usr/sbin/qemu-ga\0' }), packages),
  ).toEqual([
    { platform: 'vmware', package: 'open-vm-tools' },
    { platform: 'qemu', path: '/usr/sbin/qemu-ga' },
  ]);
});

test('packages of pacman, apk and rpm', () => {
  expect(
    parsePacmanFolders(['gtk3-1:3.24.41-1', 'ca-certificates-20240203-1', 'ALPM_DB_VERSION'], 'x86_64'),
  ).toEqual([
    { name: 'gtk3', version: '1:3.24.41-1', architecture: 'x86_64' },
    { name: 'ca-certificates', version: '20240203-1', architecture: 'x86_64' },
  ]);
  const apk = parseApkInstalled(
    'C:Q1x=\nP:musl\nV:1.2.5-r0\nA:x86_64\np:so:libc.musl-x86_64.so.1=1\nF:lib\n\nP:curl\nV:8.9.1-r1\nA:x86_64\np:cmd:curl=8.9.1-r1 x\n\n',
  );
  expect(apk.packages.map((p) => `${p.name} ${p.version}`)).toEqual(['musl 1.2.5-r0', 'curl 8.9.1-r1']);
  expect([...apk.provides]).toEqual(['musl', 'so:libc.musl-x86_64.so.1', 'curl', 'cmd:curl', 'x']);
  expect(
    parseRpmList(
      'bash\t5.1.8-9.el9\tx86_64\ngpg-pubkey\tfd431d51-4ae0493b\t(none)\nwarning: x\nvim-minimal\t2:8.2-20.el9\tx86_64\n',
    ),
  ).toEqual([
    { name: 'bash', version: '5.1.8-9.el9', architecture: 'x86_64' },
    { name: 'vim-minimal', version: '2:8.2-20.el9', architecture: 'x86_64' },
  ]);
});
