/** Members of 8 GiB and more: what octal sizes cannot say. Reads and writes 8 GiB of zeros, so it takes a while. */
import { mkdtempSync, rmSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { run } from '../../../core/command.ts';
import { GIB } from '../../../core/sizes.ts';
import { guestOsOf } from '../../../tools/ova/guest-os.ts';
import { writeOva } from '../../../tools/ova/write.ts';
import { requires } from '../../support/requires.ts';

describe.skipIf(requires('tar'))('large OVA', () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'port-image-ova-'));
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  test('GNU tar reads a member of 8 GiB and what comes after it', async () => {
    const disks = [];
    for (const [name, size] of [['big.vmdk', 8 * GIB + 513] as const, ['small.vmdk', 700] as const]) {
      const file = path.join(dir, name);
      await fs.writeFile(file, '');
      await fs.truncate(file, size);
      disks.push({ path: file, virtualBytes: GIB, populatedBytes: 0 });
    }
    const ova = path.join(dir, 'big.ova');
    await fs.writeFile(ova, '');
    const machine = {
      name: 'big',
      os: { ...guestOsOf({ distro: 'debian', version: '12' }), title: 'Debian' },
      firmware: 'bios' as const,
      cpus: 1,
      memoryBytes: GIB,
    };
    await writeOva(ova, machine, disks, { signal: new AbortController().signal });
    const listing = (await run('tar', ['-tvf', ova, '--numeric-owner'])).stdout;
    const sizes = listing
      .trim()
      .split('\n')
      .map((line) => line.split(/ +/))
      .map((fields) => [fields.at(-1), Number(fields[2])]);
    expect(sizes.slice(2)).toEqual([
      ['big.vmdk', 8 * GIB + 513],
      ['small.vmdk', 700],
    ]);
  });
});
