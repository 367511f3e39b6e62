/** A Debian 12 system with some packages as a folder, and a session that runs programs in it. Needs root. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { promisify } from 'node:util';
import { TreeSession } from './tree-guest.ts';

const run = promisify(execFile);

/** What a tree is made from; its digest names the cached tree. */
const recipe = (packages: readonly string[]): string[] => [
  '--variant=minbase',
  `--include=${packages.join(',')}`,
  '--aptopt=Acquire::Languages "none"',
  '--dpkgopt=path-exclude=/usr/share/doc/*',
  '--dpkgopt=path-exclude=/usr/share/locale/*',
  '--dpkgopt=path-exclude=/usr/share/man/*',
  'bookworm',
];

/** Makes the tree in the cache when it is not there. Throws when the packages cannot be had. */
async function cachedTree(packages: readonly string[]): Promise<string> {
  const cache =
    process.env.PORT_IMAGE_CACHE ??
    path.join(process.env.XDG_CACHE_HOME ?? path.join(os.homedir(), '.cache'), 'port-image');
  const key = createHash('sha256').update(recipe(packages).join('\n')).digest('hex').slice(0, 16);
  const tree = path.join(cache, 'fixtures', `${packages[0]}-tree-${key}`);
  if (await fs.stat(tree).catch(() => undefined)) return tree;
  await fs.mkdir(path.dirname(tree), { recursive: true });
  const made = `${tree}.${process.pid}`;
  try {
    // `INITRD=No` keeps a kernel's hooks from building an initramfs.
    const env = { ...process.env, INITRD: 'No', LC_ALL: 'C' };
    await run('mmdebstrap', [...recipe(packages), made], { env, maxBuffer: 64 * 1024 * 1024 });
    await fs.rename(made, tree);
  } catch (error) {
    await fs.rm(made, { recursive: true, force: true });
    throw error;
  }
  return tree;
}

/** `$1` is the tree; the rest is what runs in it. dracut is host-only just where /sys, /proc, /dev and /run are mounts. */
const ENTER = `
set -e
root=$1
shift
mount --make-rprivate /
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount --bind "$root/run" "$root/run"
exec chroot "$root" /bin/sh -c "$@"
`;

/** A private copy of the cached tree whose `guest()` really runs, in a mount namespace of its own. */
export async function packageTree(packages: readonly string[]): Promise<TreeSession> {
  const tree = await cachedTree(packages);
  const dir = await fs.mkdtemp(path.join(os.tmpdir(), 'package-tree-'));
  await run('cp', ['-a', '--reflink=auto', `${tree}/.`, dir]);
  const guest = new TreeSession(dir);
  const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C', HOME: '/root' };
  guest.answer = async ({ where, what, args }) => {
    if (where === 'call' && what === 'tar-in') {
      const [tar = '', target = ''] = args;
      await run('tar', ['-C', path.join(dir, target), '-xf', tar]);
      return '';
    }
    if (where !== 'guest') throw new Error(`not in a tree: ${where}`);
    const command = ['--mount', '/bin/sh', '-c', ENTER, 'enter', dir, what, 'sh', ...args];
    const { stdout, stderr } = await run('unshare', command, { env, maxBuffer: 64 * 1024 * 1024 });
    return stdout + stderr;
  };
  return guest;
}
