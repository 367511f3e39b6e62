import { execFileSync, spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, test } from 'vitest';
import { BLOCK_BYTES, type WantedBlock } from '../../../core/disk-source.ts';
import { PortError } from '../../../core/errors.ts';
import { openMachine, type SourceMachine } from '../../../tools/source-machine/index.ts';
import { type LoopDisk, loopDisk, noLoopDevices } from '../../support/loop-disk.ts';
import { requires } from '../../support/requires.ts';
import { children } from '../../support/sshd.ts';

const missing =
  requires('losetup', 'mkfs.ext4', 'mkfs.xfs', 'fsfreeze', 'python3', 'perl') ?? noLoopDevices();
const LANGUAGES = ['python', 'perl'] as const;
const XFS_BYTES = 320 * 1024 * 1024;
const EXT4_BYTES = 16 * 1024 * 1024;

const left: (() => void | Promise<void>)[] = [];
afterEach(async () => {
  for (const undo of left.splice(0).reverse()) await undo();
});

function disk(type: 'ext4' | 'xfs', sizeBytes: number, under?: string): LoopDisk {
  const made = loopDisk(type, sizeBytes, under);
  left.push(() => {
    spawnSyncQuiet('fsfreeze', ['-u', made.mountPoint]);
    made.remove();
  });
  return made;
}

/** A file system that cannot be frozen. */
function tmpfs(): string {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'port-image-tmpfs-'));
  execFileSync('mount', ['-t', 'tmpfs', 'none', folder]);
  left.push(() => {
    execFileSync('umount', [folder]);
    rmSync(folder, { recursive: true });
  });
  return folder;
}

function spawnSyncQuiet(program: string, args: string[]): void {
  try {
    execFileSync(program, args, { stdio: 'ignore' });
  } catch {
    // not frozen any more: as it should be
  }
}

async function host(language: 'python' | 'perl'): Promise<SourceMachine> {
  const machine = await openMachine({ kind: 'host' }, { language, allowRegularFiles: true });
  left.push(() => machine.close());
  return machine;
}

/** A write in another process: resolves with true when it is through. */
function write(file: string): { through: () => boolean; done: Promise<void> } {
  const child = spawn('sh', ['-c', 'echo more >>"$1" && sync "$1"', 'sh', file], { stdio: 'ignore' });
  let through = false;
  const done = new Promise<void>((resolve) =>
    child.once('exit', (status) => {
      through = status === 0;
      resolve();
    }),
  );
  return { through: () => through, done };
}

/** Whether a write to the mounted file system waits. */
async function isFrozen(mountPoint: string): Promise<{ frozen: boolean; done: Promise<void> }> {
  const writing = write(path.join(mountPoint, 'probe'));
  await Promise.race([writing.done, sleep(400)]);
  return { frozen: !writing.through(), done: writing.done };
}

function helpers(): number[] {
  // this process -> the helper (every program of the bootstrap is replaced by the next)
  return children(process.pid).filter((pid) =>
    /sys\.stdin\.buffer\.read|sysread/.test(readFileSync(`/proc/${pid}/cmdline`, 'utf8')),
  );
}

describe.skipIf(missing).each(LANGUAGES)('freeze, the helper in %s', (language) => {
  test('writes wait until the thaw; inner mounts first; what cannot be frozen is told', async () => {
    const outer = disk('xfs', XFS_BYTES);
    mkdirSync(path.join(outer.mountPoint, 'a'));
    const inner = disk('ext4', EXT4_BYTES, path.join(outer.mountPoint, 'a'));
    const memory = tmpfs();
    const machine = await host(language);
    const found = await machine.freeze({
      mountPoints: [outer.mountPoint, memory, inner.mountPoint, `${outer.mountPoint}/not there`],
      timeoutMs: 60_000,
      hooks: false,
    });
    expect(found.frozen).toEqual([inner.mountPoint, outer.mountPoint]);
    expect(found.skipped.map((s) => s.mountPoint).sort()).toEqual(
      [memory, `${outer.mountPoint}/not there`].sort(),
    );
    const probes = await Promise.all([
      isFrozen(outer.mountPoint),
      isFrozen(inner.mountPoint),
      isFrozen(memory),
    ]);
    expect(probes.map((p) => p.frozen)).toEqual([true, true, false]);
    const thawed = await machine.thaw();
    expect(thawed).toMatchObject({ early: false, reason: undefined });
    expect(thawed.frozenMs).toBeGreaterThanOrEqual(300);
    await Promise.all(probes.map((p) => p.done));
    expect(readFileSync(path.join(inner.mountPoint, 'probe'), 'utf8')).toBe('more\n');
    // nothing is left of it: the next one is as the first
    const again = await machine.freeze({ mountPoints: [inner.mountPoint], timeoutMs: 60_000, hooks: false });
    expect(again.frozen).toEqual([inner.mountPoint]);
    expect((await machine.thaw()).early).toBe(false);
  });

  test('blocks read while it is frozen are those on the disk, not those of a stale cache', async () => {
    const xfs = disk('xfs', XFS_BYTES);
    const file = path.join(xfs.mountPoint, 'file');
    writeFileSync(file, Buffer.alloc(BLOCK_BYTES, 'before '));
    execFileSync('sync', ['-f', file]);
    // the device's page cache now holds what is about to be old
    const stale = readFileSync(xfs.device);
    const held = openSync(xfs.device, 'r');
    left.push(() => closeSync(held));
    writeFileSync(file, Buffer.alloc(BLOCK_BYTES, 'after! '), { flag: 'r+' });
    writeFileSync(path.join(xfs.mountPoint, 'new'), 'x'.repeat(100_000));
    const machine = await host(language);
    const source = await machine.disk(xfs.device);
    await machine.freeze({ mountPoints: [xfs.mountPoint], timeoutMs: 60_000, hooks: false });
    const truth = readFileSync(xfs.file);
    const at = (bytes: Buffer, index: number) =>
      bytes.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES);
    const wanted: WantedBlock[] = Array.from({ length: XFS_BYTES / BLOCK_BYTES }, (_, index) => ({
      index,
      lengthBytes: BLOCK_BYTES,
      parts: [{ startBytes: 0, lengthBytes: BLOCK_BYTES }],
    })).filter(({ index }) => !at(truth, index).equals(at(stale, index)));
    const different: number[] = [];
    for await (const { index, data } of source.readBlocks(wanted)) {
      if (!(data ?? Buffer.alloc(BLOCK_BYTES)).equals(at(truth, index))) different.push(index);
    }
    expect((await machine.thaw()).early).toBe(false);
    expect(different).toEqual([]);
    // file data and metadata both
    expect(wanted.length).toBeGreaterThanOrEqual(2);
  });

  test('the watchdog ends a freeze that takes too long, and thaw says so', async () => {
    const ext4 = disk('ext4', EXT4_BYTES);
    const machine = await host(language);
    await machine.freeze({ mountPoints: [ext4.mountPoint], timeoutMs: 4_000, hooks: false });
    const probe = await isFrozen(ext4.mountPoint);
    expect(probe.frozen).toBe(true);
    await probe.done;
    const thawed = await machine.thaw();
    expect(thawed.early).toBe(true);
    expect(thawed.reason).toContain('time');
    expect(thawed.frozenMs).toBeGreaterThanOrEqual(3_900);
  });

  test('a helper killed by SIGKILL, a lost connection: thawed at once', async () => {
    const ext4 = disk('ext4', EXT4_BYTES);
    for (const end of ['kill', 'close'] as const) {
      const machine = await host(language);
      await machine.freeze({ mountPoints: [ext4.mountPoint], timeoutMs: 3_600_000, hooks: false });
      const probe = await isFrozen(ext4.mountPoint);
      expect(probe.frozen).toBe(true);
      if (end === 'kill') {
        const pids = helpers();
        expect(pids).toHaveLength(1);
        for (const pid of pids) process.kill(pid, 'SIGKILL');
        await expect(machine.thaw()).rejects.toMatchObject({ code: 'SOURCE_REMOTE', temporary: true });
      } else {
        await machine.close();
      }
      await probe.done;
    }
    // held by nobody: can be frozen again
    execFileSync('fsfreeze', ['-f', ext4.mountPoint]);
    execFileSync('fsfreeze', ['-u', ext4.mountPoint]);
  });

  test('a killed watchdog does not leave anything frozen', async () => {
    const ext4 = disk('ext4', EXT4_BYTES);
    const machine = await host(language);
    await machine.freeze({ mountPoints: [ext4.mountPoint], timeoutMs: 3_600_000, hooks: false });
    const probe = await isFrozen(ext4.mountPoint);
    expect(probe.frozen).toBe(true);
    for (const pid of helpers().flatMap(children)) process.kill(pid, 'SIGKILL');
    await probe.done;
    expect(await machine.thaw()).toMatchObject({ early: true, reason: 'the watchdog was killed' });
  });

  test("somebody else's thaw is told: what was read is not of one moment", async () => {
    const ext4 = disk('ext4', EXT4_BYTES);
    const machine = await host(language);
    await machine.freeze({ mountPoints: [ext4.mountPoint], timeoutMs: 60_000, hooks: false });
    execFileSync('fsfreeze', ['-u', ext4.mountPoint]);
    expect(await machine.thaw()).toMatchObject({ early: true, reason: 'somebody else thawed it' });
  });

  test("somebody else's freeze stays theirs", async () => {
    const ext4 = disk('ext4', EXT4_BYTES);
    const machine = await host(language);
    execFileSync('fsfreeze', ['-f', ext4.mountPoint]);
    const found = await machine.freeze({ mountPoints: [ext4.mountPoint], timeoutMs: 60_000, hooks: false });
    expect(found).toMatchObject({ frozen: [], skipped: [{ mountPoint: ext4.mountPoint }] });
    await machine.thaw();
    const probe = await isFrozen(ext4.mountPoint);
    expect(probe.frozen).toBe(true);
    execFileSync('fsfreeze', ['-u', ext4.mountPoint]);
    await probe.done;
  });

  test('the hook of qemu-guest-agent is called before and after, also when the helper is killed', async (context) => {
    const hook = '/etc/qemu/fsfreeze-hook';
    if (existsSync(hook)) return context.skip('this machine has a hook of its own');
    const calls = path.join(os.tmpdir(), `port-image-hook-${process.pid}`);
    const folder = existsSync('/etc/qemu');
    mkdirSync('/etc/qemu', { recursive: true });
    writeFileSync(hook, `#!/bin/sh\necho "$1" >>${calls}\necho "said $1"\n[ "$1" = freeze ]\n`, {
      mode: 0o755,
    });
    left.push(
      () => rmSync(folder ? hook : '/etc/qemu', { recursive: true }),
      () => rmSync(calls, { force: true }),
    );
    const ext4 = disk('ext4', EXT4_BYTES);
    const machine = await host(language);
    const frozen = await machine.freeze({ mountPoints: [ext4.mountPoint], timeoutMs: 60_000 });
    expect(frozen.hooks).toContainEqual({ name: 'fsfreeze-hook-freeze', ok: true, text: 'said freeze' });
    expect(readFileSync(calls, 'utf8')).toBe('freeze\n');
    const thawed = await machine.thaw();
    expect(thawed.hooks).toEqual([{ name: 'fsfreeze-hook-thaw', ok: false, text: 'said thaw' }]);
    expect(thawed.warnings).toEqual(['fsfreeze-hook-thaw failed: said thaw']);
    expect(thawed.early).toBe(false);
    await machine.freeze({ mountPoints: [ext4.mountPoint], timeoutMs: 60_000 });
    for (const pid of helpers()) process.kill(pid, 'SIGKILL');
    await expect
      .poll(() => readFileSync(calls, 'utf8'), { timeout: 10_000 })
      .toBe('freeze\nthaw\nfreeze\nthaw\n');
  });
});

describe.skipIf(missing)('freezing oneself', () => {
  test.skipIf(requires('mkfs.btrfs', 'btrfs'))(
    'another subvolume of a btrfs we write to is refused',
    async () => {
      const folder = mkdtempSync(path.join(os.tmpdir(), 'port-image-btrfs-'));
      const [image, top, home] = ['disk.img', 'top', 'home'].map((n) => path.join(folder, n)) as [
        string,
        string,
        string,
      ];
      execFileSync('mkdir', [top, home]);
      execFileSync('truncate', ['-s', '256M', image]);
      execFileSync('mkfs.btrfs', ['-q', image]);
      execFileSync('mount', ['-o', 'loop', image, top]);
      left.push(() => {
        execFileSync('umount', [top]);
        rmSync(folder, { recursive: true });
      });
      execFileSync('btrfs', ['subvolume', 'create', path.join(top, 'home')], { stdio: 'ignore' });
      const device = execFileSync('findmnt', ['-no', 'SOURCE', top], { encoding: 'utf8' }).trim();
      execFileSync('mount', ['-o', 'subvol=home', device, home]);
      left.push(() => spawnSyncQuiet('umount', [home]));
      const machine = await host('python');
      const refused = machine.freeze({ mountPoints: [top], timeoutMs: 1_000, keepWritable: [home] });
      await expect(refused).rejects.toMatchObject({ code: 'USAGE' });
    },
  );

  test('a file system we write to is refused', async () => {
    const ext4 = disk('ext4', EXT4_BYTES);
    const machine = await host('python');
    const refused = machine.freeze({
      mountPoints: [ext4.mountPoint],
      timeoutMs: 1_000,
      keepWritable: [path.join(ext4.mountPoint, 'lost+found')],
    });
    await expect(refused).rejects.toThrow(PortError);
    expect((await isFrozen(ext4.mountPoint)).frozen).toBe(false);
  });
});
