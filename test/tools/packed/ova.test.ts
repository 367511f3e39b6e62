import { existsSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { packedKind, planPacked, unpack } from '../../../tools/packed/index.ts';
import { requires } from '../../support/requires.ts';
import { gnuTar, manifestLine, streamOptimized, vmwareOvf } from './package-samples.ts';

describe.skipIf(requires('qemu-img', 'tar'))('OVA', () => {
  let dir: string;
  let out: string;
  beforeEach(async () => {
    dir = mkdtempSync(path.join(tmpdir(), 'port-image-ova-'));
    out = path.join(dir, 'out dir');
    await fs.mkdir(out);
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  test.each(['sha1', 'sha256', 'sha512'])('as ovftool makes it, manifest of %s', async (algorithm) => {
    const disk = await streamOptimized(dir);
    const file = path.join(dir, 'no-extension');
    const ovf = vmwareOvf([{ href: 'shop01-disk1.vmdk', file: `ovf:size="${disk.length}"` }]);
    const mf =
      manifestLine(algorithm.toUpperCase(), 'shop01.ovf', ovf) +
      manifestLine(algorithm.toUpperCase(), 'shop01-disk1.vmdk', disk);
    await gnuTar(file, [
      ['shop01.ovf', ovf],
      ['shop01.mf', mf],
      ['shop01-disk1.vmdk', disk],
    ]);
    expect(await packedKind(file)).toBe('ova');
    const plan = await planPacked(file, 'ova');
    expect(plan.warnings).toEqual([]);
    expect(plan.machine).toEqual({
      name: 'shop01 & co',
      firmware: 'uefi',
      guestOsId: 'debian10_64Guest',
      cpus: 4,
      memoryBytes: 8192 * 1024 * 1024,
      nics: [{ mac: undefined, model: 'VmxNet3', network: 'VM Network' }],
      controllers: [{ bus: 'scsi', number: 0, model: 'VirtualSCSI' }],
    });
    expect(plan.disks).toMatchObject([
      {
        id: 'disk0',
        name: 'shop01-disk1.vmdk',
        format: 'vmdk',
        bus: 'scsi',
        unit: 0,
        bootHint: true,
        capacityBytes: 8 << 20,
      },
    ]);
    const [unpacked] = await unpack(plan, out);
    expect(unpacked).toMatchObject({ id: 'disk0', format: 'vmdk', written: true, sizeBytes: disk.length });
    expect((await fs.readFile(path.join(out, 'disk0'))).equals(disk)).toBe(true);
    expect(statSync(path.join(out, 'disk0')).mode & 0o777).toBe(0o600);
    expect(readdirSync(out).sort()).toEqual(['disk0', 'disk0.json']);

    const before = statSync(path.join(out, 'disk0'));
    expect(await unpack(plan, out)).toEqual([{ ...unpacked, written: false }]);
    expect(statSync(path.join(out, 'disk0')).ino).toBe(before.ino);
    await fs.writeFile(path.join(out, 'disk0'), 'changed');
    expect(await unpack(plan, out)).toEqual([unpacked]);
  });

  test('a wrong digest leaves nothing, and the disks before it stay', async () => {
    const disk = await streamOptimized(dir);
    const file = path.join(dir, 'two.ova');
    const ovf = vmwareOvf([{ href: 'a.vmdk' }, { href: 'b.vmdk' }]);
    const mf = manifestLine('SHA256', 'a.vmdk', disk) + manifestLine('SHA256', 'b.vmdk', 'other');
    await gnuTar(file, [
      ['two.ovf', ovf],
      ['two.mf', mf],
      ['b.vmdk', disk],
      ['a.vmdk', disk],
    ]);
    const plan = await planPacked(file, 'ova');
    expect(plan.disks.map((d) => [d.id, d.name])).toEqual([
      ['disk0', 'a.vmdk'],
      ['disk1', 'b.vmdk'],
    ]);
    await expect(unpack(plan, out)).rejects.toMatchObject({
      code: 'DAMAGED',
      message: expect.stringContaining('b.vmdk is damaged: it has not the sha256'),
    });
    expect(readdirSync(out).sort()).toEqual(['disk0', 'disk0.json']);
  });

  test.each([
    'two words.vmdk',
    'it\'s $(id) "x".vmdk',
    'new\nline.vmdk',
    '-rf.vmdk',
    'json:{}.vmdk',
    'größe.vmdk',
  ])('a disk named %j', async (name) => {
    const disk = await streamOptimized(dir);
    for (const format of ['ustar', 'gnu', 'posix']) {
      const file = path.join(dir, `odd-${format}`);
      await gnuTar(
        file,
        [
          ['x.ovf', vmwareOvf([{ href: name }])],
          [name, disk],
        ],
        format,
      );
      const plan = await planPacked(file, 'ova');
      expect(plan.disks[0]?.name).toBe(name);
      expect(plan.warnings).toEqual([expect.stringContaining('no manifest')]);
      await unpack(plan, out);
      expect((await fs.readFile(path.join(out, 'disk0'))).equals(disk)).toBe(true);
    }
  });

  test('a file compressed inside, named by an escaped href', async () => {
    const disk = await streamOptimized(dir);
    const packed = gzipSync(disk);
    const file = path.join(dir, 'x.ova');
    const ovf = vmwareOvf([
      { href: 'two%20words.gz', file: `ovf:compression="gzip" ovf:size="${packed.length}"` },
    ]);
    await gnuTar(file, [
      ['x.ovf', ovf],
      ['x.mf', manifestLine('SHA256', 'two words.gz', packed) + manifestLine('SHA256', 'x.ovf', ovf)],
      ['two words.gz', packed],
    ]);
    const plan = await planPacked(file, 'ova');
    expect(plan.warnings).toEqual([]);
    await unpack(plan, out);
    expect((await fs.readFile(path.join(out, 'disk0'))).equals(disk)).toBe(true);
  });

  test('changed between plan and unpacking', async () => {
    const disk = await streamOptimized(dir);
    const file = path.join(dir, 'x.ova');
    await gnuTar(file, [
      ['x.ovf', vmwareOvf([{ href: 'a.vmdk' }])],
      ['a.vmdk', disk],
    ]);
    const plan = await planPacked(file, 'ova');
    await fs.appendFile(file, 'x');
    await expect(unpack(plan, out)).rejects.toMatchObject({ code: 'SOURCE_CHANGED' });
    expect(readdirSync(out)).toEqual([]);
  });

  test('an OVF folder, by its folder and by its descriptor', async () => {
    const disk = await streamOptimized(dir);
    const folder = path.join(dir, 'vm');
    await fs.mkdir(folder);
    const ovf = vmwareOvf([{ href: 'a.vmdk' }]);
    await fs.writeFile(path.join(folder, 'x.ovf'), ovf);
    await fs.writeFile(
      path.join(folder, 'x.mf'),
      manifestLine('SHA1', 'x.ovf', ovf) + manifestLine('SHA1', 'a.vmdk', disk),
    );
    await fs.writeFile(path.join(folder, 'a.vmdk'), disk);
    for (const source of [folder, path.join(folder, 'x.ovf')]) {
      expect(await packedKind(source)).toBe('ovf');
      const plan = await planPacked(source, 'ovf');
      expect(plan.warnings).toEqual([]);
      await unpack(plan, out);
      expect((await fs.readFile(path.join(out, 'disk0'))).equals(disk)).toBe(true);
    }
    await fs.rename(path.join(folder, 'a.vmdk'), path.join(dir, 'elsewhere'));
    await fs.symlink('../elsewhere', path.join(folder, 'a.vmdk'));
    await expect(planPacked(folder, 'ovf')).rejects.toMatchObject({ code: 'UNSAFE_PATH' });
    expect(existsSync(path.join(folder, 'x.mf'))).toBe(true);
  });
});
