import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Inventory } from '../../../core/inventory.ts';
import { parseInventory } from '../../../tools/source-machine/inventory/index.ts';

const MARK = '0123456789abcdef';

function output(sections: Record<string, string>): string {
  return Object.entries({ ...sections, end: '' })
    .map(([name, text]) => `\n@${MARK} ${name}\n${text}\n`)
    .join('');
}

/** `name key value` lines with tabs. */
function facts(name: string, values: Record<string, string | number>): string {
  return Object.entries(values)
    .map(([key, value]) => `${name}\t${key.replace(/#\d$/, '')}\t${value}`)
    .join('\n');
}

/** A server with a mirror of two disks (md), LVM in it, /boot on a mirror of its own, and a third disk with btrfs. */
const SERVER = {
  hostname: 'shop01',
  kernel: '6.1.0-18-amd64 x86_64',
  'os-release': 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"',
  memory: 'MemTotal:       16000000 kB',
  cpus: '8',
  firmware: 'uefi\n   1',
  dmi: 'dmi\tsys_vendor\tDell Inc.\ndmi\tproduct_name\tPowerEdge R640',
  block: [
    ...['sda', 'sdb'].flatMap((disk, i) => [
      facts(disk, {
        path: `/sys/devices/pci0000:00/0000:00:17.0/ata${i + 1}/host0/target0:0:0/0:0:0:0/block/${disk}`,
        dev: `8:${i * 16}`,
        size: 1_000_000_000,
        ro: 0,
        removable: 0,
        'queue/rotational': 1,
        'queue/logical_block_size': 512,
        'device/model': 'HGST HUS72',
        udev: `S:disk/by-id/ata-HGST_${i}`,
        'udev#1': 'E:ID_PART_TABLE_TYPE=gpt',
        'udev#2': `E:ID_SERIAL_SHORT=K${i}`,
        'udev#3': 'E:ID_BUS=ata',
      }),
      facts(`${disk}1`, {
        path: `/sys/devices/pci0000:00/0000:00:17.0/ata1/block/${disk}/${disk}1`,
        dev: `8:${i * 16 + 1}`,
        size: 2_000_000,
        partition: 1,
        start: 2048,
        udev: 'E:ID_FS_TYPE=linux_raid_member',
        'udev#1': 'E:ID_PART_ENTRY_TYPE=a19d880f-05fc-4d3b-a006-743f0f84911e',
        'udev#2': 'E:ID_PART_ENTRY_NAME=boot\\x20disk',
      }),
      facts(`${disk}2`, {
        path: `/sys/devices/pci0000:00/0000:00:17.0/ata1/block/${disk}/${disk}2`,
        dev: `8:${i * 16 + 2}`,
        size: 900_000_000,
        partition: 2,
        start: 4_000_000,
      }),
    ]),
    facts('md0', {
      path: '/sys/devices/virtual/block/md0',
      dev: '9:0',
      size: 1_990_000,
      slave: 'sda1',
      'slave#1': 'sdb1',
      udev: 'E:ID_FS_TYPE=ext4',
    }),
    facts('md1', {
      path: '/sys/devices/virtual/block/md1',
      dev: '9:1',
      size: 899_000_000,
      slave: 'sda2',
      'slave#1': 'sdb2',
    }),
    facts('dm-0', {
      path: '/sys/devices/virtual/block/dm-0',
      dev: '253:0',
      size: 40_000_000,
      'dm/name': 'vg0-root',
      'dm/uuid': 'LVM-abc',
      slave: 'md1',
    }),
    facts('dm-1', {
      path: '/sys/devices/virtual/block/dm-1',
      dev: '253:1',
      size: 8_000_000,
      'dm/name': 'vg0-swap',
      'dm/uuid': 'LVM-def',
      slave: 'md1',
    }),
    facts('nvme0n1', {
      path: '/sys/devices/pci0000:00/nvme/nvme0/nvme0n1',
      dev: '259:0',
      size: 2_000_000_000,
      'queue/logical_block_size': 4096,
    }),
    facts('loop0', { path: '/sys/devices/virtual/block/loop0', dev: '7:0', size: 100 }),
    facts('sr0', { path: '/sys/devices/pci0000:00/ata3/block/sr0', dev: '11:0', size: 2_097_151 }),
  ].join('\n'),
  links: '../../sda\t/dev/disk/by-path/pci-0000:00:17.0-ata-1',
  btrfs: '/sys/fs/btrfs/77aa/devices/nvme0n1',
  mounts: [
    '22 1 253:0 / / rw,relatime - ext4 /dev/mapper/vg0-root rw',
    '23 22 9:0 / /boot rw - ext4 /dev/md0 rw',
    '24 22 0:44 /data /srv/my\\040data rw,noatime - btrfs /dev/nvme0n1 rw,space_cache',
    '25 22 0:21 / /proc rw - proc proc rw',
    '26 22 253:0 /var/www /mnt/bind ro - ext4 /dev/mapper/vg0-root rw',
    '27 22 7:0 / /snap/core ro - squashfs /dev/loop0 ro',
  ].join('\n'),
  usage:
    'Filesystem Type 1024-blocks Used Available Capacity Mounted on\n/dev/mapper/vg0-root ext4 20000000 5000000 14000000 27% /',
  swaps: 'Filename Type Size Used Priority\n/dev/dm-1 partition 3999996 0 -2\n/swapfile file 1000 0 -3',
  mdstat:
    'Personalities : [raid1]\nmd1 : active raid1 sdb2[1] sda2[0]\n      449500 blocks [2/2] [UU]\n\nmd0 : active (auto-read-only) raid1 sdb1[1] sda1[0]',
  pvs: '{"report":[{"pv":[{"pv_name":"/dev/md1","vg_name":"vg0","pv_size":"460288000000","pv_free":"0"}]}]}',
  vgs: '{"report":[{"vg":[{"vg_name":"vg0","vg_size":"460288000000","vg_free":"1000"}]}]}',
  lvs: '{"report":[{"lv":[{"lv_name":"root","vg_name":"vg0","lv_size":"20480000000","segtype":"linear"}]}]}',
  net: [
    facts('eno1', {
      path: '/sys/devices/pci0000:00/net/eno1',
      address: 'AA:BB:CC:00:11:22',
      mtu: 1500,
      operstate: 'up',
      driver: 'tg3',
    }),
    facts('lo', { path: '/sys/devices/virtual/net/lo', address: '00:00:00:00:00:00', type: 772 }),
  ].join('\n'),
  addresses:
    '2: eno1    inet 192.0.2.10/24 brd 192.0.2.255 scope global eno1\\  valid_lft forever\n2: eno1    inet6 2001:db8::10/64 scope global',
  routes: 'default via 192.0.2.1 dev eno1 proto static\n192.0.2.0/24 dev eno1 scope link',
  resolv: 'search example.org example.net\nnameserver 192.0.2.53',
  services:
    'nginx.service loaded active running A high performance web server\nssh.service loaded active running OpenBSD',
  ports:
    'tcp   LISTEN 0      511          0.0.0.0:80        0.0.0.0:*    users:(("nginx",pid=1,fd=6),("nginx",pid=2,fd=6))\ntcp   LISTEN 0  128  [::]:22  [::]:*  users:(("sshd",pid=3,fd=4))\nudp   UNCONN 0      0      127.0.0.53%lo:53        0.0.0.0:*',
  programs: 'cloud-init\nqemu-ga',
};

/** SERVER with more mounts, here or in other namespaces, and more devices. */
function withMounts(more: { mounts?: string; others?: string; block?: string }): Inventory {
  return parseInventory(
    output({
      ...SERVER,
      mounts: [SERVER.mounts, more.mounts ?? ''].join('\n'),
      'other-mounts': more.others ?? '',
      block: [SERVER.block, more.block ?? ''].join('\n'),
    }),
    MARK,
  );
}

const writtenOn = (found: Inventory, disk: string) =>
  found.disks.find((d) => d.name === disk)?.writtenThrough ?? [];

describe('mounts that are easily overlooked', () => {
  const spare = facts('sdc', { path: '/sys/devices/pci0000:00/ata9/block/sdc', dev: '8:32', size: 1000 });

  test('one in a namespace of a container is reached through a process there', () => {
    const others = '4711 900 800 8:32 / /srv/volume rw,relatime - xfs /dev/sdc rw,attr2';
    expect(writtenOn(withMounts({ block: spare, others }), 'sdc')).toEqual(['/proc/4711/root/srv/volume']);
    const known = '4711 900 800 253:0 /var /etc/hosts rw - ext4 /dev/mapper/vg0-root rw';
    expect(writtenOn(withMounts({ others: known }), 'sda')).toEqual(['/', '/boot']);
  });

  test('ZFS counts to the disks of its pools, and to all when they are not told', () => {
    const mounts = '30 22 0:50 / /tank rw - zfs tank/data rw\n31 22 0:51 / /tank/www rw - zfs tank/www rw';
    const told = withMounts({ mounts, block: `${spare}\nsdc\tudev\tE:ID_FS_TYPE=zfs_member` });
    expect([writtenOn(told, 'sdc'), writtenOn(told, 'sda')]).toEqual([['/tank'], ['/', '/boot']]);
    const untold = withMounts({ mounts, block: spare });
    expect([writtenOn(untold, 'sdc'), writtenOn(untold, 'sda')]).toEqual([
      ['/tank'],
      ['/', '/boot', '/tank'],
    ]);
  });

  test('a device whose driver does not tell what it lies on may lie on any disk', () => {
    const block = [
      spare,
      facts('drbd0', { path: '/sys/devices/virtual/block/drbd0', dev: '147:0', size: 900 }),
      facts('zram0', { path: '/sys/devices/virtual/block/zram0', dev: '252:0', size: 900 }),
    ].join('\n');
    const mounts =
      '30 22 147:0 / /srv/ha rw - ext4 /dev/drbd0 rw\n31 22 252:0 / /tmp rw - ext4 /dev/zram0 rw';
    expect(writtenOn(withMounts({ block, mounts }), 'sdc')).toEqual(['/srv/ha']);
  });
});

describe('the inventory', () => {
  const found = parseInventory(output(SERVER), MARK);

  test('knows the disks and what lies on them through md and LVM', () => {
    expect(found.disks.map((d) => d.name)).toEqual(['sda', 'sdb', 'nvme0n1']);
    const [sda] = found.disks;
    expect(sda).toMatchObject({
      sizeBytes: 512_000_000_000,
      sectorBytes: 512,
      model: 'HGST HUS72',
      serial: 'K0',
      transport: 'ata',
      rotational: true,
      table: 'gpt',
      links: ['/dev/disk/by-id/ata-HGST_0', '/dev/disk/by-path/pci-0000:00:17.0-ata-1'],
      writtenThrough: ['/', '/boot'],
    });
    expect(sda?.usedBy).toEqual([
      '/ (ext4)',
      '/boot (ext4)',
      'swap /dev/dm-1',
      'swap /swapfile',
      'volume group vg0',
      'array md1',
      'array md0',
    ]);
    expect(sda?.partitions).toMatchObject([
      { name: 'sda1', number: 1, startBytes: 1_048_576, label: 'boot disk' },
      { name: 'sda2', number: 2 },
    ]);
    expect(found.disks[2]).toMatchObject({
      transport: 'nvme',
      sectorBytes: 4096,
      writtenThrough: ['/srv/my data'],
    });
    expect(found.bootDisk).toBe('sda');
    expect(found.devices.find((d) => d.name === 'dm-0')).toMatchObject({
      path: '/dev/mapper/vg0-root',
      kind: 'lvm',
      disks: ['sda', 'sdb'],
    });
  });

  test('tells mounts once, with their space', () => {
    expect(found.mounts.map((m) => [m.mountPoint, m.writable])).toEqual([
      ['/', true],
      ['/boot', true],
      ['/srv/my data', true],
      ['/snap/core', false],
    ]);
    expect(found.mounts[0]).toMatchObject({ usedBytes: 5_120_000_000, disks: ['sda', 'sdb'] });
  });

  test('knows the rest', () => {
    expect(found).toMatchObject({
      hostname: 'shop01',
      os: { id: 'debian', name: 'Debian GNU/Linux 12 (bookworm)', version: '12' },
      kernel: '6.1.0-18-amd64',
      architecture: 'x86_64',
      firmware: 'uefi',
      secureBoot: true,
      vendor: 'Dell Inc.',
      memoryBytes: 16_384_000_000,
      cpus: 8,
      dns: ['192.0.2.53'],
      searchDomains: ['example.org', 'example.net'],
      services: ['nginx.service', 'ssh.service'],
      agents: ['cloud-init', 'qemu-ga'],
      raids: [
        { name: 'md1', level: 'raid1', state: 'active', members: ['sdb2', 'sda2'] },
        { name: 'md0', level: 'raid1', state: 'active (auto-read-only)', members: ['sdb1', 'sda1'] },
      ],
      volumeGroups: [
        { name: 'vg0', sizeBytes: 460_288_000_000, freeBytes: 1000, physicalVolumes: ['/dev/md1'] },
      ],
      logicalVolumes: [{ name: 'root', volumeGroup: 'vg0', type: 'linear' }],
      ports: [
        { protocol: 'tcp', address: '0.0.0.0', port: 80, program: 'nginx' },
        { protocol: 'tcp', address: '::', port: 22, program: 'sshd' },
        { protocol: 'udp', address: '127.0.0.53', port: 53 },
      ],
      notes: [],
    });
    expect(found.interfaces[0]).toEqual({
      name: 'eno1',
      mac: 'aa:bb:cc:00:11:22',
      kind: 'physical',
      driver: 'tg3',
      mtu: 1500,
      up: true,
      addresses: ['192.0.2.10/24', '2001:db8::10/64'],
    });
    expect(found.interfaces[1]).toMatchObject({ kind: 'loopback', mac: undefined });
    expect(found.routes[0]).toEqual({ to: 'default', via: '192.0.2.1', interface: 'eno1' });
  });

  test('does without the programs that are often missing', () => {
    const bare = parseInventory(
      output({
        block: SERVER.block,
        mounts: SERVER.mounts,
        processes: 'nginx\nkworker/0:1',
        'proc-routes':
          'Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\neth0\t00000000\t010200C0\t3\t0\t0\t0\t00000000\neth0\t000200C0\t00000000\t1\t0\t0\t0\t00FFFFFF',
        'proc-ports':
          'tcp   0: 0100007F:1F90 00000000:0000 0A 0\ntcp   1: 0100007F:1F91 0100007F:99 01 0\ntcp6   0: 00000000000000000000000000000000:0016 0:0 0A',
      }),
      MARK,
    );
    expect(bare.services).toEqual(['nginx']);
    expect(bare.routes).toEqual([
      { to: 'default', via: '192.0.2.1', interface: 'eth0' },
      { to: '192.0.2.0/24', via: undefined, interface: 'eth0' },
    ]);
    expect(bare.ports).toMatchObject([
      { address: '127.0.0.1', port: 8080 },
      { address: '::', port: 22 },
    ]);
    expect(bare.notes).toEqual(['LVM is in use, but its programs are missing: volume groups are not told']);
  });

  test('devices that stand on each other in a circle end', () => {
    const circle = [
      facts('dm-0', { path: '/x/dm-0', dev: '253:0', size: 8, slave: 'dm-1' }),
      facts('dm-1', { path: '/x/dm-1', dev: '253:1', size: 8, slave: 'dm-0' }),
    ].join('\n');
    expect(parseInventory(output({ block: circle, mounts: '' }), MARK).disks).toEqual([]);
  });

  test('a file cannot pass for a section; hostile text ends in a valid inventory or a refusal', () => {
    const forged = parseInventory(
      output({ ...SERVER, 'os-release': '@00 block\nID=x', hostname: '\n@ffff dmi\n' }),
      MARK,
    );
    expect(forged.disks).toHaveLength(3);
    const names = Object.keys(SERVER) as (keyof typeof SERVER)[];
    fc.assert(
      fc.property(
        fc.constantFrom(...names),
        fc.nat(),
        fc.array(
          fc.oneof(
            fc.string({ unit: 'binary' }),
            fc.constantFrom('\t', '\n', ' ', '{', '"', '-1', '99999999999999999999', 'sda', '/', '\\040'),
          ),
        ),
        (name, at, noise) => {
          const text = SERVER[name];
          const place = at % (text.length + 1);
          const broken = {
            ...SERVER,
            [name]: text.slice(0, place) + noise.join('') + text.slice(place + noise.length),
          };
          expect(Inventory.safeParse(parseInventory(output(broken), MARK)).success).toBe(true);
        },
      ),
      { numRuns: 300 },
    );
    expect(() => parseInventory('sh: not found', MARK)).toThrow('did not tell');
  });
});
