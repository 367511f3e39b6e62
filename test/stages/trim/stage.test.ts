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
    return what.includes('mkswap') ? '1048576\n' : '0\n';
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
  expect(guest.calls.map((c) => c.args)).toContainEqual([
    '/dev/sda3',
    'c6a4a6f1-1e2b-4a57-9d8f-7e5d4c3b2a04',
    '',
  ]);
  await fs.rm(guest.root, { recursive: true });
});
