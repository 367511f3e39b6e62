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
      hint: 'make one file first: vmkfstools -i, ovftool, or qemu-img convert -f vmdk -O qcow2 if that file is yours',
    },
  );
}

function unquote(value: string): string {
  return value.trim().replace(/^"(.*)"$/, '$1');
}

function checkExtent(source: ByteSource, line: string, embedded: boolean): void {
  const match = EXTENT.exec(line);
  if (!match) throw unsafe(source, `VMDK extent not understood: ${printable(line).slice(0, 200)}`);
  const [, access = '', , kind = '', file = ''] = match;
  if (kind.toUpperCase() === 'SESPARSE') {
    throw new PortError('UNSUPPORTED_FORMAT', `${source.name} is a VMware SEsparse disk`, {
      hint: 'clone the disk with vmkfstools -i -d thin',
    });
  }
  if (!embedded || kind.toUpperCase() !== 'SPARSE')
    throw outside(source, `a ${kind.toUpperCase()} extent`, file || '?');
  // inside a single file this name is the file's own; a path in it has no honest use
  if (file.includes('/') || file.includes('\\')) throw outside(source, 'an extent elsewhere', file);
  if (access.toUpperCase() === 'NOACCESS') throw damaged(source, 'its only extent may not be read');
}

/**
 * Checks a descriptor. `embedded` says that it stands inside a sparse file, which alone makes a single-file image.
 * Throws OUTSIDE_REFERENCE, UNSAFE_IMAGE, UNSUPPORTED_FORMAT, DAMAGED.
 */
export function checkDescriptor(source: ByteSource, text: string, embedded: boolean): void {
  const body = text.replace(/\0.*$/s, '');
  let type: string | undefined;
  let extents = 0;
  for (const raw of body.split(/\r?\n/)) {
    const line = raw.trim();
    if (line === '' || line.startsWith('#')) continue;
    if (/^(RW|RDONLY|NOACCESS)\s/i.test(line)) {
      checkExtent(source, line, embedded);
      extents++;
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
  if (type === 'sesparse') checkExtent(source, 'RW 0 SESPARSE', embedded);
  if (type === undefined) throw damaged(source, 'its VMDK descriptor has no createType');
  if (!SINGLE_FILE.includes(type)) throw outside(source, 'other files by its type', type);
  if (extents !== 1) throw unsafe(source, `its VMDK descriptor has ${extents} extents instead of 1`);
}
