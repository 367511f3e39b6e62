import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import * as path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { libguestfsEnvironment, probeKvm } from '../../../tools/kvm.ts';
import { runCli } from '../../support/cli.ts';
import { requires } from '../../support/requires.ts';

const it = test.skipIf(requires('guestfish', 'qemu-img'));

let dir = '';
beforeAll(() => {
  dir = mkdtempSync('/var/tmp/port-image-windows-');
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** Real NTFS with the folders and files of a Windows; no licence is needed for names. */
async function windowsDisk(file: string): Promise<void> {
  execFileSync('qemu-img', ['create', '-q', '-f', 'raw', file, '256M']);
  const script = [
    'run',
    'part-init /dev/sda mbr',
    'part-add /dev/sda p 2048 206847',
    'part-add /dev/sda p 206848 522239',
    'part-set-bootable /dev/sda 1 true',
    'mkfs ntfs /dev/sda1',
    'mkfs ntfs /dev/sda2',
    'mount /dev/sda1 /',
    'touch /bootmgr',
    'mkdir-p /Boot',
    'umount-all',
    'mount /dev/sda2 /',
    'mkdir-p /Windows/System32/config',
    'mkdir-p "/Program Files"',
    'touch /Windows/System32/ntoskrnl.exe',
  ].join('\n');
  execFileSync('guestfish', ['--format=raw', '-a', file], {
    input: `${script}\n`,
    env: { ...process.env, ...libguestfsEnvironment(await probeKvm()) },
  });
}

it('a disk with the folders of Windows on NTFS is refused with what to do, and stays as it is', async () => {
  const file = path.join(dir, 'windows.raw');
  await windowsDisk(file);
  const sum = () => createHash('sha256').update(readFileSync(file)).digest('hex');
  const before = sum();
  const result = await runCli(['inspect', file]);
  expect(result.exitCode, result.stderr).toBe(4);
  expect(result.stderr).toContain('/dev/sda2 holds Windows');
  expect(result.stderr).toContain('virt-v2v');
  expect(result.stdout).toBe('');
  expect(sum()).toBe(before);
});
