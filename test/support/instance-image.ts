/** Disks of instances: the small Debian with data sets stripped, as the product would have left it. */
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import type { Contract } from '../../core/contract.ts';
import { type DataMode, neededBytes } from '../../core/data-set.ts';
import type { Store } from '../../drivers/stores/store.ts';
import { writeDataSet } from '../../stages/strip/write-set.ts';
import { type GuestDataSet, installGuestSide, STUB_NAME, stubText } from '../../tools/guest-side.ts';
import { openContent } from '../../tools/tree-content.ts';
import { walkTree } from '../../tools/tree-walk.ts';
import { DiskSession } from './disk-guest.ts';
import { TreeGuest } from './tree-guest.ts';

/** What is in the test's folder once it is built. */
export interface Base {
  disk: string;
  kernel: string;
  initrd: string;
}

/** Builds the guest, or takes it from the cache. Minutes the first time. */
export function baseImage(): Base {
  const script = path.resolve(import.meta.dirname, 'instance-guest.sh');
  const dir = execFileSync(script, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }).trim();
  return {
    disk: path.join(dir, 'disk.raw'),
    kernel: path.join(dir, 'vmlinuz'),
    initrd: path.join(dir, 'initrd'),
  };
}

/** Kernel arguments for that disk. */
export const KERNEL_ARGUMENTS =
  'root=/dev/vda rw console=tty0 console=ttyS0,115200 systemd.show_status=yes net.ifnames=0 random.trust_cpu=on';

/** A contract as small as can be; nothing in the instance reads it. */
const CONTRACT: Contract = {
  contract: 'port-image/1',
  critical: [],
  image: { id: 'x-1', name: 'x', version: '1', source: 'p2v' },
  facts: {
    os: { distro: 'debian', version: '12' },
    arch: 'x86_64',
    firmware: ['bios'],
    drivers: [],
    datasources: [],
    platforms: [],
  },
  needs: { minDiskGiB: 2, minRamMiB: 512, configDrive: 'optional', egress: [] },
  data: [],
  credentials: [],
  stripped: [],
};

/** Puts the tree `SOURCE/ID` into the store as data set ID of `/srv/ID`. */
export async function storeSet(
  store: Store,
  source: string,
  id: string,
  set: { mode: DataMode; neededBy: string[] },
): Promise<GuestDataSet> {
  const guest = new DiskSession(source, '/dev/null');
  const tmpDir = await fs.mkdtemp(path.join(source, '.tmp-'));
  const tree = await walkTree(guest, `/${id}`, tmpDir);
  const { manifest, sha256 } = await writeDataSet({
    store,
    id,
    path: `/srv/${id}`,
    entries: tree.entries,
    openContent: () => openContent({ guest, root: `/${id}`, map: undefined, tmpDir }),
    signal: new AbortController().signal,
    segmentBytes: 1 << 20,
  });
  await fs.rm(tmpDir, { recursive: true });
  return {
    id,
    path: `/srv/${id}`,
    ...set,
    keep: [],
    bytes: manifest.bytes,
    files: manifest.files,
    neededBytes: neededBytes(manifest),
    segments: manifest.segments.length,
    manifestSha256: sha256,
    segmentsSha256: manifest.segmentsSha256,
  };
}

/** Copies the base to `target` with the instance side for `sets`; `extra` adds to the mounted tree. */
export async function instanceDisk(
  base: Base,
  target: string,
  sets: readonly GuestDataSet[],
  extra: (root: string) => Promise<void>,
): Promise<void> {
  execFileSync('cp', ['--sparse=always', base.disk, target]);
  const root = `${target}.root`;
  await fs.mkdir(root);
  execFileSync('mount', ['-o', 'loop', target, root]);
  try {
    for (const set of sets) {
      await fs.mkdir(path.join(root, set.path), { recursive: true });
      await fs.writeFile(path.join(root, set.path, STUB_NAME), stubText(set));
      for (const unit of set.neededBy) await addService(root, unit, set.path);
    }
    const warnings: string[] = [];
    await installGuestSide(new TreeGuest(root), {
      init: 'systemd',
      contract: CONTRACT,
      dataSets: sets,
      warn: (text) => warnings.push(text),
    });
    if (warnings.length > 0) throw new Error(warnings.join('\n'));
    // Faults are waited for, so the waiting is short; how often it is tried again is the product's own.
    const dropIn = path.join(root, 'etc/systemd/system/port-image-data@.service.d');
    await fs.mkdir(dropIn);
    await fs.writeFile(path.join(dropIn, 'test.conf'), '[Service]\nEnvironment=PORT_IMAGE_WAIT=20\n');
    await extra(root);
  } finally {
    execFileSync('umount', [root]);
    await fs.rmdir(root);
  }
}

/** An application that cannot start without its data and stays once it has. */
async function addService(root: string, unit: string, needs: string): Promise<void> {
  const dir = path.join(root, 'etc/systemd/system');
  await fs.writeFile(
    path.join(dir, unit),
    `[Unit]\nDescription=Needs ${needs}\n[Service]\nExecStartPre=/usr/bin/test -e ${needs}/proof\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n`,
  );
  await fs.mkdir(path.join(dir, 'multi-user.target.wants'), { recursive: true });
  await fs.symlink(`/etc/systemd/system/${unit}`, path.join(dir, 'multi-user.target.wants', unit));
}
