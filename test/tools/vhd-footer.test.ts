import { mkdtempSync, rmSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { run } from '../../core/command.ts';
import { MIB } from '../../core/sizes.ts';
import { footerFaults, vhdFaults } from '../../tools/vhd-footer.ts';
import { requires } from '../support/requires.ts';

const dir = mkdtempSync(path.join(tmpdir(), 'port-image-vhd-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

async function make(name: string, options: string, bytes: number): Promise<string> {
  const file = path.join(dir, name);
  await run('qemu-img', ['create', '-q', '-f', 'vpc', '-o', options, file, String(bytes)]);
  return file;
}

describe.skipIf(requires('qemu-img'))('VHD footers of qemu-img', () => {
  test.each(['fixed', 'dynamic'] as const)('%s with force_size: no fault', async (kind) => {
    const file = await make(`${kind}.vhd`, `subformat=${kind},force_size=on`, 34 * MIB);
    expect(await vhdFaults(file, { kind, virtualBytes: 34 * MIB })).toEqual([]);
    const other = kind === 'fixed' ? 'dynamic' : 'fixed';
    expect(await vhdFaults(file, { kind: other, virtualBytes: 34 * MIB })).not.toEqual([]);
  });

  test('without force_size the size is rounded to cylinders: a fault', async () => {
    const file = await make('chs.vhd', 'subformat=fixed', 34 * MIB);
    const faults = await vhdFaults(file, { kind: 'fixed', virtualBytes: 34 * MIB });
    expect(faults.join()).toMatch(/current size is \d+, not 35651584/);
  });

  test('a file that was cut, and one whose first footer differs', async () => {
    const fixed = await make('cut.vhd', 'subformat=fixed,force_size=on', 4 * MIB);
    await fs.truncate(fixed, 4 * MIB);
    expect(await vhdFaults(fixed, { kind: 'fixed', virtualBytes: 4 * MIB })).toContain(
      'the file has 4194304 bytes, not the disk and 512',
    );
    const dynamic = await make('copy.vhd', 'subformat=dynamic,force_size=on', 4 * MIB);
    const handle = await fs.open(dynamic, 'r+');
    await handle.write(Buffer.from([1]), 0, 1, 200);
    await handle.close();
    expect(await vhdFaults(dynamic, { kind: 'dynamic', virtualBytes: 4 * MIB })).toEqual([
      'the copy of the footer at the start differs',
    ]);
  });

  test('any flipped bit is a fault', async () => {
    const file = await make('bits.vhd', 'subformat=fixed,force_size=on', 2 * MIB);
    const footer = (await fs.readFile(file)).subarray(-512);
    const expected = { kind: 'fixed', virtualBytes: 2 * MIB } as const;
    expect(footerFaults(footer, expected)).toEqual([]);
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 511 }), fc.integer({ min: 0, max: 7 }), (at, bit) => {
        const copy = Buffer.from(footer);
        copy[at] = (copy[at] ?? 0) ^ (1 << bit);
        expect(footerFaults(copy, expected)).not.toEqual([]);
      }),
    );
  });
});
