import * as fs from 'node:fs/promises';
import { expect, test } from 'vitest';
import { relabelEdits } from '../../../stages/seal/selinux.ts';
import { makeTree } from '../../support/tree-guest.ts';

test('labels are asked for where SELinux is in use, once', async () => {
  for (const [mode, wanted] of [
    ['SELINUX=enforcing', 1],
    ['SELINUX=permissive', 1],
    ['# SELINUX=enforcing\nSELINUX=disabled', 0],
  ] as const) {
    const guest = await makeTree({ 'etc/selinux/config': `${mode}\nSELINUXTYPE=targeted\n` });
    const edits = await relabelEdits(guest);
    expect(edits.map((e) => e.path)).toEqual(wanted === 1 ? ['/.autorelabel'] : []);
    await guest.write('/.autorelabel', '');
    expect(await relabelEdits(guest)).toEqual([]);
    await fs.rm(guest.root, { recursive: true });
  }
  const none = await makeTree({});
  expect(await relabelEdits(none)).toEqual([]);
  await fs.rm(none.root, { recursive: true });
});
