/** Extended headers of a tar archive (POSIX pax): `LENGTH KEY=VALUE\n`, over and over. */
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { type ByteSource, damaged } from '../image-format/reader.ts';

/** Keys that say nothing about what a member is or where its content lies. */
const HARMLESS =
  /^(mtime|atime|ctime|uid|gid|uname|gname|comment|charset|hdrcharset|LIBARCHIVE\.creationtime|SCHILY\.(dev|ino|nlink|fflags|xattr\..*|acl\..*)|LIBARCHIVE\.xattr\..*)$/s;

/** What such a header says about the next member. */
export interface PaxFacts {
  path?: string;
  sizeBytes?: number;
}

/**
 * Reads extended records. `global` ones may say nothing about a member's name or size. Throws DAMAGED for what is no list of records, UNSAFE_IMAGE for
 * keys that make a member something else than a plain file.
 */
export function readPax(source: ByteSource, data: Buffer, global: boolean): PaxFacts {
  const facts: PaxFacts = {};
  const seen = new Set<string>();
  for (let at = 0; at < data.length; ) {
    const digits = /^([1-9]\d{0,5}) /.exec(data.toString('latin1', at, at + 7))?.[1];
    const length = Number(digits);
    const record = digits === undefined ? '' : data.toString('utf8', at + digits.length + 1, at + length);
    const equals = record.indexOf('=');
    if (digits === undefined || at + length > data.length || equals < 1 || !record.endsWith('\n')) {
      throw damaged(source, 'an extended header of the archive is no list of records');
    }
    const key = record.slice(0, equals);
    const value = record.slice(equals + 1, -1);
    const known = !global && !seen.has(key) && (key === 'path' || key === 'size');
    if (!known && !HARMLESS.test(key)) {
      throw new PortError(
        'UNSAFE_IMAGE',
        `${source.name} is refused: its archive says ${printable(key).slice(0, 100)}`,
        {
          hint: 'an OVA holds plain files only; make it with: tar --format=ustar -cf',
        },
      );
    }
    seen.add(key);
    if (known && key === 'path') facts.path = value;
    if (known && key === 'size') {
      if (!/^\d{1,16}$/.test(value) || !Number.isSafeInteger(Number(value))) {
        throw damaged(source, 'the size of a member is no number');
      }
      facts.sizeBytes = Number(value);
    }
    at += length;
  }
  return facts;
}
