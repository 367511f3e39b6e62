/**
 * A strict reader of OVA archives: it lists where the members lie and refuses everything an appliance does not need.
 * tar-stream is not used here: it passes links, devices, repeated and absolute names on to its caller, reads the whole
 * archive to list it, and believes extended headers. Nothing is ever written under a name from an archive.
 * Format: POSIX.1-2017 pax (ustar), with the two GNU things seen in real OVAs, long names and base-256 sizes.
 */
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { type ByteSource, damaged, truncated } from '../image-format/reader.ts';
import { readPax } from './tar-pax.ts';

const BLOCK = 512;
/** An appliance has a handful of members; more than this is an attempt to keep us busy. */
const MAX_MEMBERS = 1000;
/** Headers in all, with those of folders, long names and pax records. */
const MAX_HEADERS = 4 * MAX_MEMBERS;
/** Path names longer than PATH_MAX cannot be files. */
const MAX_LONG_NAME_BYTES = 4096;
/** Most zeros behind the end: tar fills its last record, of 10 KiB by default; more than this is no filling. */
const MAX_PADDING_BYTES = 1024 * 1024;

/** A file in the archive. */
export interface TarMember {
  /** As the archive says, without a leading `./`; relative and clean, but from outside: print it escaped. */
  name: string;
  /** Where its content starts in the archive. */
  offsetBytes: number;
  sizeBytes: number;
}

interface Header {
  name: string;
  sizeBytes: number;
  type: string;
}

function refused(source: ByteSource, why: string): PortError {
  return new PortError('UNSAFE_IMAGE', `${source.name} is refused: ${why}`, {
    hint: 'an OVA holds plain files only; export the machine again',
  });
}

/** The bytes of a text field: up to the first zero. */
function text(block: Buffer, at: number, length: number): string {
  const field = block.subarray(at, at + length);
  const end = field.indexOf(0);
  return field.toString('utf8', 0, end === -1 ? length : end);
}

/** True when the block's checksum is right: the sum of its bytes with the checksum field as spaces. */
export function isTarHeader(block: Buffer): boolean {
  if (block.length < BLOCK || block.toString('latin1', 257, 262) !== 'ustar') return false;
  const stated = /^ *([0-7]+)[ \0]*$/.exec(block.toString('latin1', 148, 156))?.[1];
  if (stated === undefined) return false;
  let sum = 8 * 0x20;
  for (let i = 0; i < BLOCK; i++) if (i < 148 || i >= 156) sum += block[i] ?? 0;
  return Number.parseInt(stated, 8) === sum;
}

/** A size: octal, or GNU's base 256 from 8 GiB on. */
function sizeOf(source: ByteSource, block: Buffer): number {
  const field = block.subarray(124, 136);
  if (((field[0] ?? 0) & 0x80) !== 0) {
    const value = field.readBigUInt64BE(4);
    if (field[0] !== 0x80 || field.readUIntBE(1, 3) !== 0 || value > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw refused(source, 'a member has an impossible size');
    }
    return Number(value);
  }
  const octal = /^ *([0-7]*)[ \0]*$/.exec(field.toString('latin1'))?.[1];
  if (octal === undefined) throw damaged(source, 'the size of a member is no number');
  return octal === '' ? 0 : Number.parseInt(octal, 8);
}

function parseHeader(source: ByteSource, block: Buffer): Header {
  if (!isTarHeader(block)) throw damaged(source, 'a header of the archive has a wrong checksum');
  const type = String.fromCharCode(block[156] ?? 0);
  // GNU's own magic `ustar  ` has times where POSIX has the prefix
  const prefix = block.toString('latin1', 257, 263) === 'ustar\0' ? text(block, 345, 155) : '';
  const name = text(block, 0, 100);
  return {
    name: prefix === '' ? name : `${prefix}/${name}`,
    sizeBytes: sizeOf(source, block),
    type: type === '\0' ? '0' : type,
  };
}

const KINDS: Readonly<Record<string, string>> = {
  '1': 'a hard link',
  '2': 'a symbolic link',
  '3': 'a character device',
  '4': 'a block device',
  '6': 'a named pipe',
  '7': 'a contiguous file',
  K: 'a link',
  M: 'a piece of a multi-volume archive',
  S: 'a sparse file',
};

/** The name without `./` in front and `/` behind. Throws UNSAFE_PATH. */
function cleanName(source: ByteSource, name: string): string {
  const clean = name.replace(/^(\.\/)+/, '').replace(/\/+$/, '');
  const parts = clean.split('/');
  if (clean.includes('\0') || clean.includes('\\') || parts.includes('..') || parts.slice(1).includes('')) {
    throw new PortError('UNSAFE_PATH', `${source.name} holds a member with the name ${printable(name)}`, {
      hint: 'names in an OVA are relative and lead downwards; export the machine again',
    });
  }
  if (parts[0] === '' && parts.length > 1) {
    throw new PortError(
      'UNSAFE_PATH',
      `${source.name} holds a member with the absolute name ${printable(name)}`,
      {
        hint: 'names in an OVA are relative; export the machine again',
      },
    );
  }
  return clean;
}

async function requireEnd(source: ByteSource, offset: number): Promise<void> {
  const left = source.sizeBytes - offset;
  if (left > MAX_PADDING_BYTES) throw damaged(source, 'something stands behind the end of the archive');
  const tail = await source.read(offset, left);
  if (tail.length < BLOCK) throw truncated(source, 'the second end block of the archive');
  if (tail.some((b) => b !== 0)) throw damaged(source, 'something stands behind the end of the archive');
}

/** Content of a small member: a long name, pax records. */
async function smallContent(source: ByteSource, at: number, header: Header, limit: number): Promise<Buffer> {
  if (header.sizeBytes > limit) throw refused(source, `a header of ${header.sizeBytes} bytes`);
  const data = await source.read(at, header.sizeBytes);
  if (data.length < header.sizeBytes) throw truncated(source, 'a header of the archive');
  return data;
}

/**
 * Lists the members in their order. Reads headers only. Throws DAMAGED (wrong checksum, cut, no end blocks), UNSAFE_PATH
 * (absolute, `..`), UNSAFE_IMAGE (links, devices, sparse members, a name twice, too many).
 */
export async function readTar(source: ByteSource): Promise<TarMember[]> {
  const members: TarMember[] = [];
  const names = new Set<string>();
  let longName: string | undefined;
  let longSize: number | undefined;
  let at = 0;
  for (let headers = 0; ; headers++) {
    if (headers > MAX_HEADERS || members.length > MAX_MEMBERS) {
      throw refused(source, `the archive has more than ${MAX_MEMBERS} members`);
    }
    const block = await source.read(at, BLOCK);
    if (block.length < BLOCK) throw truncated(source, 'the end of the archive');
    at += BLOCK;
    if (block.every((b) => b === 0)) {
      if (longName !== undefined || longSize !== undefined)
        throw damaged(source, 'its last header has no member');
      await requireEnd(source, at);
      return members;
    }
    const header = parseHeader(source, block);
    if (header.type === 'L') {
      const data = await smallContent(source, at, header, MAX_LONG_NAME_BYTES + 1);
      longName = text(data, 0, data.length);
    } else if (header.type === 'x' || header.type === 'g') {
      const pax = readPax(source, await smallContent(source, at, header, 64 * 1024), header.type === 'g');
      longName = pax.path ?? longName;
      longSize = pax.sizeBytes ?? longSize;
    } else {
      const sizeBytes = longSize ?? header.sizeBytes;
      const shown = longName ?? header.name;
      const name = cleanName(source, shown);
      [longName, longSize] = [undefined, undefined];
      header.sizeBytes = sizeBytes;
      if (header.type === '5') {
        if (sizeBytes !== 0) throw refused(source, 'a folder in it has content');
      } else if (header.type === '0' && !shown.endsWith('/')) {
        if (name === '' || names.has(name)) {
          throw refused(source, `the member ${printable(name)} is in it twice, or has no name`);
        }
        if (at + sizeBytes > source.sizeBytes) throw truncated(source, `the member ${printable(name)}`);
        names.add(name);
        members.push({ name, offsetBytes: at, sizeBytes });
      } else {
        const kind = KINDS[header.type] ?? `something of type ${printable(header.type)}`;
        throw refused(source, `the member ${printable(name)} is ${kind}`);
      }
    }
    at += Math.ceil(header.sizeBytes / BLOCK) * BLOCK;
  }
}
