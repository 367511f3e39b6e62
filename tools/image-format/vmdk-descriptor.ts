/** The text part of a VMDK: every line must be understood, and none may lead to another file. */
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { type ByteSource, damaged, unsafe } from './reader.ts';

/** Keys that say nothing about where data lies. */
const HARMLESS = /^(version|encoding|cid|isnativesnapshot|objectid|ddb\.[a-z0-9._-]+)$/;
/** Keys that name other files. */
const REFERENCES = ['parentfilenamehint', 'changetrackpath', 'ddb.changetrackpath', 'digestfilename'];
const SINGLE_FILE = ['monolithicsparse', 'streamoptimized'];
const EXTENT = /^(RW|RDONLY|NOACCESS)\s+(\d+)\s+([A-Z]+)(?:\s+"([^"]*)")?(?:\s+(\S+))*$/i;

function outside(source: ByteSource, what: string, reference: string): PortError {
  return new PortError(
    'OUTSIDE_REFERENCE',
    `${source.name} refers to ${what}: ${printable(reference)} (not opened)`,
    {
      hint: 'remove the snapshots and make one file first: vmkfstools -i, ovftool, or qemu-img convert if that file is yours',
    },
  );
}

function unquote(value: string): string {
  return value.trim().replace(/^"(.*)"$/, '$1');
}

/** One extent line. */
export interface VmdkExtent {
  access: string;
  sectors: number;
  /** Upper case: FLAT, SPARSE, ZERO, VMFS, … */
  kind: string;
  /** As written, untrusted; empty when the line names none. */
  file: string;
  /** What stands behind the name: an offset, or nothing. */
  rest: string;
}

/** A descriptor, read. */
export interface VmdkDescriptor {
  /** Lower case. */
  type: string;
  extents: VmdkExtent[];
}

function readExtent(source: ByteSource, line: string): VmdkExtent {
  const match = EXTENT.exec(line);
  const [, access = '', sectors = '', kind = '', file = '', rest = ''] = match ?? [];
  if (!match || !Number.isSafeInteger(Number(sectors) * 512)) {
    throw unsafe(source, `VMDK extent not understood: ${printable(line).slice(0, 200)}`);
  }
  const extent = {
    access: access.toUpperCase(),
    sectors: Number(sectors),
    kind: kind.toUpperCase(),
    file,
    rest,
  };
  if (extent.kind === 'SESPARSE') throw seSparse(source);
  return extent;
}

function seSparse(source: ByteSource): PortError {
  return new PortError('UNSUPPORTED_FORMAT', `${source.name} is a VMware SEsparse disk`, {
    hint: 'clone the disk with vmkfstools -i -d thin',
  });
}

/**
 * Reads a descriptor; every line must be understood. Throws OUTSIDE_REFERENCE for a parent disk or other files it depends on,
 * UNSAFE_IMAGE, UNSUPPORTED_FORMAT, DAMAGED.
 */
export function readDescriptor(source: ByteSource, text: string): VmdkDescriptor {
  const body = text.replace(/\0.*$/s, '');
  let type: string | undefined;
  const extents: VmdkExtent[] = [];
  for (const raw of body.split(/\r?\n/)) {
    const line = raw.trim();
    if (line === '' || line.startsWith('#')) continue;
    if (/^(RW|RDONLY|NOACCESS)\s/i.test(line)) {
      extents.push(readExtent(source, line));
      continue;
    }
    const equals = line.indexOf('=');
    const key = line.slice(0, Math.max(0, equals)).trim().toLowerCase();
    const value = unquote(line.slice(equals + 1));
    if (REFERENCES.includes(key))
      throw outside(source, key === 'parentfilenamehint' ? 'a parent disk' : 'another file', value);
    if (key === 'parentcid') {
      if (value.toLowerCase() !== 'ffffffff') throw outside(source, 'a parent disk', `CID ${value}`);
    } else if (key === 'createtype') {
      type = value.toLowerCase();
    } else if (!HARMLESS.test(key)) {
      throw unsafe(source, `VMDK descriptor line not understood: ${printable(line).slice(0, 200)}`);
    }
  }
  if (type === 'sesparse') throw seSparse(source);
  if (type === undefined) throw damaged(source, 'its VMDK descriptor has no createType');
  return { type, extents };
}

/**
 * Checks the descriptor of an image that must be one file. `embedded` says that it stands inside a sparse file, which alone makes one.
 * Throws as `readDescriptor`, and OUTSIDE_REFERENCE for extents elsewhere.
 */
export function checkDescriptor(source: ByteSource, text: string, embedded: boolean): void {
  const { type, extents } = readDescriptor(source, text);
  for (const { access, kind, file } of extents) {
    if (!embedded || kind !== 'SPARSE') throw outside(source, `a ${kind} extent`, file || '?');
    // inside a single file this name is the file's own; a path in it has no honest use
    if (file.includes('/') || file.includes('\\')) throw outside(source, 'an extent elsewhere', file);
    if (access === 'NOACCESS') throw damaged(source, 'its only extent may not be read');
  }
  if (!SINGLE_FILE.includes(type)) throw outside(source, 'other files by its type', type);
  if (extents.length !== 1) {
    throw unsafe(source, `its VMDK descriptor has ${extents.length} extents instead of 1`);
  }
}
