/** Every platform's row as it is, on a disk with a GPT, read back by programs that are not ours. */
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { run } from '../../../core/command.ts';
import type { Facts } from '../../../core/facts.ts';
import { silentLog } from '../../../core/log.ts';
import type { Platform } from '../../../core/platform.ts';
import { Request } from '../../../core/request.ts';
import { GIB, MIB } from '../../../core/sizes.ts';
import type { Progress, StageContext } from '../../../core/stage.ts';
import type { Artifact } from '../../../core/types.ts';
import { platforms } from '../../../drivers/registry.ts';
import { stage } from '../../../stages/encode/index.ts';
import { diskOf } from '../../../tools/container-disk.ts';
import { HARDWARE_VERSION } from '../../../tools/ova/descriptor.ts';
import { packedKind, planPacked } from '../../../tools/packed/index.ts';
import * as qemuImg from '../../../tools/qemu-img.ts';
import { vhdFaults } from '../../../tools/vhd-footer.ts';
import { requires } from '../../support/requires.ts';

const signal = new AbortController().signal;
const missing = requires(
  'qemu-img',
  'qemu-io',
  'qemu-storage-daemon',
  'sfdisk',
  'sgdisk',
  'tar',
  'sha256sum',
);
/** Not whole in any unit a platform asks for. */
const SYSTEM_BYTES = 97 * MIB + 1536;
const DATA_BYTES = 40 * MIB;

interface Table {
  id: string;
  partitions: { start: number; size: number; uuid: string }[];
}

async function tableOf(disk: string): Promise<Table> {
  const { stdout } = await run('sfdisk', ['--json', disk]);
  return (JSON.parse(stdout) as { partitiontable: Table }).partitiontable;
}

async function partitionDigests(disk: string, { partitions }: Table): Promise<string[]> {
  const handle = await fs.open(disk, 'r');
  try {
    return await Promise.all(
      partitions.map(async ({ start, size }) => {
        const data = Buffer.alloc(size * 512);
        await handle.read(data, 0, data.length, start * 512);
        return createHash('sha256').update(data).digest('hex');
      }),
    );
  } finally {
    await handle.close();
  }
}

describe.skipIf(missing)('every platform', () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'port-image-encode, all '));
  const [out, tmp] = [path.join(dir, 'out'), path.join(dir, 'tmp')];
  const base = path.join(dir, 'base.raw');
  const work = path.join(dir, 'work.qcow2');
  const progress: Progress[] = [];
  const warnings: string[] = [];
  let artifacts: Artifact[] = [];
  let before: Table;
  let digests: string[];

  function context(chosen: readonly Platform[], more: Partial<Request> = {}): StageContext {
    const facts = {
      disks: [
        { id: 'sda', use: 'system', virtualBytes: SYSTEM_BYTES },
        { id: 'sdb <data>', use: 'image', virtualBytes: DATA_BYTES },
      ],
      bootDisk: 0,
      firmware: 'uefi',
      os: { distro: 'debian', version: '12.5', productName: 'Debian "12" <bookworm> & more' },
      mounts: [],
      filesystems: [{ type: 'ext4', usedBytes: 9 * MIB, sizeBytes: 19 * MIB, disks: [0] }],
      candidates: [],
      hardware: { firmware: 'uefi', cpus: 3, memoryBytes: 1500 * MIB + 1, nics: [], controllers: [] },
    } as unknown as Facts;
    return {
      request: Request.parse({
        schema: 'port-image/request/1',
        source: '/disk.img',
        to: ['all'],
        name: 'web',
        store: 'file:/store',
        strip: 'none',
        network: 'dhcp',
        verify: false,
        ...more,
      }),
      paths: { dir, work, out, tmp },
      platforms: chosen,
      facts,
      signal,
      result: () => undefined,
      log: silentLog,
      progress: (event: Progress) => progress.push(event),
      change: () => {},
      warn: (text: string) => warnings.push(text),
    } as unknown as StageContext;
  }

  beforeAll(async () => {
    for (const folder of [out, tmp]) await fs.mkdir(folder);
    await fs.writeFile(base, '');
    await fs.truncate(base, SYSTEM_BYTES);
    await run('sfdisk', ['-q', base], { input: 'label: gpt\nsize=8MiB, type=U\nsize=80MiB, type=L\n' });
    await qemuImg.createOverlay({ path: base, format: 'raw' }, work);
    await run('qemu-io', ['-f', 'qcow2', '-c', 'write -P 77 10M 3M', '-c', 'write -P 1 88M 512', work]);
    const data = path.join(dir, 'work-sdb__data_.qcow2');
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', data, String(DATA_BYTES)]);
    await run('qemu-io', ['-f', 'qcow2', '-c', 'write -P 5 7M 1M', data]);
    const raw = path.join(dir, 'plain.raw');
    await run('qemu-img', ['convert', '-O', 'raw', work, raw]);
    before = await tableOf(raw);
    digests = await partitionDigests(raw, before);
    const ctx = context(platforms);
    artifacts = await stage.run(ctx, await stage.plan(ctx));
  }, 240_000);
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  const of = (platform: string, disk?: string): Artifact => {
    const found = artifacts.find((a) => a.platform === platform && a.disk === disk);
    if (found === undefined) throw new Error(`nothing for ${platform}`);
    return found;
  };

  test('one artifact for each disk and platform; an OVA holds all disks', () => {
    for (const { name, image } of platforms) {
      const disks = artifacts.filter((a) => a.platform === name).map((a) => a.disk);
      expect(disks, name).toEqual(image.container === 'ova' ? [undefined] : [undefined, 'sdb <data>']);
    }
    expect(of('vmware').members).toEqual([
      { name: 'web-disk1.vmdk', virtualBytes: 98 * MIB },
      { name: 'web-disk2.vmdk', disk: 'sdb <data>', virtualBytes: DATA_BYTES },
    ]);
    // twins share their file, and zlib is zlib whatever was asked for
    expect(of('oci').path).toBe(of('alibaba').path);
    expect(of('openstack').path).toBe(of('qemu').path);
    expect(of('openstack').path).not.toBe(of('oci').path);
    expect(warnings).toEqual([]);
  });

  test.each(platforms.map((p) => [p.name, p] as const))(
    '%s: size, format and partitions are right, and its GPT ends where the disk ends',
    async (name, { image }) => {
      const artifact = of(name);
      expect(artifact.virtualBytes % image.alignBytes).toBe(0);
      expect(artifact.virtualBytes).toBeGreaterThanOrEqual(SYSTEM_BYTES);
      const disk = await diskOf(artifact, tmp);
      const raw = path.join(dir, `${name}.raw`);
      try {
        await run('qemu-img', ['convert', '-f', disk.format, '-O', 'raw', disk.path, raw]);
      } finally {
        await disk.close();
      }
      expect((await fs.stat(raw)).size).toBe(artifact.virtualBytes);
      const after = await tableOf(raw);
      expect(after).toMatchObject({ id: before.id, partitions: [{}, {}] });
      expect(after.partitions.map((p) => [p.start, p.size, p.uuid])).toEqual(
        before.partitions.map((p) => [p.start, p.size, p.uuid]),
      );
      expect(await partitionDigests(raw, after)).toEqual(digests);
      expect((await run('sgdisk', ['--verify', raw])).stdout).toContain('No problems found');
      await fs.rm(raw);
      const file = await fs.stat(artifact.path);
      expect(file.mode & 0o777).toBe(0o600);
      const sidecar = JSON.parse(await fs.readFile(`${artifact.path}.json`, 'utf8')) as Record<
        string,
        unknown
      >;
      expect(sidecar).toMatchObject({ format: artifact.format, bytes: file.size, sha256: artifact.sha256 });
      expect(sidecar.container).toBe(image.container);
    },
  );

  test('aws: raw, whole GiB, holes stay holes', async () => {
    const { size, blocks } = await fs.stat(of('aws').path);
    expect(size).toBe(GIB);
    expect(blocks * 512).toBeLessThan(8 * MIB);
  });

  test('azure and xen: footers as specified; hyperv: 1 MiB blocks', async () => {
    const vhd = of('azure');
    expect((await fs.stat(vhd.path)).size).toBe(98 * MIB + 512);
    expect(await vhdFaults(vhd.path, { kind: 'fixed', virtualBytes: 98 * MIB })).toEqual([]);
    const dynamic = of('xen');
    expect(dynamic.virtualBytes % (2 * MIB)).toBe(0);
    expect(await vhdFaults(dynamic.path, { kind: 'dynamic', virtualBytes: 98 * MIB })).toEqual([]);
    expect((await fs.stat(dynamic.path)).size).toBeLessThan(20 * MIB);
    const { stdout } = await run('qemu-img', ['info', '-f', 'vhdx', of('hyperv').path]);
    expect(stdout).toContain('cluster_size: 1048576');
  });

  test('gcp: GNU tar lists one sparse disk.raw of a whole GiB in old GNU format', async () => {
    const { path: file } = of('gcp');
    const { stdout } = await run('tar', ['-tvzf', file, '--numeric-owner']);
    expect(stdout).toMatch(new RegExp(`^-rw-r--r-- 0/0 +${GIB} 1970-01-01 00:00 disk\\.raw\n$`));
    const header = gunzipSync(await fs.readFile(file)).subarray(0, 512);
    expect(header.toString('latin1', 257, 265)).toBe('ustar  \0');
    expect(String.fromCharCode(header[156] ?? 0)).toBe('S');
  });

  test('vmware: members in order, digests right, VMDK for a paravirtual controller', async () => {
    const ova = of('vmware').path;
    const { stdout } = await run('tar', ['-tf', ova]);
    expect(stdout.trim().split('\n')).toEqual(['web.ovf', 'web.mf', 'web-disk1.vmdk', 'web-disk2.vmdk']);
    const folder = path.join(dir, 'ova');
    await fs.mkdir(folder);
    await run('tar', ['-xf', ova, '-C', folder]);
    const manifest = await fs.readFile(path.join(folder, 'web.mf'), 'utf8');
    const sums = manifest.replace(/^SHA256\((.*)\)= ([0-9a-f]{64})$/gm, '$2  $1');
    await run('sha256sum', ['--check', '--strict', '-'], { cwd: folder, input: sums });
    const vmdk = path.join(folder, 'web-disk1.vmdk');
    const info = JSON.parse((await run('qemu-img', ['info', '--output=json', vmdk])).stdout) as object;
    expect(info).toMatchObject({
      'virtual-size': 98 * MIB,
      'format-specific': { data: { 'create-type': 'streamOptimized' } },
    });
    const descriptor = (await fs.readFile(vmdk)).toString('latin1', 512, 4096);
    expect(descriptor).toContain('ddb.adapterType = "lsilogic"');
    expect(descriptor).toContain(`ddb.virtualHWVersion = "${HARDWARE_VERSION}"`);
    expect(descriptor).toContain('SPARSE "web-disk1.vmdk"');
  });

  test('vmware: our own reader of packages finds the machine in it', async () => {
    const ova = of('vmware').path;
    expect(await packedKind(ova)).toBe('ova');
    const plan = await planPacked(ova, 'ova');
    expect(plan.warnings).toEqual([]);
    expect(plan.machine).toMatchObject({ name: 'web', firmware: 'uefi', cpus: 3, memoryBytes: 1504 * MIB });
    expect(plan.disks.map((d) => [d.name, d.capacityBytes, d.bus, d.unit])).toEqual([
      ['web-disk1.vmdk', 98 * MIB, 'scsi', 0],
      ['web-disk2.vmdk', DATA_BYTES, 'scsi', 1],
    ]);
  });

  test.skipIf(requires('govc'))('vmware: govc reads the descriptor', async () => {
    const { stdout } = await run('govc', ['import.spec', of('vmware').path]);
    const spec = JSON.parse(stdout) as { NetworkMapping: object[]; PropertyMapping: { Key: string }[] };
    expect(spec).toMatchObject({ NetworkMapping: [{ Name: 'VM Network' }] });
    expect(spec.PropertyMapping.map((p) => p.Key)).toContain('user-data');
  });

  test('progress names each file, and nothing is left beside the images', async () => {
    for (const name of ['web.ova', 'web.tar.gz', 'web.vhdx']) {
      expect(
        progress.some((p) => p.text?.includes(name)),
        name,
      ).toBe(true);
    }
    expect((await fs.readdir(out)).filter((name) => name.startsWith('.'))).toEqual([]);
    expect(await fs.readdir(tmp)).toEqual([]);
  });

  test('one that fails stops the others; no file gets a name', async () => {
    const [first] = platforms;
    if (first === undefined) throw new Error('no platform');
    const formatOptions = { subformat: 'none such' };
    const image = { ...first.image, format: 'vmdk' as const, extension: 'vmdk', formatOptions };
    const broken: Platform = { ...first, name: 'broken', image };
    const ctx = context([...platforms, broken], { name: 'never' });
    await expect(stage.run(ctx, await stage.plan(ctx))).rejects.toMatchObject({ code: 'PROGRAM_FAILED' });
    const names = await fs.readdir(out);
    expect(names.filter((name) => name.startsWith('.'))).toEqual([]);
    expect(await fs.readdir(tmp)).toEqual([]);
    const images = names.filter((name) => name.startsWith('never') && !name.endsWith('.json'));
    // what was whole before the failure may stay; each has its description
    for (const image of images) expect(names).toContain(`${image}.json`);
  });

  test('without comparison the tarball is listed, and a damaged one is found', async () => {
    const gcp = platforms.filter((p) => p.name === 'gcp');
    const ctx = context(gcp, { name: 'listed', compare: false });
    const [artifact] = await stage.run(ctx, await stage.plan(ctx));
    if (artifact === undefined) throw new Error('no artifact');
    const content = await fs.readFile(artifact.path);
    content.writeUInt8((content[content.length - 6] ?? 0) ^ 1, content.length - 6);
    const damaged = path.join(dir, 'damaged.tar.gz');
    await fs.writeFile(damaged, content);
    await expect(diskOf({ ...artifact, path: damaged }, tmp)).rejects.toMatchObject({
      code: 'PROGRAM_FAILED',
    });
    expect(await fs.readdir(tmp)).toEqual([]);
  });
});
