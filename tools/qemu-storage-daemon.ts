/** qemu-storage-daemon: shows a disk of any format as a plain read-only file, through FUSE. */
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { lastLine, type RunningProcess, run, start } from '../core/command.ts';
import { PortError } from '../core/errors.ts';
import { exists } from '../core/files.ts';
import type { Log } from '../core/log.ts';
import { printable } from '../core/text.ts';
import type { ImageRef } from './qemu-img.ts';

/** A disk shown as a file. */
export interface DiskExport {
  /** Regular file with the disk's bytes; holes are holes (SEEK_DATA works). */
  readonly path: string;
  /** Ends the daemon and removes the file. Safe to call twice; never throws for a daemon that died. */
  stop(): Promise<void>;
}

/** What an export may be given. */
export interface ExportOptions {
  signal?: AbortSignal | undefined;
  log?: Log | undefined;
}

/** Opening even a large qcow2 takes well under a second; a loaded machine may need more. */
const READY_TIMEOUT_MS = 60_000;

async function waitReady(daemon: RunningProcess, pidFile: string, signal?: AbortSignal): Promise<boolean> {
  // the daemon writes its pid file when every export stands
  for (const deadline = Date.now() + READY_TIMEOUT_MS; Date.now() < deadline; ) {
    signal?.throwIfAborted();
    if (await exists(pidFile)) return true;
    if (!daemon.running()) return false;
    await sleep(20);
  }
  return false;
}

/** True when something is mounted on exactly this path. */
async function isMounted(target: string): Promise<boolean> {
  const mounts = await fs.readFile('/proc/self/mountinfo', 'utf8');
  // the kernel writes space, tab, newline and backslash of a path as \ooo
  const escaped = target.replace(/[\s\\]/g, (c) => `\\${c.charCodeAt(0).toString(8).padStart(3, '0')}`);
  return mounts.split('\n').some((line) => line.split(' ')[4] === escaped);
}

async function cleanUp(folder: string, mountPoint: string): Promise<void> {
  // a daemon that was killed leaves a dead mount: every access to it fails until it is detached
  if (await isMounted(mountPoint)) {
    await run('umount', ['--lazy', '--', mountPoint], { okStatus: [0, 1, 32], timeoutMs: 10_000 });
  }
  await fs.rm(folder, { recursive: true, force: true });
}

/**
 * Shows `image` read-only as a file in a new folder below `tmpDir`, until `stop()` or `signal`. The image is opened
 * with its named format, never probed. Throws PROGRAM_MISSING, PROGRAM_FAILED (with the daemon's words), INTERRUPTED.
 */
export async function exportDisk(
  image: ImageRef,
  tmpDir: string,
  options: ExportOptions = {},
): Promise<DiskExport> {
  const { signal, log } = options;
  const driver = (await fs.stat(image.path)).isBlockDevice() ? 'host_device' : 'file';
  const folder = path.join(await fs.realpath(tmpDir), `export-${randomBytes(6).toString('hex')}`);
  await fs.mkdir(folder, { mode: 0o700 });
  const mountPoint = path.join(folder, 'disk.raw');
  const pidFile = path.join(folder, 'pid');
  const stderrFile = path.join(folder, 'stderr');
  await fs.writeFile(mountPoint, '', { mode: 0o600 });
  const file = { driver, filename: image.path, 'node-name': 'file', 'read-only': true };
  const disk = { driver: image.format, 'node-name': 'disk', 'read-only': true, file: 'file' };
  const fuse = { type: 'fuse', id: 'disk', 'node-name': 'disk', mountpoint: mountPoint, writable: false };
  const args = [
    ...['--blockdev', JSON.stringify(file), '--blockdev', JSON.stringify(disk)],
    ...['--export', JSON.stringify(fuse), '--pidfile', pidFile],
  ];
  let daemon: RunningProcess | undefined;
  let stopping: Promise<void> | undefined;
  const stop = () => {
    stopping ??= (async () => {
      await daemon?.stop();
      await cleanUp(folder, mountPoint);
    })();
    return stopping;
  };
  try {
    // setpriv: the daemon ends with us even when we are killed, and takes its mount along
    const argv = ['--pdeathsig', 'TERM', '--', 'qemu-storage-daemon', ...args];
    daemon = await start('setpriv', argv, { signal, stderrFile });
    if (!(await waitReady(daemon, pidFile, signal))) {
      const why = lastLine(await fs.readFile(stderrFile, 'utf8')) || 'no message';
      throw new PortError(
        'PROGRAM_FAILED',
        `qemu-storage-daemon cannot show ${printable(image.path)}: ${why}`,
        {
          hint: 'is /dev/fuse there? run: port-image doctor',
        },
      );
    }
    // a daemon that dies later must not leave its mount behind
    void daemon.exited.then(stop).catch(() => {});
    log?.debug('disk exported', { image: image.path, path: mountPoint });
    return { path: mountPoint, stop };
  } catch (error) {
    await stop();
    if (signal?.aborted) throw new PortError('INTERRUPTED', 'stopped', { cause: error });
    throw error;
  }
}

/** Detaches exports a killed run left below `dir`, so the folder can be removed. */
export async function detachStale(dir: string): Promise<void> {
  for (const name of await fs.readdir(dir).catch(() => [])) {
    if (/^export-[0-9a-f]{12}$/.test(name)) {
      await cleanUp(path.join(dir, name), path.join(dir, name, 'disk.raw'));
    }
  }
}
