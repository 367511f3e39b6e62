/** Foreign programs this product uses: found where, which version, what is lost without them, how to install them. */
import { access, constants, readdir, statfs } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import * as path from 'node:path';
import { run } from '../core/command.ts';
import { asPortError } from '../core/errors.ts';
import { type KvmProbe, probeKvm } from './kvm.ts';
import { OVMF_FILES } from './qemu-system.ts';

/** One thing this machine has or lacks. */
export interface DoctorItem {
  name: string;
  kind: 'program' | 'file';
  /** Where it is, or undefined when it is missing. */
  path: string | undefined;
  /** As the program says, printable. */
  version: string | undefined;
  /** Without it nothing works. */
  required: boolean;
  /** What does not work without it. */
  disables: string;
  /** How to get it. */
  install: string;
}

/** What the machine is fit for. */
export interface DoctorReport {
  /** True when nothing required is missing. */
  ok: boolean;
  node: { version: string; ok: boolean };
  items: DoctorItem[];
  kvm: KvmProbe;
  space: { path: string; freeBytes: number }[];
}

interface Wanted {
  name: string;
  /** Arguments that make it tell its version. */
  ask?: readonly string[];
  /** Debian's; where it has none, `install`. */
  package?: string;
  install?: string;
  required: boolean;
  disables: string;
}

const PROGRAMS: readonly Wanted[] = [
  { name: 'qemu-img', ask: ['--version'], package: 'qemu-utils', required: true, disables: 'everything' },
  {
    name: 'qemu-storage-daemon',
    ask: ['--version'],
    package: 'qemu-system-common',
    required: false,
    disables: 'fast reading of data from images that are not raw',
  },
  {
    name: 'qemu-io',
    ask: ['--version'],
    package: 'qemu-utils',
    required: false,
    disables: 'images of a size the platform rounds up (aws, azure, gcp) from a disk with GPT',
  },
  {
    name: 'qemu-system-x86_64',
    ask: ['--version'],
    package: 'qemu-system-x86',
    required: true,
    disables: 'the appliance and the verification boot',
  },
  {
    name: 'guestfish',
    ask: ['--version'],
    package: 'libguestfs-tools',
    required: true,
    disables: 'every change inside an image',
  },
  {
    name: 'virt-customize',
    ask: ['--version'],
    package: 'libguestfs-tools',
    required: false,
    disables: '--customize',
  },
  {
    name: 'xorriso',
    ask: ['--version'],
    package: 'xorriso',
    required: false,
    disables: 'the verification boot (config drive)',
  },
  {
    name: 'apt-get',
    ask: ['--version'],
    package: 'apt',
    required: false,
    disables: 'resolving packages for Debian and Ubuntu guests',
  },
  {
    name: 'dpkg-deb',
    ask: ['--version'],
    package: 'dpkg',
    required: false,
    disables: 'packages for Debian and Ubuntu guests',
  },
  { name: 'zstd', ask: ['--version'], package: 'zstd', required: true, disables: 'data sets' },
  { name: 'tar', ask: ['--version'], package: 'tar', required: true, disables: 'data sets' },
  {
    name: 'gzip',
    ask: ['--version'],
    package: 'gzip',
    required: false,
    disables: 'images for gcp',
  },
  {
    name: 'prlimit',
    ask: ['--version'],
    package: 'util-linux',
    required: true,
    disables: 'limits on programs that read hostile images',
  },
  {
    name: 'setpriv',
    ask: ['--version'],
    package: 'util-linux',
    required: true,
    disables: 'the verification boot',
  },
  {
    name: 'fusermount3',
    ask: ['--version'],
    package: 'fuse3',
    required: false,
    disables: 'fast reading of data from images that are not raw',
  },
  {
    name: 'govc',
    ask: ['version'],
    install: 'govc 0.31 or newer: https://github.com/vmware/govmomi/releases',
    required: false,
    disables: 'upload to vSphere (the OVA is written all the same)',
  },
];

/** Version from the first line that has digits with a dot. */
export function versionIn(text: string): string | undefined {
  return /\d+\.\d+[\w.+~-]*/.exec(text.split('\n').find((line) => /\d+\.\d+/.test(line)) ?? '')?.[0];
}

async function findProgram(name: string): Promise<string | undefined> {
  for (const dir of (process.env.PATH ?? '').split(path.delimiter).filter((d) => path.isAbsolute(d))) {
    const file = path.join(dir, name);
    if (await readable(file, constants.X_OK)) return file;
  }
  return undefined;
}

async function readable(file: string, mode = constants.R_OK): Promise<boolean> {
  return access(file, mode).then(
    () => true,
    () => false,
  );
}

async function program(wanted: Wanted): Promise<DoctorItem> {
  const found = await findProgram(wanted.name);
  let version: string | undefined;
  if (found !== undefined && wanted.ask !== undefined) {
    version = await run(found, wanted.ask, { timeoutMs: 10_000, maxOutputBytes: 1024 * 1024 }).then(
      (r) => versionIn(`${r.stdout}\n${r.stderr}`),
      (error: unknown) => `does not run: ${asPortError(error).message}`.slice(0, 120),
    );
  }
  return {
    name: wanted.name,
    kind: 'program',
    path: found,
    version,
    required: wanted.required,
    disables: wanted.disables,
    install: wanted.install ?? `apt-get install ${wanted.package ?? wanted.name}`,
  };
}

async function files(): Promise<DoctorItem[]> {
  const kernels = (await readdir('/boot').catch(() => [])).filter((name) => name.startsWith('vmlinuz'));
  let kernel: string | undefined;
  for (const name of kernels) if (await readable(path.join('/boot', name))) kernel = path.join('/boot', name);
  let ovmf: string | undefined;
  for (const { code, vars } of OVMF_FILES)
    if ((await readable(code)) && (await readable(vars))) ovmf ??= code;
  const fuse = (await readable('/dev/fuse', constants.R_OK | constants.W_OK)) ? '/dev/fuse' : undefined;
  const file = (name: string, at: string | undefined, required: boolean, disables: string, install: string) =>
    ({ name, kind: 'file', path: at, version: undefined, required, disables, install }) as const;
  return [
    file(
      'kernel for the appliance',
      process.env.SUPERMIN_KERNEL ?? kernel,
      true,
      'every change inside an image',
      // Ubuntu keeps kernels readable for root only.
      kernels.length > 0 ? 'chmod 0644 /boot/vmlinuz-*' : 'apt-get install linux-image-amd64',
    ),
    file('UEFI firmware', ovmf, false, 'the verification boot of UEFI images', 'apt-get install ovmf'),
    file('fuse device', fuse, false, 'fast reading of data from images that are not raw', 'modprobe fuse'),
  ];
}

/** Free bytes where images and packages are kept. */
async function space(): Promise<{ path: string; freeBytes: number }[]> {
  const found: { path: string; freeBytes: number }[] = [];
  for (const dir of new Set([tmpdir(), homedir(), process.cwd()])) {
    const stat = await statfs(dir).catch(() => undefined);
    if (stat !== undefined) found.push({ path: dir, freeBytes: stat.bavail * stat.bsize });
  }
  return found;
}

/** Looks at the machine; changes nothing. */
export async function doctor(): Promise<DoctorReport> {
  const [items, others, kvm, free] = await Promise.all([
    Promise.all(PROGRAMS.map(program)),
    files(),
    probeKvm(),
    space(),
  ]);
  const all = [...items, ...others];
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const node = { version: process.versions.node, ok: major > 22 || (major === 22 && minor >= 19) };
  return {
    ok: node.ok && all.every((i) => i.path !== undefined || !i.required),
    node,
    items: all,
    kvm,
    space: free,
  };
}
