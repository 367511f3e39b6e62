/**
 * A guest on a real disk image, loop-mounted on this machine: what appliance scripts do to it is done here with the
 * same programs. For tests of our own small images only; the product never mounts a guest on the host.
 */
import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import type { Filesystem } from '../../core/facts.ts';
import { TreeSession } from './tree-guest.ts';

/** A TreeSession whose appliance scripts really run, and whose source is the image. */
export class DiskSession extends TreeSession {
  readonly image: string;

  constructor(root: string, image: string) {
    super(root);
    this.image = image;
  }

  override async appliance(script: string, args: readonly (string | Buffer)[] = []): Promise<string> {
    await fs.mkdir(path.join(this.root, 'run/port-image'), { recursive: true });
    // Arguments go through a file: Node would turn other bytes than UTF-8 into something else.
    const quoted = args.map((a) => {
      const text = Buffer.from(a)
        .toString('latin1')
        .replace(/^\/sysroot/, this.root);
      return `'${text.replaceAll("'", "'\\''")}'`;
    });
    // Two scripts may run at once.
    const file = path.join(this.root, `run/port-image/script-${randomUUID()}.sh`);
    await fs.writeFile(file, Buffer.from(`set -- ${quoted.join(' ')}\n${script}`, 'latin1'));
    return execFileSync('sh', [file], {
      encoding: 'utf8',
      maxBuffer: 1 << 26,
      env: { PATH: `${process.env.PATH}:/usr/sbin` },
    });
  }

  override sourceFile(): Promise<string> {
    return Promise.resolve(this.image);
  }
}

/** Why no image can be mounted here, or undefined. */
export function cannotMount(): string | undefined {
  return process.getuid?.() === 0 ? undefined : 'needs root to mount a loop device';
}

/** Makes an image of `type`, mounts it and lets `fill` put a tree in; `close` removes everything. */
export async function diskGuest(
  type: 'ext4' | 'xfs' | 'btrfs',
  fill: (root: string) => void | Promise<void>,
  sizeMiB = 512,
): Promise<{ session: DiskSession; filesystem: Filesystem; dir: string; close: () => Promise<void> }> {
  const dir = await fs.mkdtemp(path.join(os.tmpdir(), 'disk-guest-'));
  const image = path.join(dir, 'disk.raw');
  const root = path.join(dir, 'root');
  await fs.mkdir(root);
  execFileSync('truncate', ['-s', `${sizeMiB}M`, image]);
  execFileSync(`mkfs.${type}`, ['-q', ...(type === 'ext4' ? ['-O', 'inline_data'] : []), image], {
    env: { PATH: `${process.env.PATH}:/usr/sbin` },
    stdio: 'ignore',
  });
  execFileSync('mount', ['-o', 'loop', image, root]);
  const close = async () => {
    execFileSync('umount', [root]);
    await fs.rm(dir, { recursive: true, force: true });
  };
  try {
    await fill(root);
    execFileSync('sync', ['-f', root]);
    // What was written through the mount must be readable through the file.
    execFileSync('umount', [root]);
    execFileSync('mount', ['-o', 'loop', image, root]);
  } catch (error) {
    await close().catch(() => {});
    throw error;
  }
  const size = sizeMiB * 2 ** 20;
  return {
    session: new DiskSession(root, image),
    filesystem: {
      device: '/dev/sda',
      type,
      uuid: '',
      label: '',
      sizeBytes: size,
      map: [{ startBytes: 0, lengthBytes: size, disk: 0, diskOffsetBytes: 0 }],
    },
    dir,
    close,
  };
}
