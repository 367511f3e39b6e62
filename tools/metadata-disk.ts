/** Metadata disks as clouds attach them: ISO 9660 by xorriso, or the 64 MiB vfat disk Nova can be told to make. */
import { mkdir, mkdtemp, open, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { run } from '../core/command.ts';
import type { MetadataKind } from '../core/platform.ts';
import { MIB } from '../core/sizes.ts';
import { configDriveFiles, type InstanceMetadata, noCloudFiles } from './config-drive.ts';

/** Nova's CONFIGDRIVESIZE_BYTES (openstack/nova:nova/virt/configdrive.py). */
const VFAT_BYTES = 64 * MIB;

/** Kind of metadata disk, which also decides the label: config-2 or cidata. */
export type MetadataDiskKind = Extract<MetadataKind, 'config-drive' | 'nocloud'>;

/** Writes a disk with the metadata. Throws PROGRAM_MISSING, PROGRAM_FAILED. */
export async function writeMetadataDisk(
  target: string,
  kind: MetadataDiskKind,
  meta: InstanceMetadata,
  options: { format?: 'iso9660' | 'vfat'; signal?: AbortSignal | undefined } = {},
): Promise<void> {
  const files = kind === 'config-drive' ? configDriveFiles(meta) : noCloudFiles(meta);
  const label = kind === 'config-drive' ? 'config-2' : 'cidata';
  const write = options.format === 'vfat' ? writeVfat : writeIso;
  await withTree(files, (tree) => write(target, label, tree, options.signal));
}

/** The files as a folder, for as long as `use` runs. */
async function withTree(
  files: Iterable<readonly [name: string, content: string]>,
  use: (tree: string) => Promise<void>,
): Promise<void> {
  const tree = await mkdtemp(path.join(tmpdir(), 'port-image-seed-'));
  try {
    for (const [name, content] of files) {
      const file = path.join(tree, name);
      await mkdir(path.dirname(file), { recursive: true });
      await writeFile(file, content);
    }
    await use(tree);
  } finally {
    await rm(tree, { recursive: true, force: true });
  }
}

/** Writes an ISO with these files, as Nova does. Throws PROGRAM_MISSING, PROGRAM_FAILED. */
export async function writeFilesIso(
  target: string,
  label: string,
  files: Iterable<readonly [name: string, content: string]>,
  signal?: AbortSignal,
): Promise<void> {
  await withTree(files, (tree) => writeIso(target, label, tree, signal));
}

/** Writes the ISO of a config drive or NoCloud seed. */
export async function writeMetadataIso(
  target: string,
  kind: MetadataDiskKind,
  meta: InstanceMetadata,
  signal?: AbortSignal,
): Promise<void> {
  await writeMetadataDisk(target, kind, meta, { signal });
}

async function writeIso(
  target: string,
  label: string,
  tree: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  // Nova's own mkisofs options.
  const names = ['-ldots', '-allow-lowercase', '-allow-multidot', '-l', '-J', '-r'];
  const args = ['-as', 'mkisofs', '-o', target, ...names, '-publisher', 'OpenStack Compute', '-quiet'];
  await run('xorriso', [...args, '-V', label, tree], { signal, timeoutMs: 60_000 });
}

async function writeVfat(
  target: string,
  label: string,
  tree: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  const file = await open(target, 'w', 0o600);
  await file.truncate(VFAT_BYTES).finally(() => file.close());
  // An absolute path: mtools read `c:` as a drive, and both programs a leading dash as an option.
  const disk = path.resolve(target);
  await run('mkfs.vfat', ['-n', label, disk], { signal, timeoutMs: 60_000 });
  const entries = (await readdir(tree)).map((name) => path.join(tree, name));
  await run('mcopy', ['-s', '-Q', '-i', disk, ...entries, '::'], { signal, timeoutMs: 60_000 });
}
