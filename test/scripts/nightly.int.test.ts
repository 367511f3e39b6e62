import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { changedBlocks, nights, noNights } from '../support/nightly.ts';

const run = promisify(execFile);

/** What debugfs shows of a file on the second partition. */
async function cat(disk: string, file: string): Promise<string> {
  const { stdout } = await run('debugfs', ['-R', `cat ${file}`, `${disk}?offset=1048576`], {
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
    maxBuffer: 2 ** 26,
  });
  return stdout;
}

test.skipIf(noNights())(
  'between two nights one package was upgraded in place, and little moved',
  async () => {
    const both = await nights();
    expect(existsSync(both.raw[1])).toBe(true);
    const version = async (disk: string) =>
      new RegExp(`^Package: ${both.package}\\n(?:.+\\n)*?Version: (.+)$`, 'm').exec(
        await cat(disk, '/var/lib/dpkg/status'),
      )?.[1];
    expect(await version(both.raw[0])).toBe(both.older);
    expect(await version(both.raw[1])).toBe(both.newer);
    expect(both.older).not.toBe(both.newer);
    const changed = await changedBlocks(...both.raw);
    expect(changed).toBeGreaterThan(4);
    expect(changed).toBeLessThan(80);
    for (const [at, disk] of both.raw.entries()) {
      const compared = await run('qemu-img', [
        'compare',
        '-f',
        'raw',
        '-F',
        'qcow2',
        disk,
        both.qcow2[at] ?? '',
      ]);
      expect(compared.stdout).toContain('Images are identical.');
    }
  },
);
