import * as fs from 'node:fs/promises';
import { expect, test } from 'vitest';
import { platformsNamed } from '../../../drivers/registry.ts';
import { stage } from '../../../stages/trim/index.ts';
import { makeContext, makeTree, sampleFacts } from '../../support/tree-guest.ts';

test('trims each file system once and makes swap anew with its UUID', async () => {
  const guest = await makeTree({});
  const facts = sampleFacts({
    volumeGroups: [{ name: 'shop-vg', uuid: 'u', physicalVolumes: [], logicalVolumes: [] }],
  });
  facts.mounts.push({ path: '/srv', device: '/dev/sda1' });
  const ctx = makeContext({ stage: 'trim', guest, facts, platforms: platformsNamed(['qemu']) });
  const plan = await stage.plan(ctx);
  expect(guest.calls).toEqual([]);
  guest.answer = ({ what, args }) => {
    if (what.includes('fstrim')) return args[0] === '/boot' ? 'unsupported\n' : '4096\n';
    if (what === 'vfs-uuid') return 'c6a4a6f1-1e2b-4a57-9d8f-7e5d4c3b2a04\n';
    return what === 'blockdev-getsize64' ? '1048576\n' : '0\n';
  };
  const result = await stage.run(ctx, plan);
  expect(result).toEqual({
    trimmedBytes: 4096,
    filesystems: [
      { path: '/', bytes: 4096 },
      { path: '/boot', bytes: undefined },
    ],
    swapBytes: 1048576,
    volumeGroupBytes: 0,
  });
  const onSwap = guest.calls
    .filter((c) => c.args[0] === '/dev/sda3')
    .map((c) => [c.what, ...c.args.slice(1)]);
  expect(onSwap).toEqual([
    ['vfs-uuid'],
    ['blkdiscard'],
    ['mkswap', 'uuid:c6a4a6f1-1e2b-4a57-9d8f-7e5d4c3b2a04'],
    ['vfs-uuid'],
    ['blockdev-getsize64'],
  ]);
  guest.calls.length = 0;
  guest.answer = ({ what }) => (what === 'vfs-uuid' ? 'ffffffff-4f0c-4d3f-8b61-3d0f3f4d2b11\n' : '0\n');
  await expect(stage.run(ctx, plan)).rejects.toMatchObject({ code: 'APPLIANCE' });
  expect(guest.calls.map((c) => c.what)).not.toContain('blkdiscard');
  await fs.rm(guest.root, { recursive: true });
});
