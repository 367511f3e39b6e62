import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { bootloaderFacts, kernelFacts } from '../../../stages/inspect/boot.ts';
import { Bundle } from '../../../stages/inspect/bundle.ts';
import { findCandidates, ownedFolders } from '../../../stages/inspect/candidates.ts';
import { parseFstab } from '../../../stages/inspect/fstab-entries.ts';
import { networkFacts } from '../../../stages/inspect/network.ts';
import { elfMachine, parseOsRelease, userFacts } from '../../../stages/inspect/os.ts';
import { agentFacts, parseDpkgStatus } from '../../../stages/inspect/packages.ts';
import { serviceFacts } from '../../../stages/inspect/services.ts';

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
