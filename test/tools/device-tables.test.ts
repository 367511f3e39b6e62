import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DeviceNames, parseDiskName } from '../../tools/device-names.ts';
import { editCrypttab, editFstab, escapeField, parseTableLine, unescapeField } from '../../tools/fstab.ts';
import { sampleFacts } from '../support/tree-guest.ts';

const names = (change = {}) => new DeviceNames(sampleFacts(change));
const BOOT = 'UUID=8f0f9c5a-6a53-4d27-a3bb-2b0f6a1f5c01';
const SWAP = 'UUID=c6a4a6f1-1e2b-4a57-9d8f-7e5d4c3b2a04';

describe('device names', () => {
  test.each([
    ['/dev/sda1', 'sda', 0, 1],
    ['/dev/sdb', 'sdb', 1, undefined],
    ['/dev/sdaa3', 'sdaa', 26, 3],
    ['/dev/xvda1', 'xvda', 0, 1],
    ['/dev/nvme0n1p2', 'nvme0n1', 0, 2],
    ['/dev/nvme1n1', 'nvme1n1', 1, undefined],
    ['/dev/mmcblk0p1', 'mmcblk0', 0, 1],
    ['/dev/cciss/c0d1p2', 'cciss/c0d1', 1, 2],
    ['/dev/disk/by-id/ata-ST_1-part3', 'disk/by-id/ata-ST_1', undefined, 3],
    ['/dev/disk/by-path/pci-0:1-part1', 'disk/by-path/pci-0:1', undefined, 1],
  ])('%s', (device, disk, index, partition) => {
    expect(parseDiskName(device)).toEqual({ disk, index, partition });
  });
  test.each([
    '/dev/mapper/shop--vg-root',
    '/dev/shop-vg/root',
    '/dev/md0',
    'UUID=1',
    'LABEL=x',
    'tmpfs',
    'nas:/export',
    '/dev/disk/by-id/dm-name-shop--vg-root',
    '/dev/disk/by-label/x',
  ])('%s is no hardware name', (device) => {
    expect(parseDiskName(device)).toBeUndefined();
  });
  test('a name is learned from its mount point', () => {
    const known = names();
    known.learn('/dev/nvme3n1p1', '/boot');
    expect(known.resolve('/dev/nvme3n1p3', 'swap')).toMatchObject({ kind: 'known', spec: SWAP });
    // sda cannot be that disk as well
    expect(known.resolve('/dev/sda3', 'swap').kind).toBe('unknown');
  });
  test('types guard against mistakes', () => {
    expect(names().resolve('/dev/sda1', 'swap').kind).toBe('unknown');
    expect(names().resolve('/dev/sda1', 'ext3').kind).toBe('known');
    expect(names().resolve('/dev/disk/by-id/wwn-0x5000-part3', 'swap')).toMatchObject({ spec: SWAP });
    expect(names().resolve('UUID=ffffffff-0000-0000-0000-000000000000').kind).toBe('absent');
    expect(names().resolve('/dev/sr0').kind).toBe('removable');
  });
  test('without a UUID the partition is named', () => {
    const filesystems = [
      { device: '/dev/sda3', type: 'swap', uuid: '', label: '', partUuid: '5e1f0a2b-03', sizeBytes: 1 },
    ];
    expect(names({ filesystems }).resolve('/dev/sda3', 'swap')).toMatchObject({
      spec: 'PARTUUID=5e1f0a2b-03',
    });
  });
});

describe('fstab', () => {
  test('every kind of line, all other bytes kept', () => {
    const before = `# <file system> <mount point>
/dev/mapper/shop--vg-root /               ext4    errors=remount-ro 0       1
# /boot was on /dev/sda1 during installation
/dev/sda1\t/boot\text4\tdefaults\t0\t2
/dev/sda3       none            swap    sw              0       0
/dev/sdb1       /mnt/archive    ext4    noatime,nofail,x-systemd.device-timeout=5s 0 2
/dev/sdb2       /mnt/more    ext4    defaults 0 2   # old
UUID=ffffffff-1111-2222-3333-444444444444 /mnt/gone xfs
/dev/sr0        /media/cdrom0   udf,iso9660 user,noauto     0       0
/dev/sr1        /media/cdrom1   udf,iso9660 user     0       0
nas:/export /mnt/nas nfs defaults 0 0

tmpfs /tmp tmpfs nosuid 0 0`;
    const { text, warnings } = editFstab(before, names());
    expect(text).toBe(`# <file system> <mount point>
/dev/mapper/shop--vg-root /               ext4    errors=remount-ro 0       1
# /boot was on /dev/sda1 during installation
${BOOT}\t/boot\text4\tdefaults\t0\t2
${SWAP}       none            swap    sw              0       0
/dev/sdb1       /mnt/archive    ext4    noatime,nofail,x-systemd.device-timeout=5s 0 2
/dev/sdb2       /mnt/more    ext4    defaults,nofail,x-systemd.device-timeout=10s 0 2   # old
UUID=ffffffff-1111-2222-3333-444444444444 /mnt/gone xfs defaults,nofail,x-systemd.device-timeout=10s
/dev/sr0        /media/cdrom0   udf,iso9660 user,noauto     0       0
/dev/sr1        /media/cdrom1   udf,iso9660 user,nofail     0       0
nas:/export /mnt/nas nfs defaults 0 0

tmpfs /tmp tmpfs nosuid 0 0`);
    expect(warnings).toHaveLength(3);
    expect(editFstab(text, names()).text).toBe(text);
  });
  test('the mount point decides, whatever the old name was', () => {
    expect(editFstab('/dev/sdq1 /boot ext4 ro 0 0', names()).text).toBe(`${BOOT} /boot ext4 ro 0 0`);
  });
  test('a stick that is called like a disk of the server is left alone', () => {
    const text = '/dev/sda1 /media/usb auto rw,user,noauto 0 0';
    const before = `UUID=8f0f9c5a-6a53-4d27-a3bb-2b0f6a1f5c01 /boot ext4 defaults 0 2\n${text}`;
    expect(editFstab(before, names()).text).toBe(before);
  });
  test('crypttab', () => {
    const { text, warnings } = editCrypttab('# c\nx /dev/sda3  none luks\ny /dev/sdd1 none\n', names());
    expect(text).toBe(`# c\nx ${SWAP}  none luks\ny /dev/sdd1 none\n`);
    expect(warnings).toHaveLength(1);
  });
  test('any text without hardware names comes back byte for byte', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        fc.pre(!/dev|UUID/i.test(text));
        expect(editFstab(text, names()).text).toBe(text);
      }),
    );
  });
  test('fields survive escaping', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme-ascii', minLength: 1 }), (field) => {
        const escaped = escapeField(field);
        expect(unescapeField(escaped)).toBe(field);
        expect(parseTableLine(`${escaped} x`)?.fields.map((f) => f.text)).toEqual([escaped, 'x']);
      }),
    );
  });
});
