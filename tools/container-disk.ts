/** The disk inside an artifact, as something QEMU can open, whatever it travels in. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { run } from '../core/command.ts';
import { PortError } from '../core/errors.ts';
import { printable } from '../core/text.ts';
import type { Artifact } from '../core/types.ts';
import { GCE_MEMBER } from './gce-tar.ts';
import { openSource } from './image-format/open.ts';
import { readTar } from './packed/tar-reader.ts';
import { createOverlayInside } from './qemu-img.ts';

/** How to open it. */
export interface DiskOfOptions {
  signal?: AbortSignal | undefined;
  /** Name of the disk in an OVA that holds several; the first one when absent. */
  member?: string;
}

/** A disk QEMU can open; never to be written. */
export interface ContainerDisk {
  /** Absolute path. */
  path: string;
  /** qemu-img format name. */
  format: string;
  /** Removes what was made below `tmp`. */
  close(): Promise<void>;
}

/**
 * A plain file is itself. Of an OVA nothing is copied: a small qcow2 overlay stands on the VMDK where it lies in the archive.
 * GCE's tarball is unpacked to a sparse file below `tmp`, which takes the space of its data.
 * Throws DAMAGED when the container is not what we write, PROGRAM_FAILED, PROGRAM_MISSING, INTERRUPTED.
 */
export async function diskOf(
  artifact: Pick<Artifact, 'path' | 'format' | 'container'>,
  tmp: string,
  options: DiskOfOptions = {},
): Promise<ContainerDisk> {
  const { container } = artifact;
  if (container === undefined) {
    return { path: artifact.path, format: artifact.format, close: async () => {} };
  }
  const dir = await fs.mkdtemp(path.join(path.resolve(tmp), 'disk-of-'));
  const close = () => fs.rm(dir, { recursive: true, force: true });
  try {
    const disk =
      container === 'ova' ? await insideOva(artifact, dir, options) : await unpacked(artifact, dir, options);
    return { ...disk, close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function insideOva(
  artifact: Pick<Artifact, 'path' | 'format'>,
  dir: string,
  { signal, member }: DiskOfOptions,
): Promise<{ path: string; format: string }> {
  const source = await openSource(artifact.path);
  try {
    const members = await readTar(source);
    const found = members.find((m) => (member === undefined ? m.name.endsWith('.vmdk') : m.name === member));
    if (found === undefined) throw new PortError('DAMAGED', `${printable(artifact.path)} holds no such disk`);
    const overlay = path.join(dir, 'disk.qcow2');
    await createOverlayInside({ path: source.path, format: artifact.format }, found, overlay, { signal });
    return { path: overlay, format: 'qcow2' };
  } finally {
    await source.close();
  }
}

async function unpacked(
  artifact: Pick<Artifact, 'path' | 'format'>,
  dir: string,
  { signal }: DiskOfOptions,
): Promise<{ path: string; format: string }> {
  const args = [
    '-x',
    '-z',
    '--no-same-owner',
    '--mode=0600',
    '-C',
    dir,
    '-f',
    path.resolve(artifact.path),
    GCE_MEMBER,
  ];
  await run('tar', args, { signal, timeoutMs: 24 * 3_600_000 });
  return { path: path.join(dir, GCE_MEMBER), format: artifact.format };
}
