/** dracut itself, from Debian's packages: what a host-only image lacks, and what it has after our configuration. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { afterAll, expect, test } from 'vitest';
import type { Facts, Kernel } from '../../core/facts.ts';
import { debian } from '../../families/debian/index.ts';
import { moduleNames } from '../../stages/inspect/boot.ts';
import { listInitramfs } from '../../tools/initramfs.ts';
import { packageTree } from '../support/package-tree.ts';
import { requires } from '../support/requires.ts';
import { sampleFacts, type TreeSession } from '../support/tree-guest.ts';

const missing = process.getuid?.() === 0 ? requires('mmdebstrap', 'unshare', 'chroot') : 'not root';
const DRIVERS = ['nvme', 'xen_blkfront', 'hv_storvsc', 'vmw_pvscsi', 'virtio_blk', 'virtio_scsi'];
/** Drivers no machine that runs these tests has; a host-only image must lack at least one kind, else it proves nothing. */
const FOREIGN = ['xen_blkfront', 'hv_storvsc', 'vmw_pvscsi'];
let guest: TreeSession | undefined;
afterAll(async () => {
  if (guest !== undefined) await fs.rm(guest.root, { recursive: true, force: true });
});

async function kernelOf(root: string): Promise<Kernel> {
  const version = (await fs.readdir(path.join(root, 'lib/modules')))[0] ?? '';
  const text = (name: string) => fs.readFile(path.join(root, 'lib/modules', version, name), 'utf8');
  return {
    version,
    image: `/boot/vmlinuz-${version}`,
    initramfs: `/boot/initrd.img-${version}`,
    inBootMenu: true,
    isDefault: true,
    builtin: moduleNames(await text('modules.builtin')),
    modules: moduleNames(await text('modules.dep')),
    initramfsModules: [],
    initramfsCompression: 'gzip',
  };
}

const list = (root: string, kernel: Kernel) =>
  listInitramfs(path.join(root, kernel.initramfs ?? ''), new AbortController().signal);

test.skipIf(missing)(
  'a Debian guest with dracut gets an initramfs that fits every platform',
  async (context) => {
    try {
      guest = await packageTree(['dracut', 'linux-image-amd64', 'lvm2', 'e2fsprogs', 'kmod', 'zstd']);
    } catch (error) {
      context.skip(`the packages of dracut cannot be had: ${String(error).slice(0, 200)}`);
      return;
    }
    const kernel = await kernelOf(guest.root);
    const facts: Facts = sampleFacts({
      kernels: [kernel],
      volumeGroups: [
        {
          name: 'shop-vg',
          uuid: 'u',
          physicalVolumes: ['/dev/sda2'],
          logicalVolumes: [{ name: 'root', device: '/dev/shop-vg/root', sizeBytes: 2 ** 30 }],
        },
      ],
    });
    // The owner's own wishes: host-only, and a driver left out.
    await guest.write(
      '/etc/dracut.conf.d/10-owner.conf',
      'hostonly="yes"\nomit_drivers+=" floppy vmw_pvscsi "\n',
    );
    await guest.guest('dracut -f -q --compress "gzip -1" "$1" "$2"', [
      kernel.initramfs ?? '',
      kernel.version,
    ]);
    const before = await list(guest.root, kernel);
    for (const driver of FOREIGN) expect(before.modules).not.toContain(driver);

    const edits = await debian.configureInitramfs(guest, DRIVERS, facts);
    expect(edits.map((e) => e.path)).toEqual([
      '/etc/dracut.conf.d/10-owner.conf',
      '/etc/dracut.conf.d/zz-port-image.conf',
    ]);
    for (const edit of edits) await guest.write(edit.path, edit.after ?? '');
    expect(await debian.configureInitramfs(guest, DRIVERS, facts)).toEqual([]);

    const build = await debian.rebuildInitramfs(guest, kernel);
    expect(build.repackLevel).toBe(9);
    const after = await list(guest.root, kernel);
    expect(after.compression).toBe('gzip');
    for (const driver of DRIVERS) expect(after.modules).toContain(driver);
    expect(after.files.some((f) => /etc\/cmdline\.d\/.*\.conf$/.test(f))).toBe(true);
    expect(after.files.some((f) => f.endsWith('bin/lvm'))).toBe(true);
    expect(await guest.kind(`${kernel.initramfs}.port-image-new`)).toBe('missing');

    // A build that fails leaves the image that was there.
    await expect(debian.rebuildInitramfs(guest, { ...kernel, version: '0.0-none' })).rejects.toThrow();
    expect((await list(guest.root, kernel)).bytes).toBe(after.bytes);
  },
);
