import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseProbe } from '../../../stages/inspect/probe.ts';
import { chooseRoot, familyOf, planMounts, refuseBroken } from '../../../stages/inspect/root.ts';
import {
  diskFacts,
  extentsOf,
  filesystemFacts,
  firmwareOf,
  volumeGroupFacts,
} from '../../../stages/inspect/storage.ts';

const recorded = (name: string) =>
  parseProbe(
    readFileSync(new URL(`../../../fixtures/recorded/inspect/${name}.probe`, import.meta.url), 'utf8'),
  );
const capture = { id: 'disk0', path: '/images/disk.raw', format: 'raw', virtualBytes: 0 };
const b64 = (text: string) => Buffer.from(text).toString('base64');

describe('a BIOS disk with LVM', () => {
  const probe = recorded('bios-lvm');
  test('table, firmware, volume group', () => {
    const disks = diskFacts(probe, [capture]);
    expect(disks).toHaveLength(1);
    expect(disks[0]).toMatchObject({ table: 'dos', virtualBytes: 8 * 1024 ** 3, path: '/images/disk.raw' });
    expect(disks[0]?.partitions.map((p) => [p.device, p.type, p.bootable])).toEqual([
      ['/dev/sda1', '0x83', true],
      ['/dev/sda2', '0x8e', false],
      ['/dev/sda3', '0x82', false],
    ]);
    expect(firmwareOf(disks)).toBe('bios');
    expect(volumeGroupFacts(probe)[0]).toMatchObject({ name: 'shop-vg', physicalVolumes: ['/dev/sda2'] });
  });
  test('file systems and where they lie', () => {
    const root = filesystemFacts(probe).find((f) => f.device === '/dev/mapper/shop--vg-root');
    expect(root).toMatchObject({ type: 'ext4', uuid: 'b2a1d0c4-70f4-4f0c-9a55-64d4c9a3e002', dirty: false });
    expect(root?.map).toEqual([
      { startBytes: 0, lengthBytes: 5632 * 1024 ** 2, disk: 0, diskOffsetBytes: 514 * 1024 ** 2 },
    ]);
    expect(filesystemFacts(probe).some((f) => f.type === 'LVM2_member')).toBe(false);
  });
  test('the root, and mounts under their old names', () => {
    const system = chooseRoot(probe, undefined);
    expect(system.look.device).toBe('/dev/mapper/shop--vg-root');
    expect(chooseRoot(probe, '/dev/shop-vg/root').look.device).toBe('/dev/mapper/shop--vg-root');
    expect(familyOf(system.release)).toBe('debian');
    // /dev/sdb1 of fstab is another disk, and optional: neither mounted nor warned about
    expect(planMounts(probe, system)).toEqual({
      mounts: [
        { path: '/', device: '/dev/mapper/shop--vg-root' },
        { path: '/boot', device: '/dev/sda1' },
      ],
      warnings: [],
    });
    expect(() => chooseRoot(probe, '/dev/sda9')).toThrow(/no system on/);
  });
});

test('a UEFI disk whose fstab has NVMe names', () => {
  const probe = recorded('uefi-xfs');
  expect(firmwareOf(diskFacts(probe, [capture]))).toBe('uefi');
  expect(planMounts(probe, chooseRoot(probe, undefined)).mounts).toEqual([
    { path: '/', device: '/dev/sda2' },
    { path: '/boot/efi', device: '/dev/sda1' },
  ]);
});

/** A disk of two partitions, each with these records. */
function disk(first: string[], second: string[] = [], types = ['ext4', 'ext4']): string {
  const table = JSON.stringify({
    partitiontable: {
      label: 'gpt',
      partitions: [
        { node: '/dev/sdb1', start: 2048, size: 4096, type: '0FC63DAF-8483-4772-8E79-3D69D8477DE4' },
        { node: '/dev/sdb2', start: 8192, size: 4096, type: '0FC63DAF-8483-4772-8E79-3D69D8477DE4' },
      ],
    },
  });
  const blkid = types.map((t, i) => `DEVNAME=/dev/sdb${i + 1}\nUUID=u${i + 1}\nTYPE=${t}\n`).join('\n');
  return [
    'disk\tsdb\t',
    'block\tsdb\t8:16\t20480\t-\t-\t',
    `table\tsdb\t${b64(table)}`,
    'block\tsdb1\t8:17\t4096\t2048\t1\t',
    'block\tsdb2\t8:18\t4096\t8192\t2\t',
    `blkid\t${b64(blkid)}`,
    ...first.map((r) => r.replaceAll('@', '/dev/sdb1')),
    ...second.map((r) => r.replaceAll('@', '/dev/sdb2')),
  ].join('\n');
}
const linux = (release: string, fstab = '') => [
  'space\t@\t4096 512 100 50',
  `file\t@\ttext\tusr/lib/os-release\t${b64(release)}`,
  `file\t@\ttext\tetc/fstab\t${b64(fstab)}`,
  'has\t@\tbin/sh\t',
  'has\t@\tsbin/init\t',
];
const DEBIAN = 'ID=debian\nPRETTY_NAME="Debian 12"\n';
const refusal = (text: string, wanted?: string) => {
  const probe = parseProbe(text);
  try {
    refuseBroken(probe);
    familyOf(chooseRoot(probe, wanted).release);
    return 'OK';
  } catch (error) {
    return (error as { code?: string }).code;
  }
};

describe('what is refused', () => {
  test('nothing, two systems, a foreign family', () => {
    expect(refusal(disk([]))).toBe('NO_OS');
    expect(refusal(disk(linux(DEBIAN)))).toBe('OK');
    expect(refusal(disk(linux(DEBIAN), linux('ID=ubuntu\n')))).toBe('SEVERAL_OS');
    expect(refusal(disk(linux(DEBIAN), linux('ID=ubuntu\n')), '/dev/sda2')).toBe('OK');
    expect(refusal(disk(linux('ID="rocky"\nID_LIKE="rhel centos fedora"\n')))).toBe('OK');
    expect(refusal(disk(linux('ID=gentoo\n')))).toBe('UNSUPPORTED_OS');
    expect(refusal(disk(linux('ID="rhel"\nVERSION_ID="6.10"\n')))).toBe('UNSUPPORTED_OS');
    expect(refusal(disk(linux('ID=linuxmint\nID_LIKE="ubuntu debian"\n')))).toBe('OK');
  });
  test('Windows, alone and beside Linux', () => {
    const windows = ['space\t@\t4096 512 100 50', 'has\t@\tWindows/System32\t'];
    expect(refusal(disk(windows))).toBe('UNSUPPORTED_OS');
    expect(refusal(disk(linux(DEBIAN), windows))).toBe('SEVERAL_OS');
    expect(refusal(disk([...windows, `file\t@\thead\thiberfil.sys\t${b64('HIBR')}`]))).toBe('HIBERNATED');
  });
  test('encrypted, hibernated, damaged', () => {
    expect(refusal(disk([], [], ['crypto_LUKS']))).toBe('ENCRYPTED');
    expect(refusal(disk([], [], ['BitLocker']))).toBe('ENCRYPTED');
    expect(refusal(disk(linux(DEBIAN), [], ['ext4', 'swsuspend']))).toBe('HIBERNATED');
    expect(refusal(disk([`failed\t@\t${b64('bad superblock')}`]))).toBe('DAMAGED');
    const lvm = { vg: [{ vg_name: 'v', vg_uuid: 'x', vg_missing_pv_count: '1' }], pv: [], lv: [] };
    expect(refusal(`${disk(linux(DEBIAN))}\nlvm\t${b64(JSON.stringify({ report: [lvm] }))}`)).toBe('DAMAGED');
  });
  test('an encrypted file system that fstab mounts', () => {
    const probe = parseProbe(
      disk(linux(DEBIAN, 'UUID=u2 /srv ext4 defaults 0 2'), [], ['ext4', 'crypto_LUKS']),
    );
    expect(() => planMounts(probe, chooseRoot(probe, undefined))).toThrow(/encrypted/);
  });
});

test('of many snapshots, the subvolume its own fstab names is the root', () => {
  const root = (sub: string) => `/dev/sdb1:${b64(sub)}`;
  const fstab = b64('UUID=u1 / btrfs subvol=/@ 0 0\nUUID=u1 /home btrfs subvol=@home 0 0\n');
  const records = ['@', '.snapshots/1/snapshot', '.snapshots/2/snapshot'].flatMap((sub) => [
    `subvolume\t/dev/sdb1\t${b64(sub)}\t`,
    `file\t${root(sub)}\ttext\tusr/lib/os-release\t${b64(DEBIAN)}`,
    `file\t${root(sub)}\ttext\tetc/fstab\t${fstab}`,
    `has\t${root(sub)}\tbin/sh\t`,
    `has\t${root(sub)}\tsbin/init\t`,
  ]);
  const probe = parseProbe(`${disk(['space\t@\t4096 512 100 50'], [], ['btrfs'])}\n${records.join('\n')}`);
  const system = chooseRoot(probe, undefined);
  expect(system.look.subvolume).toBe('@');
  expect(planMounts(probe, system).mounts).toEqual([
    { path: '/', device: '/dev/sda1', options: 'subvol=@' },
    { path: '/home', device: '/dev/sda1', options: 'subvol=@home' },
  ]);
});

describe('the map of a device', () => {
  const over = (table: string) =>
    parseProbe(`${disk([])}\nblock\tdm-0\t253:0\t3000\t-\t-\t${b64('v')}\ndm\t${b64(table)}`);
  test('pieces in any order, on two partitions', () => {
    const probe = over('v: 1000 2000 linear 8:18 100\nv: 0 1000 striped 1 128 8:17 50\n');
    expect(extentsOf(probe, '/dev/mapper/v')).toEqual([
      { startBytes: 0, lengthBytes: 1000 * 512, disk: 0, diskOffsetBytes: (2048 + 50) * 512 },
      { startBytes: 1000 * 512, lengthBytes: 2000 * 512, disk: 0, diskOffsetBytes: (8192 + 100) * 512 },
    ]);
  });
  test('is absent when bytes are not in order, missing, or outside', () => {
    for (const table of [
      'v: 0 3000 crypt aes - 0 8:17 0',
      'v: 0 3000 striped 2 128 8:17 0 8:18 0',
      'v: 0 1000 linear 8:17 0',
      'v: 0 3000 linear 8:17 2000',
      'v: 0 3000 linear 9:9 0',
      'v: 0 1000 linear 8:17 0\nv: 1000 2000 thin 8:17 1',
    ]) {
      expect(extentsOf(over(table), '/dev/mapper/v')).toBeUndefined();
    }
  });
  test('maps every byte of random layouts to the byte below', () => {
    const cuts = fc.uniqueArray(fc.integer({ min: 1, max: 2999 }), { maxLength: 5 });
    fc.assert(
      fc.property(
        cuts,
        fc.integer({ min: 0, max: 2999 }),
        fc.array(fc.integer({ min: 0, max: 1000 }), { minLength: 6, maxLength: 6 }),
        (at, byte, offsets) => {
          const edges = [0, ...at.sort((a, b) => a - b), 3000];
          const lines = edges
            .slice(0, -1)
            .map((start, i) => `v: ${start} ${(edges[i + 1] ?? 0) - start} linear 8:17 ${offsets[i] ?? 0}`);
          const extents = extentsOf(over(lines.join('\n')), '/dev/mapper/v') ?? [];
          const position = byte * 512;
          const hit = extents.find(
            (e) => position >= e.startBytes && position < e.startBytes + e.lengthBytes,
          );
          const piece = edges.findLastIndex((e) => e <= byte);
          const below = (2048 + (offsets[piece] ?? 0) + byte - (edges[piece] ?? 0)) * 512;
          expect(hit === undefined ? undefined : hit.diskOffsetBytes + position - hit.startBytes).toBe(below);
        },
      ),
    );
  });
});

test('records of any text never throw', () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.tuple(
          fc.constantFrom('block', 'table', 'file', 'has', 'lvm', 'dm', 'blkid', 'space'),
          fc.string(),
          fc.string(),
        ),
      ),
      (rows) => {
        parseProbe(rows.map((r) => r.join('\t')).join('\n'));
      },
    ),
  );
});
