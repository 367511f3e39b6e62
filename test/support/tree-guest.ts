/** A guest that is a folder on this machine, and a stage context that records. For unit tests. */
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import type { Facts } from '../../core/facts.ts';
import type { FileKind, GuestFiles, GuestSession, WriteOptions } from '../../core/guest.ts';
import { silentLog } from '../../core/log.ts';
import type { Platform } from '../../core/platform.ts';
import { CaptureOptions, type Request } from '../../core/request.ts';
import type { Change, StageContext, StageName } from '../../core/stage.ts';

/** GuestFiles over a folder. Absolute links are followed inside it. */
export class TreeGuest implements GuestFiles {
  readonly root: string;

  constructor(root: string) {
    this.root = root;
  }

  /** The host path of a guest path, every link resolved inside the tree (the last part only with `follow`). */
  async host(guestPath: string, follow = true): Promise<string> {
    let parts = guestPath.split('/').filter((p) => p !== '' && p !== '.');
    const done: string[] = [];
    for (let hops = 0; parts.length > 0; ) {
      const [next = '', ...rest] = parts;
      parts = rest;
      if (next === '..') {
        done.pop();
        continue;
      }
      const here = path.join(this.root, ...done, next);
      const target = await fs.readlink(here).catch(() => undefined);
      if (target === undefined || (rest.length === 0 && !follow)) {
        done.push(next);
        continue;
      }
      if (++hops > 40) throw new Error(`link loop: ${guestPath}`);
      if (target.startsWith('/')) done.length = 0;
      parts = [...target.split('/').filter((p) => p !== '' && p !== '.'), ...rest];
    }
    return path.join(this.root, ...done);
  }

  async kind(guestPath: string): Promise<FileKind> {
    const stat = await fs.lstat(await this.host(guestPath, false)).catch(() => undefined);
    if (stat === undefined) return 'missing';
    return stat.isFile() ? 'file' : stat.isDirectory() ? 'dir' : stat.isSymbolicLink() ? 'symlink' : 'other';
  }

  async read(guestPath: string): Promise<Buffer | undefined> {
    return fs.readFile(await this.host(guestPath)).catch(() => undefined);
  }

  async readText(guestPath: string): Promise<string | undefined> {
    return (await this.read(guestPath))?.toString('utf8');
  }

  async list(guestPath: string): Promise<string[]> {
    const names = await fs.readdir(await this.host(guestPath)).catch(() => []);
    return names.sort();
  }

  async glob(pattern: string): Promise<string[]> {
    const found: string[] = [];
    for await (const entry of fs.glob(pattern.replace(/^\//, ''), { cwd: this.root }))
      found.push(`/${entry}`);
    return found.sort();
  }

  async readLink(guestPath: string): Promise<string> {
    return fs.readlink(await this.host(guestPath, false));
  }

  async mode(guestPath: string): Promise<number> {
    return (await fs.lstat(await this.host(guestPath, false))).mode & 0o7777;
  }

  async write(guestPath: string, content: string | Uint8Array, options: WriteOptions = {}): Promise<void> {
    const host = await this.host(guestPath);
    await fs.writeFile(host, content);
    if (options.mode !== undefined) await fs.chmod(host, options.mode);
  }

  async mkdir(guestPath: string, mode?: number): Promise<void> {
    const host = await this.host(guestPath);
    await fs.mkdir(host, { recursive: true });
    if (mode !== undefined) await fs.chmod(host, mode);
  }

  async symlink(target: string, guestPath: string): Promise<void> {
    const host = await this.host(guestPath, false);
    await fs.rm(host, { force: true });
    await fs.symlink(target, host);
  }

  async rename(from: string, to: string): Promise<void> {
    await fs.rename(await this.host(from, false), await this.host(to, false));
  }

  async remove(guestPath: string): Promise<void> {
    await fs.rm(await this.host(guestPath, false), { recursive: true, force: true });
  }
}

/** A call a stage made to the appliance or to guest programs. */
export interface RecordedCall {
  where: 'call' | 'appliance' | 'guest';
  what: string;
  args: string[];
}

/** A TreeGuest with a session: calls are recorded and answered by `answer`. */
export class TreeSession extends TreeGuest implements GuestSession {
  readonly exchange = '/run/port-image';
  readonly calls: RecordedCall[] = [];
  answer: (call: RecordedCall) => string | Promise<string> = () => '';

  async #record(
    where: RecordedCall['where'],
    what: string,
    args: readonly (string | Buffer)[],
  ): Promise<string> {
    const call = { where, what, args: args.map(String) };
    this.calls.push(call);
    return this.answer(call);
  }
  call(command: string, args: readonly (string | Buffer)[] = []): Promise<string> {
    return this.#record('call', command, args);
  }
  appliance(script: string, args: readonly (string | Buffer)[] = []): Promise<string> {
    return this.#record('appliance', script, args);
  }
  guest(script: string, args: readonly (string | Buffer)[] = []): Promise<string> {
    return this.#record('guest', script, args);
  }
  async upload(hostFile: string, guestPath: string): Promise<void> {
    await fs.copyFile(hostFile, await this.host(guestPath));
  }
  async download(guestPath: string, hostFile: string): Promise<void> {
    await fs.copyFile(await this.host(guestPath), hostFile);
  }
  sourceFile(): Promise<string> {
    return Promise.reject(new Error('a tree has no disk'));
  }
}

/** Makes a tree from paths and contents; `{ link }` makes a symbolic link. The caller removes `root`. */
export async function makeTree(files: Record<string, string | { link: string }>): Promise<TreeSession> {
  const root = await fs.mkdtemp(path.join(os.tmpdir(), 'tree-guest-'));
  for (const [name, content] of Object.entries(files)) {
    const host = path.join(root, name);
    await fs.mkdir(path.dirname(host), { recursive: true });
    if (typeof content === 'string') await fs.writeFile(host, content);
    else await fs.symlink(content.link, host);
  }
  return new TreeSession(root);
}

/** Facts of a small Debian server with one disk, LVM root, /boot on sda1 and swap on sda3. */
export function sampleFacts(change: Partial<Facts> = {}): Facts {
  const partition = (number: number, type: string) => ({
    number,
    device: `/dev/sda${number}`,
    startBytes: number * 2 ** 20,
    sizeBytes: 2 ** 29,
    type,
    bootable: number === 1,
  });
  const filesystem = (device: string, type: string, uuid: string) => ({
    device,
    type,
    uuid,
    label: '',
    sizeBytes: 2 ** 29,
    freeBytes: 2 ** 28,
  });
  return {
    schema: 'port-image/facts/1',
    disks: [
      {
        id: 'disk0',
        use: 'system',
        path: '/disk.raw',
        format: 'raw',
        virtualBytes: 2 ** 33,
        table: 'dos',
        partitions: [partition(1, '0x83'), partition(2, '0x8e'), partition(3, '0x82')],
      },
    ],
    bootDisk: 0,
    badRanges: [],
    firmware: 'bios',
    volumeGroups: [],
    filesystems: [
      filesystem('/dev/sda1', 'ext4', '8f0f9c5a-6a53-4d27-a3bb-2b0f6a1f5c01'),
      filesystem('/dev/sda3', 'swap', 'c6a4a6f1-1e2b-4a57-9d8f-7e5d4c3b2a04'),
      filesystem('/dev/shop-vg/root', 'ext4', 'b2a1d0c4-70f4-4f0c-9a55-64d4c9a3e002'),
    ],
    root: '/dev/shop-vg/root',
    mounts: [
      { path: '/', device: '/dev/shop-vg/root' },
      { path: '/boot', device: '/dev/sda1' },
    ],
    os: {
      type: 'linux',
      distro: 'debian',
      version: '12',
      family: 'debian',
      arch: 'x86_64',
      productName: 'Debian GNU/Linux 12 (bookworm)',
      hostname: 'shop01',
      machineId: '66fb9cb4abba3aafbd234b1d8779393e',
      init: 'systemd',
    },
    kernels: [],
    bootloader: {
      kind: 'grub2',
      config: '/boot/grub/grub.cfg',
      defaults: '/etc/default/grub',
      efiLoaders: [],
      fallbackLoader: false,
    },
    network: { systems: [], interfaces: [], pins: [], dns: [], searchDomains: [] },
    agents: [],
    services: [],
    users: [],
    packages: [],
    candidates: [],
    pages: [],
    ...change,
  };
}

/** A stage context that records changes and warnings. */
export function makeContext(options: {
  stage: StageName;
  guest: GuestSession;
  facts: Facts;
  platforms: readonly Platform[];
  request?: Partial<Request>;
  out?: string;
}): StageContext & { changes: Change[]; warnings: string[] } {
  const changes: Change[] = [];
  const warnings: string[] = [];
  const dir = options.out ?? os.tmpdir();
  const request: Request = {
    schema: 'port-image/request/1',
    source: '/disk.raw',
    capture: CaptureOptions.parse({}),
    moreSources: [],
    disks: {},
    targets: {},
    to: options.platforms.map((p) => p.name),
    name: 'test',
    store: 'file:/tmp/store',
    strip: 'none',
    dataMode: 'eager',
    verifyData: 'full',
    urlHours: 24,
    network: 'dhcp',
    nics: [],
    encoding: 'zstd',
    generalize: false,
    verify: true,
    compare: true,
    ...options.request,
  };
  return {
    request,
    paths: {
      dir,
      request: `${dir}/job.json`,
      journal: `${dir}/journal.jsonl`,
      facts: `${dir}/facts.json`,
      plan: `${dir}/plan.json`,
      capture: `${dir}/capture`,
      work: `${dir}/work.qcow2`,
      data: `${dir}/data`,
      out: `${dir}/out`,
      logs: `${dir}/logs`,
      report: `${dir}/report.html`,
      tmp: `${dir}/tmp`,
    },
    platforms: options.platforms,
    result: () => undefined,
    facts: options.facts,
    guest: options.guest,
    signal: new AbortController().signal,
    log: silentLog,
    progress: () => {},
    change: (change) => changes.push({ stage: options.stage, ...change }),
    warn: (text) => warnings.push(text),
    changes,
    warnings,
  };
}
