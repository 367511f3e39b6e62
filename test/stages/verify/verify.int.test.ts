/** Boots real machines: images that cannot boot must fail quickly and by name, and leave nothing behind. */
import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { run } from '../../../core/command.ts';
import { sha256File } from '../../../core/files.ts';
import { qemu } from '../../../drivers/qemu/index.ts';
import { verifyFailed, verifyImage } from '../../../stages/verify/verify-image.ts';
import { requires } from '../../support/requires.ts';

const missing = requires('qemu-system-x86_64', 'qemu-img', 'xorriso', 'setpriv');
let dir = '';

beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'verify-int-'));
  // What is left behind is looked for where no other test puts anything.
  await mkdir(path.join(dir, 'tmp'));
  vi.stubEnv('TMPDIR', path.join(dir, 'tmp'));
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(dir, { recursive: true, force: true });
});

/** A disk with a partition table's signature and no boot loader. */
async function emptyDisk(): Promise<string> {
  const image = path.join(dir, 'no loader, really.qcow2');
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', image, '64M']);
  return image;
}

/** Folders of running machines and verifications of this test. */
async function leftovers(): Promise<string[]> {
  return (await readdir(tmpdir())).filter((name) => /^port-image-(vm|verify|seed)-/.test(name));
}

test.skipIf(missing)(
  'a disk without a boot loader fails by name within seconds',
  { timeout: 120_000 },
  async () => {
    const image = await emptyDisk();
    const before = { sha256: await sha256File(image), leftovers: await leftovers() };
    const logs = path.join(dir, 'logs');
    const result = await verifyImage({ image, format: 'qcow2', platform: qemu, firmware: 'bios', logs });
    expect(result.verified).toBe(false);
    expect(result.checks[0]).toMatchObject({ name: 'boot', ok: false });
    expect(result.checks[0]?.detail).toContain('no boot device');
    const error = verifyFailed([result]);
    expect([error.code, error.exitStatus]).toEqual(['VERIFY_FAILED', 7]);
    expect(error.message).toContain('no boot device');
    // The log and the picture are kept, the image is as it was, nothing else is left.
    expect((await stat(result.serialLog)).size).toBeGreaterThan(0);
    expect((await readFile(result.screenshot ?? '')).subarray(1, 4).toString()).toBe('PNG');
    expect(await sha256File(image)).toBe(before.sha256);
    expect((await leftovers()).filter((name) => !before.leftovers.includes(name))).toEqual([]);
  },
);

test.skipIf(missing)('an interrupted verification stops its machine', { timeout: 120_000 }, async () => {
  const image = await emptyDisk();
  const stop = new AbortController();
  const verification = verifyImage({
    image,
    format: 'qcow2',
    platform: qemu,
    firmware: 'bios',
    logs: path.join(dir, 'logs'),
    signal: stop.signal,
  });
  setTimeout(() => stop.abort(), 1_500);
  await expect(verification).rejects.toMatchObject({ code: 'INTERRUPTED' });
  expect(await machinesOf(image)).toEqual([]);
});

test.skipIf(missing)('killing this program leaves no machine running', { timeout: 120_000 }, async () => {
  const image = await emptyDisk();
  const root = path.resolve(import.meta.dirname, '../../..');
  const script = `
    const { startMachine } = await import(${JSON.stringify(path.join(root, 'tools/qemu-system.ts'))});
    const { qemu } = await import(${JSON.stringify(path.join(root, 'drivers/qemu/index.ts'))});
    await startMachine({ image: { path: process.argv[1], format: 'qcow2' }, diskBytes: 2 ** 26, firmware: 'bios',
      boot: qemu.boot, accelerator: 'tcg', scratch: process.argv[2], consoleLog: process.argv[2] + '/console',
      onReportLine: () => {} });
    console.log('running');
  `;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script, image, dir], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await new Promise((resolve) => child.stdout.once('data', resolve));
  expect((await machinesOf(dir)).length).toBe(1);
  child.kill('SIGKILL');
  await expect.poll(() => machinesOf(dir), { timeout: 10_000 }).toEqual([]);
});

/** Process ids of QEMUs that work on files whose path contains `text`. */
async function machinesOf(text: string): Promise<string[]> {
  const found: string[] = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const line = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    if (line.startsWith('qemu-system') && line.includes(text)) found.push(pid);
  }
  return found;
}
