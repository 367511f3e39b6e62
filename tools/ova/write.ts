/** Writes an OVA: descriptor, manifest and disks in one tar archive (DSP0243 1.1, 5.3). */
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { pack } from 'tar-stream';
import { asPortError, PortError } from '../../core/errors.ts';
import { sha256File } from '../../core/files.ts';
import { KIB } from '../../core/sizes.ts';
import { type OvaDisk, type OvaMachine, ovfDescriptor } from './descriptor.ts';

/** A disk to put in. */
export interface OvaSource extends Omit<OvaDisk, 'file' | 'fileBytes'> {
  /** Path of the streamOptimized VMDK; its last part is its name in the archive. */
  path: string;
}

/** How to write it. */
export interface OvaOptions {
  signal: AbortSignal;
  /** Bytes of disks put in so far. */
  onBytes?: (doneBytes: number, totalBytes: number) => void;
}

/** Bytes read at once. */
const PIECE_BYTES = 256 * KIB;
/** ustar keeps a name of 100 bytes; what follows the base is at most `-disk99.vmdk`. */
const MAX_BASE_CHARS = 80;

/** What the names in the archive start with. */
export function ovaBase(name: string): string {
  return name.replace(/[^A-Za-z0-9._-]/g, '_').slice(0, MAX_BASE_CHARS);
}

/** Members in their order. tar-stream writes a size of 8 GiB and more in base 256, as GNU tar does. */
function members(
  base: string,
  descriptor: string,
  disks: readonly (OvaSource & OvaDisk & { sha256: string })[],
) {
  const digest = createHash('sha256').update(descriptor).digest('hex');
  const manifest = [
    `SHA256(${base}.ovf)= ${digest}`,
    ...disks.map((d) => `SHA256(${d.file})= ${d.sha256}`),
    '',
  ].join('\n');
  return [
    { name: `${base}.ovf`, content: descriptor },
    { name: `${base}.mf`, content: manifest },
    ...disks.map((d) => ({ name: d.file, path: d.path, bytes: d.fileBytes })),
  ];
}

/**
 * Writes `target` (which must exist, so that its mode is the caller's), in the order descriptor, manifest, disks. Each disk is
 * read twice: once for its digest, which stands before it. Throws DISK_SPACE, HOST_IO, INTERRUPTED.
 */
export async function writeOva(
  target: string,
  machine: Omit<OvaMachine, 'disks'>,
  sources: readonly OvaSource[],
  { signal, onBytes }: OvaOptions,
): Promise<void> {
  const base = ovaBase(machine.name);
  const disks: (OvaSource & OvaDisk & { sha256: string })[] = [];
  for (const source of sources) {
    const { size: fileBytes } = await fs.stat(source.path);
    const sha256 = await sha256File(source.path, signal);
    disks.push({ ...source, file: path.basename(source.path), fileBytes, sha256 });
  }
  const descriptor = ovfDescriptor({ ...machine, disks });
  const totalBytes = disks.reduce((sum, d) => sum + d.fileBytes, 0);
  let doneBytes = 0;
  // The types describe a streamx stream, which has the interface of Node's own.
  const archive = pack();
  const fill = async () => {
    for (const member of members(base, descriptor, disks)) {
      const header = { name: member.name, mode: 0o644, uid: 0, gid: 0, type: 'file' as const };
      if ('content' in member) {
        archive.entry(header, member.content);
        continue;
      }
      const entry = archive.entry({ ...header, size: member.bytes }) as unknown as Writable;
      const file = createReadStream(member.path, { highWaterMark: PIECE_BYTES });
      file.on('data', (piece) => {
        doneBytes += piece.length;
        onBytes?.(doneBytes, totalBytes);
      });
      await pipeline(file, entry, { signal });
    }
    archive.finalize();
  };
  try {
    await Promise.all([
      fill().catch((error: unknown) => {
        archive.destroy(error as Error);
        throw error;
      }),
      pipeline(archive as unknown as Readable, createWriteStream(target, { flags: 'r+' }), { signal }),
    ]);
  } catch (error) {
    if (signal.aborted) throw new PortError('INTERRUPTED', 'stopped', { cause: error });
    throw asPortError(error);
  }
}
