import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { run } from '../../../core/command.ts';
import { goodDisk } from '../../../fixtures/hostile/build.ts';
import { packedKind, planPacked, unpack } from '../../../tools/packed/index.ts';
import { sourceDigest } from '../../../tools/source-digest.ts';
import { requires } from '../../support/requires.ts';

const vmx = (more: string) => `.encoding = "UTF-8"
config.version = "8"
virtualHW.version = "19"
displayName = "shop |22one|22"
guestOS = "debian11-64"
firmware = "efi"
memSize = "4096"
numvcpus = "2"
scsi0.present = "TRUE"
scsi0.virtualDev = "pvscsi"
ide1:0.present = "TRUE"
ide1:0.deviceType = "cdrom-image"
ide1:0.fileName = "/isos/install.iso"
ethernet0.present = "TRUE"
ethernet0.virtualDev = "vmxnet3"
ethernet0.networkName = "VM Network"
ethernet0.generatedAddress = "00:0C:29:AB:CD:EF"
${more}
`;

describe.skipIf(requires('qemu-img'))('VMware folders and split disks', () => {
  let dir: string;
  let folder: string;
  let out: string;
  beforeEach(async () => {
    dir = mkdtempSync(path.join(tmpdir(), 'port-image-vmx-'));
    folder = path.join(dir, 'vm folder');
    out = path.join(dir, 'out');
    await fs.mkdir(folder);
    await fs.mkdir(out);
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  const make = async (name: string, subformat: string, sizeBytes = 8 << 20) => {
    const raw = path.join(dir, 'content.raw');
    await fs.writeFile(raw, goodDisk());
    await fs.truncate(raw, sizeBytes);
    const args = [
      'convert',
      '-f',
      'raw',
      '-O',
      'vmdk',
      '-o',
      `subformat=${subformat}`,
      raw,
      path.join(folder, name),
    ];
    await run('qemu-img', args);
    return raw;
  };
  const failure = async (source: string) => {
    const kind = await packedKind(source);
    if (kind === undefined) throw new Error('no package');
    const error: unknown = await planPacked(source, kind)
      .then((plan) => unpack(plan, out))
      .then(
        () => undefined,
        (e: unknown) => e,
      );
    expect(readdirSync(out)).toEqual([]);
    return error;
  };

  test('a folder with several disks of several types', async () => {
    await make('boot disk.vmdk', 'monolithicFlat');
    await make('data.vmdk', 'monolithicSparse');
    await fs.writeFile(
      path.join(folder, 'shop.vmx'),
      vmx(`sata0:1.present = "TRUE"
sata0:1.fileName = "data.vmdk"
scsi0:10.present = "FALSE"
scsi0:10.fileName = "gone.vmdk"
scsi0:2.present = "true"
SCSI0:2.fileName = "boot disk.vmdk"`),
    );
    expect(await packedKind(folder)).toBe('vmx');
    const plan = await planPacked(folder, 'vmx');
    expect(plan.machine).toEqual({
      name: 'shop "one"',
      firmware: 'uefi',
      guestOsId: 'debian11-64',
      cpus: 2,
      memoryBytes: 4 * 1024 ** 3,
      nics: [{ mac: '00:0c:29:ab:cd:ef', model: 'vmxnet3', network: 'VM Network' }],
      controllers: [{ bus: 'scsi', number: 0, model: 'pvscsi' }],
    });
    expect(plan.disks).toMatchObject([
      {
        id: 'disk0',
        name: 'boot disk.vmdk',
        bus: 'scsi',
        controller: 0,
        unit: 2,
        format: 'raw',
        bootHint: true,
      },
      { id: 'disk1', name: 'data.vmdk', bus: 'sata', unit: 1, format: 'vmdk', bootHint: false },
    ]);
    const [boot] = await unpack(plan, out);
    expect((await fs.readFile(path.join(out, 'disk0'))).equals(goodDisk())).toBe(true);
    const data = await fs.readFile(path.join(folder, 'data.vmdk'));
    expect((await fs.readFile(path.join(out, 'disk1'))).equals(data)).toBe(true);
    expect((await sourceDigest(path.join(out, 'disk0'), { kind: 'blocks' })).sha256).toBe(boot?.blocksSha256);
    expect((await unpack(plan, out)).map((d) => d.written)).toEqual([false, false]);
  });

  test.each(['monolithicFlat', 'twoGbMaxExtentSparse', 'twoGbMaxExtentFlat'])(
    '%s comes out as qemu-img reads it',
    async (subformat) => {
      const sizeBytes = 5 * 1024 ** 3 - 512 * 7;
      const raw = await make('disk.vmdk', subformat, sizeBytes);
      const source = path.join(folder, 'disk.vmdk');
      expect(await packedKind(source)).toBe('vmdk-descriptor');
      const plan = await planPacked(source, 'vmdk-descriptor');
      const [disk] = await unpack(plan, out);
      const target = path.join(out, 'disk0');
      expect(disk).toMatchObject({ sizeBytes, format: 'raw' });
      expect(statSync(target).blocks * 512).toBeLessThan(9 << 20);
      await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', raw, target]);
      expect((await sourceDigest(target, { kind: 'blocks' })).sha256).toBe(disk?.blocksSha256);
      expect(await unpack(plan, out)).toEqual([{ ...disk, written: false }]);
    },
  );

  test('grains in any order, zero grains and a guest that wrote all over', async () => {
    const raw = await make('disk.vmdk', 'twoGbMaxExtentSparse', 64 << 20);
    const source = path.join(folder, 'disk.vmdk');
    // writes from back to front give descending grains; zero writes give grains of zeros
    for (const at of [60, 44, 33, 32, 20, 9]) {
      await run('qemu-io', ['-f', 'vmdk', '-c', `write -P ${at} ${at}M 300k`, source]);
      await run('qemu-io', ['-f', 'raw', '-c', `write -P ${at} ${at}M 300k`, raw]);
    }
    await run('qemu-io', ['-f', 'vmdk', '-c', 'write -P 0 33M 64k', source]);
    await run('qemu-io', ['-f', 'raw', '-c', 'write -P 0 33M 64k', raw]);
    await unpack(await planPacked(source, 'vmdk-descriptor'), out);
    await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', raw, path.join(out, 'disk0')]);
  });

  test('extents of zeros, and a huge disk, cost nothing', async () => {
    await fs.writeFile(path.join(folder, 'x.vmdk'), goodDisk());
    await fs.writeFile(
      path.join(folder, 'd'),
      `# Disk DescriptorFile\nversion=1\nparentCID=ffffffff\ncreateType="twoGbMaxExtentFlat"\nRW ${(8 << 20) / 512} FLAT "x.vmdk" 0\nRW 42949672960 ZERO\n`,
    );
    const [disk] = await unpack(await planPacked(path.join(folder, 'd'), 'vmdk-descriptor'), out).catch(
      (e) => {
        // file systems end at 8 EiB or at 16 TiB (ext4)
        if (e.code === 'HOST_IO') return [{ sizeBytes: (8 << 20) + 42949672960 * 512 }];
        throw e;
      },
    );
    expect(disk?.sizeBytes).toBe((8 << 20) + 42949672960 * 512);
  });

  const descriptor = (lines: string, more = '') =>
    `# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType="monolithicFlat"\n${more}\n${lines}\nddb.adapterType = "ide"\n`;

  test.each([
    ['a path', 'RW 16384 FLAT "/etc/passwd" 0', 'OUTSIDE_REFERENCE'],
    ['a path upwards', 'RW 16384 FLAT "../secret" 0', 'UNSAFE_PATH'],
    ['a device of Windows', 'RW 16384 FLAT "\\\\.\\PhysicalDrive0" 0', 'OUTSIDE_REFERENCE'],
    ['a URL', 'RW 16384 FLAT "http://127.0.0.1/x" 0', 'OUTSIDE_REFERENCE'],
    ['a link', 'RW 16384 FLAT "link" 0', 'UNSAFE_PATH'],
    ['a pipe', 'RW 16384 FLAT "pipe" 0', 'UNSAFE_PATH'],
    ['the parent folder', 'RW 16384 FLAT ".." 0', 'UNSAFE_PATH'],
    ['no file', 'RW 16384 FLAT "missing" 0', 'DAMAGED'],
    ['no name', 'RW 16384 FLAT', 'UNSAFE_PATH'],
    ['a short file', 'RW 16385 FLAT "x.vmdk" 0', 'DAMAGED'],
    ['a long file', 'RW 16383 FLAT "x.vmdk" 0', 'DAMAGED'],
    ['an offset', 'RW 16384 FLAT "x.vmdk" 8', 'UNSAFE_IMAGE'],
    ['a file twice', 'RW 16384 FLAT "x.vmdk" 0\nRW 16384 FLAT "x.vmdk" 0', 'UNSAFE_IMAGE'],
    ['no sparse extent', 'RW 16384 SPARSE "x.vmdk"', 'DAMAGED'],
    ['a COWD extent', 'RW 16384 VMFSSPARSE "x.vmdk"', 'UNSUPPORTED_FORMAT'],
    ['SEsparse', 'RW 16384 SESPARSE "x.vmdk"', 'UNSUPPORTED_FORMAT'],
    ['a raw device', 'RW 16384 VMFSRDM "x.vmdk"', 'UNSUPPORTED_FORMAT'],
    ['no extent', '', 'EMPTY_DISK'],
    ['nobody’s size', 'RW 999999999999999 ZERO', 'UNSAFE_IMAGE'],
    ['no size', 'RW 0 ZERO\nRW 16384 FLAT "x.vmdk" 0', 'DAMAGED'],
    ['another line', 'RW 16384 FLAT "x.vmdk" 0\ninclude = "/etc/passwd"', 'UNSAFE_IMAGE'],
    ['a parent', 'RW 16384 FLAT "x.vmdk" 0\nparentFileNameHint="base.vmdk"', 'OUTSIDE_REFERENCE'],
  ])('refuses %s', async (_, lines, code) => {
    await fs.writeFile(path.join(folder, 'x.vmdk'), goodDisk());
    await fs.symlink('x.vmdk', path.join(folder, 'link'));
    await run('mkfifo', [path.join(folder, 'pipe')]);
    await fs.writeFile(path.join(folder, 'd'), descriptor(lines));
    expect(await failure(path.join(folder, 'd'))).toMatchObject({ code });
  });

  test('refuses snapshots, encrypted machines, host devices, keys with two values', async () => {
    await make('disk.vmdk', 'monolithicFlat');
    const disk = 'scsi0:0.present = "TRUE"\nscsi0:0.fileName = "disk.vmdk"\n';
    const cases: [string, string][] = [
      ['scsi0:0.present = "TRUE"\nscsi0:0.fileName = "/vmfs/volumes/x/disk.vmdk"', 'OUTSIDE_REFERENCE'],
      ['scsi0:0.present = "TRUE"\nscsi0:0.fileName = "|2e|2e|2fdisk.vmdk"', 'UNSAFE_PATH'],
      [`${disk}scsi0:0.deviceType = "rawDisk"`, 'UNSUPPORTED_FORMAT'],
      [`${disk}encryption.keySafe = "vmware:key/list/..."`, 'ENCRYPTED'],
      [`${disk}scsi0:0.fileName = "other.vmdk"`, 'DAMAGED'],
      [`${disk}scsi0:1.present = "TRUE"\nscsi0:1.fileName = "disk.vmdk"`, 'DAMAGED'],
      ['', 'NOT_A_DISK'],
    ];
    for (const [lines, code] of cases) {
      await fs.writeFile(path.join(folder, 'shop.vmx'), vmx(lines));
      expect(await failure(folder), lines).toMatchObject({ code });
    }
    await fs.writeFile(
      path.join(folder, 'disk-000001.vmdk'),
      descriptor('RW 16384 VMFSSPARSE "disk-000001-delta.vmdk"', 'parentFileNameHint="disk.vmdk"'),
    );
    await fs.writeFile(path.join(folder, 'shop.vmx'), vmx(disk.replace('disk.vmdk', 'disk-000001.vmdk')));
    expect(await failure(folder)).toMatchObject({
      code: 'OUTSIDE_REFERENCE',
      hint: expect.stringMatching(/snapshots/),
    });
  });

  test('wild grains and a piece changed after the plan', async () => {
    await make('disk.vmdk', 'twoGbMaxExtentSparse');
    const source = path.join(folder, 'disk.vmdk');
    const piece = path.join(folder, 'disk-s001.vmdk');
    const plan = await planPacked(source, 'vmdk-descriptor');
    await fs.appendFile(piece, Buffer.alloc(512));
    await expect(unpack(plan, out)).rejects.toMatchObject({ code: 'SOURCE_CHANGED' });
    const good = await fs.readFile(piece);
    const table = good.readUInt32LE(good.readUInt32LE(56) * 512) * 512;
    good.writeUInt32LE(0x7fff_ffff, table + 40 * 4);
    await fs.writeFile(piece, good);
    expect(await failure(source)).toMatchObject({ code: 'DAMAGED' });
    expect(readdirSync(out)).toEqual([]);
  });
});
