/** Loop devices with file systems on them: real disks for tests that run as root. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';

/** A loop device that may be mounted. */
export interface LoopDisk {
  /** `/dev/loop3`. */
  device: string;
  /** The file behind it: what is on the disk for sure. */
  file: string;
  /** Where its file system is mounted. */
  mountPoint: string;
  /** Unmounts, detaches, removes. */
  remove(): void;
}

/** The reason why there are no loop devices here, or undefined. */
export function noLoopDevices(): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root';
  try {
    execFileSync('losetup', ['-f'], { stdio: 'ignore' });
    return undefined;
  } catch {
    return 'no loop devices';
  }
}

/** Attaches a file. */
function attach(file: string): string {
  return execFileSync('losetup', ['-f', '--show', file], { encoding: 'utf8' }).trim();
}

/** A new disk of so many bytes with a file system, mounted for writing; below `under` when given. */
export function loopDisk(type: 'ext4' | 'xfs', sizeBytes: number, under?: string): LoopDisk {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'port-image-loop-'));
  const file = path.join(folder, 'disk.img');
  const mountPoint = under ?? path.join(folder, 'mnt');
  mkdirSync(mountPoint, { recursive: true });
  writeFileSync(file, '');
  truncateSync(file, sizeBytes);
  execFileSync(`mkfs.${type}`, ['-q', file], { stdio: 'ignore' });
  const device = attach(file);
  try {
    execFileSync('mount', [device, mountPoint]);
  } catch (error) {
    execFileSync('losetup', ['-d', device]);
    throw error;
  }
  return {
    device,
    file,
    mountPoint,
    remove() {
      execFileSync('umount', [mountPoint]);
      execFileSync('losetup', ['-d', device]);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
