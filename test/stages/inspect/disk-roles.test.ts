import { describe, expect, test } from 'vitest';
import type { Facts } from '../../../core/facts.ts';
import { diskNames, withRoles } from '../../../stages/inspect/disk-roles.ts';
import { type Probe, parseProbe } from '../../../stages/inspect/probe.ts';
import { planMounts, type System } from '../../../stages/inspect/root.ts';
import { diskFacts } from '../../../stages/inspect/storage.ts';

const GIB = 2 ** 30;

/** A disk as a test draws it: partitions by number, each with the type blkid sees. */
interface Drawn {
  /** Partition number to content: `ext4`, `ext4 menu` (a /boot), `swap`, `pv VG`, `raid ARRAY`. */
  partitions: string[];
  loader?: boolean;
  table?: 'gpt' | 'dos';
  types?: string[];
}

/** What the appliance would report of these disks, and the system on `root`. */
function drawn(
  disks: readonly Drawn[],
  root: string,
  fstab: string,
  volumes: Record<string, string[]> = {},
): { probe: Probe; system: System } {
  const probe = parseProbe('');
  const groups = new Map<string, string[]>();
  const arrays = new Map<string, string[]>();
  for (const [i, disk] of disks.entries()) {
    const name = `sd${String.fromCharCode(97 + i)}`;
    probe.blocks.push({
      kernelName: name,
      device: `/dev/${name}`,
      number: `8:${i * 16}`,
      sizeBytes: 10 * GIB,
      startBytes: undefined,
      partition: undefined,
      mapperName: undefined,
    });
    if (disk.loader) probe.loaders.add(`/dev/${name}`);
    const partitions = disk.partitions.map((content, p) => {
      const device = `/dev/${name}${p + 1}`;
      const [type = '', what = ''] = content.split(' ');
      probe.blocks.push({
        kernelName: `${name}${p + 1}`,
        device,
        number: `8:${i * 16 + p + 1}`,
        sizeBytes: GIB,
        startBytes: (p + 1) * GIB,
        partition: p + 1,
        mapperName: undefined,
      });
      const blkid = type === 'pv' ? 'LVM2_member' : type === 'raid' ? 'linux_raid_member' : type;
      probe.contents.set(
        device,
        new Map([
          ['TYPE', blkid],
          ['UUID', type === 'raid' ? what : `uuid-${name}${p + 1}`],
        ]),
      );
      if (type === 'pv') groups.set(what, [...(groups.get(what) ?? []), device]);
      else if (type === 'raid') arrays.set(what, [...(arrays.get(what) ?? []), `${name}${p + 1}[${i}]`]);
      else if (type !== 'swap')
        probe.space.set(device, { sizeBytes: GIB, freeBytes: GIB / 2, freeInodes: 9 });
      probe.looks.push({
        device,
        subvolume: undefined,
        texts: new Map(),
        has: new Set(what === 'menu' ? ['grub/grub.cfg'] : []),
      });
      return {
        number: p + 1,
        device,
        startBytes: (p + 1) * GIB,
        sizeBytes: GIB,
        type: disk.types?.[p] ?? '0x83',
        bootable: false,
      };
    });
    probe.tables.set(`/dev/${name}`, { table: disk.table ?? 'dos', partitions });
  }
  for (const [name, physicalVolumes] of groups) {
    const logicalVolumes = (volumes[name] ?? []).map((lv) => ({
      name: lv,
      device: `/dev/mapper/${name}-${lv}`,
      sizeBytes: GIB,
    }));
    for (const { device } of logicalVolumes) {
      probe.contents.set(
        device,
        new Map([
          ['TYPE', 'ext4'],
          ['UUID', `uuid-${device}`],
        ]),
      );
      probe.space.set(device, { sizeBytes: GIB, freeBytes: GIB / 2, freeInodes: 9 });
    }
    probe.volumeGroups.push({ name, uuid: name, missing: 0, physicalVolumes, logicalVolumes });
  }
  probe.mdstat = [...arrays]
    .map(([name, members]) => `${name} : active raid1 ${members.join(' ')}\n`)
    .join('');
  for (const name of arrays.keys()) {
    probe.contents.set(
      `/dev/${name}`,
      new Map([
        ['TYPE', 'ext4'],
        ['UUID', `uuid-${name}`],
      ]),
    );
    probe.space.set(`/dev/${name}`, { sizeBytes: GIB, freeBytes: GIB / 2, freeInodes: 9 });
  }
  const look = {
    device: root,
    subvolume: undefined,
    texts: new Map([['etc/fstab', fstab]]),
    has: new Set<string>(),
  };
  return { probe, system: { look, release: {}, title: 'test' } };
}

function roles(
  { probe, system }: { probe: Probe; system: System },
  wanted: Record<string, 'data' | 'image' | 'skip'> = {},
  ids?: string[],
) {
  const captured = [...probe.tables.keys()].map((_, i) => ({
    id: ids?.[i] ?? `disk${i}`,
    path: `/d${i}`,
    format: 'raw',
    virtualBytes: 0,
  }));
  const { mounts } = planMounts(probe, system, diskNames(captured));
  const found = withRoles(probe, diskFacts(probe, captured), mounts, wanted);
  const at = (p: string): string | undefined => mounts.find((m: Facts['mounts'][0]) => m.path === p)?.device;
  return { uses: found.disks.map((d) => d.use), boots: found.bootDisk, firmware: found.firmware, at };
}

describe('which disk starts, and what the others are for', () => {
  const server = { partitions: ['ext4 menu', 'pv vg', 'swap'], loader: true };
  const archive = { partitions: ['ext4'] };
  const fstab =
    '/dev/mapper/vg-root / ext4\n/dev/sda1 /boot ext4\n/dev/sda3 none swap\n/dev/sdb1 /srv ext4\n';

  test('names of the old machine are found by what they mount, in either order', () => {
    const usual = roles(drawn([server, archive], '/dev/mapper/vg-root', fstab, { vg: ['root'] }));
    expect(usual).toMatchObject({ uses: ['system', 'image'], boots: 0 });
    expect([usual.at('/boot'), usual.at('/srv')]).toEqual(['/dev/sda1', '/dev/sdb1']);
    const swapped = roles(drawn([archive, server], '/dev/mapper/vg-root', fstab, { vg: ['root'] }));
    expect(swapped).toMatchObject({ uses: ['image', 'system'], boots: 1 });
    expect([swapped.at('/boot'), swapped.at('/srv')]).toEqual(['/dev/sdb1', '/dev/sda1']);
  });

  test('what cannot be told apart is not guessed, unless the capture knows the names', () => {
    const disks = [{ partitions: ['ext4'] }, { partitions: ['ext4'] }, server];
    const lines = 'UUID=uuid-sdc1 / ext4\n/dev/sdb1 /srv ext4\n/dev/sdc1 /opt ext4\n';
    expect(roles(drawn(disks, '/dev/sdc1', lines)).at('/srv')).toBeUndefined();
    const known = roles(drawn(disks, '/dev/sdc1', lines), {}, ['sdc', 'sdb', 'sda']);
    expect([known.at('/srv'), known.at('/opt')]).toEqual(['/dev/sdb1', '/dev/sda1']);
  });

  test('a volume group or a mirror over two disks makes both the system', () => {
    const group = [{ partitions: ['pv vg'] }, { ...server, partitions: ['ext4 menu', 'pv vg'] }];
    const lines = '/dev/mapper/vg-root / ext4\nUUID=uuid-sdb1 /boot ext4\n';
    expect(roles(drawn(group, '/dev/mapper/vg-root', lines, { vg: ['root'] }))).toMatchObject({
      uses: ['system', 'system'],
      boots: 1,
    });
    const mirror = [{ partitions: ['raid md0'] }, { partitions: ['raid md0'], loader: true }, archive];
    expect(
      roles(drawn(mirror, '/dev/md0', 'UUID=uuid-md0 / ext4\nUUID=uuid-sdc1 /srv ext4\n')),
    ).toMatchObject({
      uses: ['system', 'system', 'image'],
      boots: 1,
    });
  });

  test('/var on a disk of its own is the system, /var/lib/mysql is not', () => {
    const lines = 'UUID=uuid-sda1 / ext4\nUUID=uuid-sdb1 /var ext4\nUUID=uuid-sdc1 /var/lib/mysql ext4\n';
    const disks = [{ partitions: ['ext4'], loader: true }, archive, archive];
    expect(roles(drawn(disks, '/dev/sda1', lines))).toMatchObject({
      uses: ['system', 'system', 'image'],
      boots: 0,
    });
  });

  test('the boot loader on a disk of its own: it starts the system', () => {
    const disks = [{ partitions: ['ext4'] }, { partitions: ['vfat'], loader: true }];
    expect(roles(drawn(disks, '/dev/sda1', 'UUID=uuid-sda1 / ext4\n'))).toMatchObject({
      uses: ['system', 'system'],
      boots: 1,
    });
  });

  test('an ESP left on a data disk does not make it UEFI', () => {
    const esp = {
      partitions: ['vfat'],
      table: 'gpt' as const,
      types: ['C12A7328-F81F-11D2-BA4B-00A0C93EC93B'],
    };
    expect(roles(drawn([server, esp], '/dev/mapper/vg-root', fstab, { vg: ['root'] })).firmware).toBe('bios');
  });

  test('what the user wants is followed, or refused with the reason', () => {
    const two = drawn([server, archive], '/dev/mapper/vg-root', fstab, { vg: ['root'] });
    expect(roles(two, { disk1: 'data' }).uses).toEqual(['system', 'data']);
    expect(() => roles(two, { disk0: 'data' })).toThrow(
      /disk0 cannot be data: the system is on it \(\/, \/boot\)/,
    );
    const tied = drawn(
      [server, { partitions: ['pv big'] }, { partitions: ['pv big'] }],
      '/dev/mapper/vg-root',
      fstab,
      { vg: ['root'], big: ['data'] },
    );
    expect(() => roles(tied, { disk1: 'data' })).toThrow(/belong together/);
    expect(roles(tied, { disk1: 'data', disk2: 'data' }).uses).toEqual(['system', 'data', 'data']);
  });
});
