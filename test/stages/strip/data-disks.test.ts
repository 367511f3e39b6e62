import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { describe, expect, test } from 'vitest';
import { buildContract } from '../../../core/contract.ts';
import type { DataSetSummary } from '../../../core/data-set.ts';
import type { Facts } from '../../../core/facts.ts';
import { openstack } from '../../../drivers/openstack/index.ts';
import { planOutputs } from '../../../stages/encode/plan.ts';
import { deviceEdits } from '../../../stages/guest-drivers/device-edits.ts';
import { dataDiskChoices, detachDisk, spaceWarning } from '../../../stages/strip/data-disks.ts';
import { stage as trim } from '../../../stages/trim/index.ts';
import { cannotMount, diskGuest } from '../../support/disk-guest.ts';
import { makeContext, makeTree, sampleFacts, TreeSession } from '../../support/tree-guest.ts';

const UUID = '11111111-2222-4333-8444-555555555555';
const SWAP = '99999999-2222-4333-8444-555555555555';

/** The sample server with a second disk: a file system at `mount`, and swap. */
function twoDisks(use: 'data' | 'image', mount: string | undefined, change: Partial<Facts> = {}): Facts {
  const base = sampleFacts();
  const partition = (number: number) => ({
    number,
    device: `/dev/sdb${number}`,
    startBytes: number * 2 ** 20,
    sizeBytes: 2 ** 29,
    type: '0x83',
    bootable: false,
  });
  const filesystem = (device: string, type: string, uuid: string) => ({
    device,
    type,
    uuid,
    label: '',
    sizeBytes: 2 ** 29,
    ...(type === 'swap' ? {} : { usedBytes: 2 ** 28 }),
    disks: [1],
  });
  return {
    ...base,
    disks: [
      ...base.disks,
      {
        id: 'sdb',
        use,
        path: '/b.raw',
        format: 'raw',
        virtualBytes: 2 ** 30,
        table: 'dos',
        partitions: [partition(1), partition(2)],
      },
    ],
    filesystems: [
      ...base.filesystems.map((f) => ({ ...f, disks: [0] })),
      filesystem('/dev/sdb1', 'ext4', UUID),
      filesystem('/dev/sdb2', 'swap', SWAP),
    ],
    mounts: [...base.mounts, ...(mount === undefined ? [] : [{ path: mount, device: '/dev/sdb1' }])],
    ...change,
  };
}

const paths = (facts: Facts) => dataDiskChoices({ dataMode: 'eager' }, facts).map((c) => c.path);

describe('a disk that becomes data sets', () => {
  test('what the guest mounts of it is taken as a whole, swap is not', () => {
    expect(paths(twoDisks('data', '/srv/archive'))).toEqual(['/srv/archive']);
    expect(paths(twoDisks('data', '/home'))).toEqual(['/home']);
    expect(paths(twoDisks('image', '/srv/archive'))).toEqual([]);
  });

  test('what would be lost is refused by name', () => {
    expect(() => paths(twoDisks('data', undefined))).toThrow(
      /sdb cannot become data sets: \/dev\/sdb1 \(ext4, .*\) is mounted nowhere/,
    );
    const facts = twoDisks('data', '/srv');
    const unknown = { ...facts, filesystems: facts.filesystems.filter((f) => f.type !== 'swap') };
    unknown.filesystems = unknown.filesystems.filter((f) => f.device !== '/dev/sdb2');
    expect(() => paths(unknown)).toThrow(/\/dev\/sdb2 .*no file system that is known/);
    const inner = { ...facts, mounts: [...facts.mounts, { path: '/srv/x', device: '/dev/sda9' }] };
    expect(() => paths(inner)).toThrow(/another file system is mounted in \/srv: \/srv\/x/);
    const part = {
      ...facts,
      mounts: facts.mounts.map((m) => (m.path === '/srv' ? { ...m, options: 'subvol=a' } : m)),
    };
    expect(() => paths(part)).toThrow(/only a part/);
    expect(() => paths(twoDisks('data', '/etc/ssl'))).toThrow(/belongs to the system/);
  });

  test('the room it needs is told, and asked for in the contract', () => {
    expect(spaceWarning(twoDisks('data', '/srv'))).toBeUndefined();
    const facts = twoDisks('data', '/srv');
    for (const f of facts.filesystems) if (f.device === facts.root) f.freeBytes = 2 ** 20;
    expect(spaceWarning(facts)).toMatch(/root file system, which has 1\.0 MiB free/);
    const { request } = makeContext({
      stage: 'strip',
      guest: new TreeSession('/'),
      facts,
      platforms: [openstack],
    });
    const set = {
      id: 'a',
      path: '/srv',
      bytes: 5 * 2 ** 30,
      rule: 'disk',
      manifest: { key: 'k', sha256: '0' },
    };
    const dataSets = [{ ...set, neededBy: [] } as unknown as DataSetSummary];
    const contract = buildContract({ facts, request, platforms: [openstack], dataSets, version: '1' });
    expect(contract.needs.minDiskGiB).toBe(8 + 5);
    expect(contract.disks).toBeUndefined();
    const images = buildContract({
      facts: twoDisks('image', '/srv'),
      request,
      platforms: [openstack],
      dataSets: [],
      version: '1',
    });
    expect(images.disks).toEqual([{ id: 'sdb', bytes: 2 ** 30, required: false }]);
    expect(images.needs.minDiskGiB).toBe(8);
  });
});

describe('fstab', () => {
  const lines = [
    '/dev/mapper/shop--vg-root / ext4 errors=remount-ro 0 1',
    `UUID=${UUID}\t/srv  ext4 noatime 0 2`,
    `UUID=${SWAP} none swap sw 0 0`,
    'UUID=c6a4a6f1-1e2b-4a57-9d8f-7e5d4c3b2a04 none swap sw 0 0',
  ];
  const edited = async (facts: Facts) => {
    const guest = await makeTree({ 'etc/fstab': `${lines.join('\n')}\n` });
    const { edits } = await deviceEdits(guest, facts);
    await fs.rm(guest.root, { recursive: true });
    return edits.find((e) => e.path === '/etc/fstab')?.after?.split('\n');
  };

  test('entries of a disk that became data are set aside, others stay', async () => {
    expect(await edited(twoDisks('data', '/srv'))).toEqual([
      lines[0],
      `# port-image: now a data set: ${lines[1]}`,
      `# port-image: swap on a disk that did not come along: ${lines[2]}`,
      lines[3],
      '',
    ]);
  });

  test('the first start does not wait for the image of a further disk', async () => {
    const after = await edited(twoDisks('image', '/srv'));
    expect(after?.[1]).toBe(`UUID=${UUID}\t/srv  ext4 noatime,nofail 0 2`);
    expect(after?.[2]).toBe(lines[2]);
  });
});

test('images have the id in their names; trim leaves disks alone that are not there any more', async () => {
  expect(planOutputs({ name: 'shop', encoding: 'zstd' }, [openstack], 'sdb')).toMatchObject([
    { file: 'shop-sdb.qcow2', disk: 'sdb' },
  ]);
  const facts = twoDisks('data', '/srv');
  const guest = new TreeSession('/');
  const context = makeContext({ stage: 'trim', guest, facts, platforms: [openstack] });
  const plan = await trim.plan(context);
  expect(plan.filesystems.map((f) => f.path)).toEqual(['/', '/boot']);
  expect(plan.swaps.map((s) => s.device)).toEqual(['/dev/sda3']);
});

test.skipIf(cannotMount())(
  'taking the disk away leaves keys, owner, mode and a note in the folder below',
  async () => {
    const guest = await diskGuest(
      'ext4',
      async (root) => {
        await fs.chmod(root, 0o751);
        await fs.mkdir(path.join(root, 'home/ann/.ssh'), { recursive: true, mode: 0o700 });
        await fs.mkdir(path.join(root, 'run'));
        await fs.writeFile(path.join(root, 'home/ann/.ssh/authorized_keys'), 'key', { mode: 0o600 });
        await fs.writeFile(path.join(root, 'home/ann/large'), 'data');
        await fs.chown(path.join(root, 'home/ann'), 1000, 1000);
      },
      64,
    );
    try {
      // The "disk" is the folder that is mounted; taking it away moves it aside, as an umount shows what is below.
      const { session } = guest;
      session.call = async (command, args = []) => {
        expect([command, ...args.map(String)]).toEqual(['umount', '/home']);
        await fs.rename(path.join(session.root, 'home'), path.join(session.root, 'gone'));
        return '';
      };
      await fs.chmod(path.join(session.root, 'home'), 0o751);
      await detachDisk(session, {
        id: 'x',
        path: '/home',
        mode: 'eager',
        neededBy: [],
        keep: ['ann/.ssh'],
        bytes: 1,
        files: 2,
        neededBytes: 1,
        segments: 1,
        manifestSha256: '0',
        segmentsSha256: '0',
      });
      const home = path.join(session.root, 'home');
      expect((await fs.readdir(home)).sort()).toEqual(['PORT-IMAGE-DATA.txt', 'ann']);
      expect(await fs.readdir(path.join(home, 'ann'))).toEqual(['.ssh']);
      expect(await fs.readFile(path.join(home, 'ann/.ssh/authorized_keys'), 'utf8')).toBe('key');
      const modeOf = async (name: string) => (await fs.stat(path.join(home, name))).mode & 0o7777;
      expect([await modeOf('.'), await modeOf('ann/.ssh'), await modeOf('ann/.ssh/authorized_keys')]).toEqual(
        [0o751, 0o700, 0o600],
      );
      expect((await fs.stat(path.join(home, 'ann'))).uid).toBe(1000);
    } finally {
      await guest.close();
    }
  },
);
