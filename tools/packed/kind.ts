/** Which kind of package a source is: by its content, never by its name. */
import type { Dirent } from 'node:fs';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { asPortError, PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { type OpenedSource, openSource } from '../image-format/open.ts';
import { compressionOf } from './decompress.ts';
import { isTarHeader, readTar } from './tar-reader.ts';
import { looksLikeDescriptor, MAX_DESCRIPTOR_BYTES } from './vmdk-plan.ts';
import { looksLikeVmx } from './vmx.ts';

/** Kinds of packed sources. */
export const PACKED_KINDS = ['ova', 'ovf', 'vmx', 'vmdk-descriptor', 'gzip', 'xz', 'zstd'] as const;
/** A kind of packed source. */
export type PackedKind = (typeof PACKED_KINDS)[number];

const HEAD_BYTES = 64 * 1024;
/** Most entries of a folder that are looked at. */
const MAX_ENTRIES = 10_000;

/** True for the name of a descriptor with this extension; inside a package and a folder names are all there is to go by. */
export function hasExtension(name: string, extension: 'ovf' | 'vmx' | 'mf'): boolean {
  return name.toLowerCase().endsWith(`.${extension}`);
}

/** True for XML whose root element is an OVF envelope. */
function looksLikeOvf(head: Buffer): boolean {
  const text = head.toString('utf8').replace(/^\ufeff/, '');
  return /^\s*(<\?xml[^>]{0,200}\?>\s*)?(<!--[\s\S]{0,4000}?-->\s*)?<([\w.-]{1,40}:)?Envelope[\s>]/.test(
    text,
  );
}

async function kindOf(source: OpenedSource): Promise<PackedKind | undefined> {
  const head = await source.read(0, HEAD_BYTES);
  const compression = compressionOf(head);
  if (compression !== undefined) return compression;
  if (isTarHeader(head.subarray(0, 512))) {
    const members = await readTar(source);
    return members.some((m) => hasExtension(m.name, 'ovf')) ? 'ova' : undefined;
  }
  if (looksLikeOvf(head)) return 'ovf';
  // a longer one is a disk whose guest wrote these words into its first sector
  if (source.sizeBytes <= MAX_DESCRIPTOR_BYTES && looksLikeDescriptor(head)) return 'vmdk-descriptor';
  return looksLikeVmx(head.toString('utf8')) ? 'vmx' : undefined;
}

/** The only descriptor in a folder. Throws USAGE when there are several. */
async function descriptorIn(folder: string): Promise<string | undefined> {
  const entries: Dirent[] = [];
  for await (const entry of await fs.opendir(folder)) {
    entries.push(entry);
    if (entries.length > MAX_ENTRIES) return undefined;
  }
  const found = entries.filter(
    (e) => e.isFile() && (hasExtension(e.name, 'ovf') || hasExtension(e.name, 'vmx')),
  );
  if (found.length > 1) {
    throw new PortError('USAGE', `${printable(folder)} holds several machines`, {
      hint: `name one of them: ${found
        .slice(0, 5)
        .map((e) => printable(e.name))
        .join(', ')}`,
    });
  }
  return found[0] && path.join(folder, found[0].name);
}

/** A packed source: which file to read, and as what. */
export interface FoundPackage {
  kind: PackedKind;
  /** The file itself, or the descriptor found in a folder; absolute. */
  file: string;
}

/**
 * Finds the package in what the user named; undefined when it is none (an image, a device, anything else, and what does not
 * exist). Throws USAGE for a folder with several descriptors, and the refusals of `readTar` for a bad OVA.
 */
export async function findPackage(file: string): Promise<FoundPackage | undefined> {
  const resolved = await fs.realpath(path.resolve(file)).catch(() => undefined);
  const stat = resolved === undefined ? undefined : await fs.stat(resolved).catch(() => undefined);
  if (resolved === undefined || stat === undefined) return undefined;
  let target: string | undefined = resolved;
  if (stat.isDirectory()) {
    target = await descriptorIn(resolved).catch((error: unknown) => {
      throw asPortError(error);
    });
  } else if (!stat.isFile() || stat.size === 0) return undefined;
  if (target === undefined) return undefined;
  const source = await openSource(target);
  try {
    const kind = source.isDevice ? undefined : await kindOf(source);
    return kind && { kind, file: source.path };
  } finally {
    await source.close();
  }
}

/** The kind of package under a name; see `findPackage`. */
export async function packedKind(file: string): Promise<PackedKind | undefined> {
  return (await findPackage(file))?.kind;
}
